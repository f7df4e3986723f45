-- How far the topic is known to hold what the outbox no longer does: from here on the sidecar reads a
-- partition back before it publishes anything whose fate it does not know.
create table positions (
    topic       text   not null,
    partition   int    not null,
    next_offset bigint not null,
    primary key (topic, partition)
);
