-- Deletes a task, unless a precondition fails; with it, its last event (migrations/V12).
--
-- $1 task, $2 event, $3 time, $4 traceparent, $5 versions of If-Match, $6 versions of If-None-Match,
-- $7 tracestate (migrations/V14).
select payload, version, time, previous_id::text
from delete_task(
    $1::uuid, $2::uuid, ($3::text)::timestamptz,
    case when set_config('task_api.tracestate', coalesce($7::text, ''), true) is not null
         then $4::text end,
    $5::int8[], $6::int8[]
) as answer (payload, version, time, previous_id)
