-- What the sidecars of one outbox must agree on, so that one that is configured otherwise, or older, notices.

-- The topic that the events go to. `kafka-sidecar topic set` changes it.
create table outbox_topic (
    is_only_row boolean primary key default true check (is_only_row),
    topic       text not null
);

-- An outbox that has published to one topic belongs to that topic.
insert into outbox_topic (topic)
select min(topic) from positions having count(distinct topic) = 1;

-- Each number of partitions that events were placed by. A record at or after begin_offsets[partition + 1] was placed by this
-- layout or a later one; a partition without a begin offset begins at 0.
create table topic_layouts (
    topic         text        not null,
    number        int         not null,
    partitions    int         not null check (partitions > 0),
    begin_offsets bigint[]    not null,
    began_at      timestamptz not null default now(),
    primary key (topic, number)
);

-- A sidecar whose newest migration is older than this does not start. A migration that the sidecars before it cannot work
-- with raises the number to its own.
create table schema_compatibility (
    is_only_row     boolean primary key default true check (is_only_row),
    minimum_version int not null
);

insert into schema_compatibility (minimum_version) values (11);
