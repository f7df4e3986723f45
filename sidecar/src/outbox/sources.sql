-- Every ce_source that the records of this outbox have had. Without a topic nothing is published.
select sources from outbox_topic
