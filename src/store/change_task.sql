-- Changes a task, unless a precondition fails or there is nothing to change; with it, its event (migrations/V12).
--
-- Each field comes as a pair: whether it is to be set, and to what. So PUT, which sets all of them,
-- and PATCH, for which null and absent are different, are one statement.
--
-- $1 task, $2 event, $3 time, $4 traceparent, $5 versions of If-Match, $6 versions of If-None-Match,
-- $19 tracestate (migrations/V14).
select document, version, allowed, payload, time, previous_id::text
from change_task(
    $1::uuid, $2::uuid, ($3::text)::timestamptz,
    case when set_config('task_api.tracestate', coalesce($19::text, ''), true) is not null
         then $4::text end,
    $5::int8[], $6::int8[],
    $7::bool, $8::text, $9::bool, $10::text, $11::bool, $12::text, $13::bool, $14::int2,
    $15::bool, ($16::text)::timestamptz, $17::bool, $18::text[]
) as answer (document, version, allowed, payload, time, previous_id)
