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
    returning key
), made as materialized (
    select insert_task($1::uuid, $2::text, $3::text, $4::text, $5::int2, ($6::text)::timestamptz, $7::text[],
                       ($8::text)::timestamptz, $9::uuid, $10::text, $11::text,
                       case when set_config('task_api.tracestate', coalesce($16::text, ''), true) is not null
                            then $12::text end)
    from claim
)
select (select count(*) > 0 from made) as made,
       first.fingerprint, first.task_id::text, first.response
from (values (1)) as always_one
left join idempotency_keys as first
    on first.key = $13::text and first.created_at >= ($8::text)::timestamptz - interval '24 hours'
