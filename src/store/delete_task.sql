-- Deletes a task, unless a precondition fails; its event carries its last state, and is one version
-- further on than that, so that it comes after every other event of the task.
--
-- $1 task, $2 event, $3 time, $4 traceparent, $5 versions of If-Match, $6 versions of If-None-Match.
with before as (
    select id, version, updated_at, task_document(tasks) as document
    from tasks
    where id = $1::uuid
    for update
), deleted as (
    delete from tasks
    using before
    where tasks.id = before.id
      and ($5::int8[] is null or before.version = any ($5::int8[]))
      and ($6::int8[] is null or before.version <> all ($6::int8[]))
    returning before.id, before.version, before.document,
              greatest(($3::text)::timestamptz, before.updated_at) as time
), event as (
    insert into outbox (id, aggregatetype, aggregateid, type, payload, version, time, traceparent)
    select $2::uuid, 'task', id, 'TASK_DELETED',
           '{"event_type":"TASK_DELETED","data":' || document || '}', version + 1, time, $4::text
    from deleted
    returning payload, version, time
)
select event.payload, event.version,
       to_char(event.time at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as time
from before
left join event on true
