-- An operator moves the outbox to another topic.
insert into outbox_topic (topic) values ($1)
on conflict (is_only_row) do update set topic = excluded.topic
