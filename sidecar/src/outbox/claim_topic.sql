-- The first sidecar chooses the topic of the outbox.
insert into outbox_topic (topic) values ($1)
on conflict do nothing
