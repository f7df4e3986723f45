-- As insert_task.sql, for a request with an Idempotency-Key: the first statement with a key takes it
-- and makes the task, in one.
--
-- A later one finds the key taken and gets what was answered first. One that comes while the first is
-- not committed waits for it, but its snapshot is older than what it waited for: it has taken nothing
-- and sees nothing, which is how it knows. A key that is past its time is taken as if it were new.
with claim as (
    insert into idempotency_keys (key, fingerprint, task_id, response, created_at)
    values ($13::text, $14::text, $1::uuid, $15::text, ($8::text)::timestamptz)
    on conflict (key) do update
        set fingerprint = excluded.fingerprint, task_id = excluded.task_id,
            response = excluded.response, created_at = excluded.created_at
        where idempotency_keys.created_at < excluded.created_at - interval '24 hours'
    returning task_id
), task as (
    insert into tasks (id, title, description, status, priority, due_at, tags, version, created_at, updated_at,
                       last_event_id)
    select $1::uuid, $2::text, $3::text, $4::text, $5::int2, ($6::text)::timestamptz, $7::text[], 1,
           ($8::text)::timestamptz, ($8::text)::timestamptz, $9::uuid
    from claim
    returning id
), event as (
    insert into outbox (id, aggregatetype, aggregateid, type, payload, version, time, traceparent)
    select $9::uuid, 'task', task.id, $10::text, $11::text, 1, ($8::text)::timestamptz, $12::text
    from task
    returning id
)
select exists (select from event) as made,
       first.fingerprint, first.task_id::text, first.response
from (values (1)) as always_one
left join idempotency_keys as first
    on first.key = $13::text and first.created_at >= ($8::text)::timestamptz - interval '24 hours'
