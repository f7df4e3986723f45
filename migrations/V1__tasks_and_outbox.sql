-- Tasks, and the events about them that are not on the topic yet.
--
-- The component writes both with one statement per use case, so a task and its event are committed
-- together or not at all; nothing else may write to either table.

create table tasks (
    -- a UUIDv7: made by the component, so that a repeated statement is recognised, and in the order
    -- of creation, so that the primary key is also the index of the newest-first list
    id          uuid primary key,
    title       text        not null check (char_length(title) between 1 and 200),
    description text        check (char_length(description) <= 10000),
    status      text        not null check (status in ('todo', 'in_progress', 'done')),
    -- counts the changes from 1 on; an event carries the version that its change made
    version     bigint      not null check (version > 0),
    created_at  timestamptz not null,
    updated_at  timestamptz not null
);

-- The first five columns are those that Debezium's Outbox Event Router reads by default. A row lives
-- from the commit of the change until the broker has acknowledged the event.
create table outbox (
    id            uuid        primary key,
    aggregatetype text        not null,
    aggregateid   uuid        not null,
    type          text        not null,
    -- the record's value, byte for byte: text, since jsonb would write it anew
    payload       text        not null,
    version       bigint      not null,
    time          timestamptz not null,
    traceparent   text,
    -- what the sidecar asks to publish a task's events in order; and no version twice
    unique (aggregateid, version)
);

-- A task as the API shows it, in one place for every query: the same JSON, field for field, that the
-- component answers to the request that made the task.
create function task_document(task tasks) returns text
    language sql stable
    return (
        select row_to_json(document)::text
        from (
            select task.id, task.title, task.description, task.status, task.version,
                   to_char(task.created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as created_at,
                   to_char(task.updated_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as updated_at
        ) as document
    );
