-- The task and its event, both or neither. Every value comes from the caller, so nothing has to be
-- read back. Times travel as text, because Spin cannot bind timestamptz.
--
-- A statement that is repeated because its answer was lost finds its own row and does nothing.
with task as (
    insert into tasks (id, title, description, status, version, created_at, updated_at)
    values ($1::uuid, $2::text, $3::text, $4::text, 1, ($5::text)::timestamptz, ($5::text)::timestamptz)
    on conflict (id) do nothing
    returning id
)
insert into outbox (id, aggregatetype, aggregateid, type, payload, version, time, traceparent)
select $6::uuid, 'task', task.id, $7::text, $8::text, 1, ($5::text)::timestamptz, $9::text
from task
