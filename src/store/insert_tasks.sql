-- Many tasks and their events, all or none: rows of JSON, in the order of the request.
with input as (
    select *
    from json_to_recordset(($1::text)::json) as input (
        id uuid, title text, description text, status text, rank int2, due_at timestamptz, tags text[],
        created_at timestamptz, event_id uuid, type text, payload text, traceparent text
    )
), task as (
    insert into tasks (id, title, description, status, priority, due_at, tags, version, created_at, updated_at,
                       last_event_id)
    select id, title, description, status, rank, due_at, tags, 1, created_at, created_at, event_id
    from input
    on conflict (id) do nothing
    returning id
)
insert into outbox (id, aggregatetype, aggregateid, type, payload, version, time, traceparent)
select input.event_id, 'task', input.id, input.type, input.payload, 1, input.created_at, input.traceparent
from input
join task on task.id = input.id
