-- As insert_tasks.sql, for a request with an Idempotency-Key; insert_task_once.sql says how.
--
-- $1 tasks and events, $2 key, $3 fingerprint, $4 response, $5 time.
with claim as (
    insert into idempotency_keys (key, fingerprint, response, created_at)
    values ($2::text, $3::text, $4::text, ($5::text)::timestamptz)
    on conflict (key) do update
        set fingerprint = excluded.fingerprint, task_id = excluded.task_id,
            response = excluded.response, created_at = excluded.created_at
        where idempotency_keys.created_at < excluded.created_at - interval '24 hours'
    returning key
), made as materialized (
    select insert_tasks(($1::text)::json) from claim
)
select (select count(*) > 0 from made) as made,
       first.fingerprint, first.task_id::text, first.response
from (values (1)) as always_one
left join idempotency_keys as first
    on first.key = $2::text and first.created_at >= ($5::text)::timestamptz - interval '24 hours'
