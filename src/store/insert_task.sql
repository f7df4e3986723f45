-- The task and its event, both or neither. Every value comes from the caller, so nothing has to be
-- read back. Times travel as text, because Spin cannot bind timestamptz.
--
-- A statement that is repeated because its answer was lost finds its own row and does nothing.
with task as (
    insert into tasks (id, title, description, status, priority, due_at, tags, version, created_at, updated_at,
                       last_event_id)
    values ($1::uuid, $2::text, $3::text, $4::text, $5::int2, ($6::text)::timestamptz, $7::text[], 1,
            ($8::text)::timestamptz, ($8::text)::timestamptz, $9::uuid)
    on conflict (id) do nothing
    returning id
)
insert into outbox (id, aggregatetype, aggregateid, type, payload, version, time, traceparent)
select $9::uuid, 'task', task.id, $10::text, $11::text, 1, ($8::text)::timestamptz, $12::text
from task
