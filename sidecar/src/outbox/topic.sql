-- The topic that the events of this outbox go to, if one has been chosen.
select topic from outbox_topic
