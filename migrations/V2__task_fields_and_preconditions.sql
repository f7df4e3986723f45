-- What clients expect of a task beyond its title, and what lists are searched and sorted by.

alter table tasks
    -- 0 low, 1 normal, 2 high: a number, so that it sorts
    add column priority smallint not null default 1 check (priority between 0 and 2),
    add column due_at   timestamptz,
    add column tags     text[]   not null default '{}' check (cardinality(tags) <= 20),
    -- the event of the last change, by which a repeated statement recognises its own work
    add column last_event_id uuid,
    -- the words that lists can be searched for, without the rules of any one language
    add column words    tsvector generated always as
        (to_tsvector('simple', title || ' ' || coalesce(description, ''))) stored;

-- One index for each order of a list, with the id as the tie-break that makes pages stable. The order
-- of creation is the primary key's.
create index tasks_updated_at on tasks (updated_at, id);
create index tasks_due_at on tasks (coalesce(due_at, 'infinity'), id);
create index tasks_priority on tasks (priority, id);
-- Filters that an order's index would have to search long for.
create index tasks_status on tasks (status, id);
create index tasks_tags on tasks using gin (tags);
create index tasks_words on tasks using gin (words);

create or replace function task_document(task tasks) returns text
    language sql stable
    return (
        select row_to_json(document)::text
        from (
            select task.id, task.title, task.description, task.status,
                   (array['low', 'normal', 'high'])[task.priority + 1] as priority,
                   to_char(task.due_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as due_at,
                   task.tags, task.version,
                   to_char(task.created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as created_at,
                   to_char(task.updated_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as updated_at
        ) as document
    );

-- First answers to POST requests with an Idempotency-Key; the sidecar removes them after 24 hours.
create table idempotency_keys (
    key         text        primary key,
    -- SHA-256 of the request's body, in hexadecimal
    fingerprint text        not null,
    task_id     uuid        not null,
    -- the task as it was answered
    response    text        not null,
    created_at  timestamptz not null
);
create index idempotency_keys_created_at on idempotency_keys (created_at);
