-- Changes a task, unless a precondition fails or there is nothing to change; with it, its event.
--
-- Each field comes as a pair: whether it is to be set, and to what. So PUT, which sets all of them,
-- and PATCH, for which null and absent are different, are one statement. The row is locked first, so
-- what is compared, and counted up from, is the latest state.
--
-- $1 task, $2 event, $3 time, $4 traceparent, $5 versions of If-Match, $6 versions of If-None-Match.
with before as (
    select tasks.*, task_document(tasks) as document,
           -- a repeated statement, whose work is done, and is the latest or not
           coalesce(last_event_id = $2::uuid, false) as is_mine,
           $2::uuid = any (earlier_event_ids) as was_mine
    from tasks
    where id = $1::uuid
    for update
), allowed as (
    select *
    from before
    where ($5::int8[] is null or version = any ($5::int8[]))
      and ($6::int8[] is null or version <> all ($6::int8[]))
      and not is_mine
      and not was_mine
), wanted as (
    select id, version,
           (array_remove(array[last_event_id], null) || earlier_event_ids)[:16] as earlier_event_ids,
           greatest(($3::text)::timestamptz, updated_at) as updated_at,
           case when $7::bool then $8::text else title end as title,
           case when $9::bool then $10::text else description end as description,
           case when $11::bool then $12::text else status end as status,
           case when $13::bool then $14::int2 else priority end as priority,
           case when $15::bool then ($16::text)::timestamptz else due_at end as due_at,
           case when $17::bool then $18::text[] else tags end as tags
    from allowed
), changed as (
    update tasks
    set title = wanted.title, description = wanted.description, status = wanted.status,
        priority = wanted.priority, due_at = wanted.due_at, tags = wanted.tags,
        version = wanted.version + 1, updated_at = wanted.updated_at, last_event_id = $2::uuid,
        earlier_event_ids = wanted.earlier_event_ids
    from wanted
    where tasks.id = wanted.id
      and (tasks.title, tasks.description, tasks.status, tasks.priority, tasks.due_at, tasks.tags)
          is distinct from
          (wanted.title, wanted.description, wanted.status, wanted.priority, wanted.due_at, wanted.tags)
    returning tasks.id, tasks.version, tasks.updated_at, task_document(tasks) as document
), event as (
    insert into outbox (id, aggregatetype, aggregateid, type, payload, version, time, traceparent)
    select $2::uuid, 'task', id, 'TASK_UPDATED',
           '{"event_type":"TASK_UPDATED","data":' || document || '}', version, updated_at, $4::text
    from changed
    returning payload, version, time
)
select case when was_mine then mine.document else coalesce(changed.document, before.document) end as document,
       case when was_mine then mine.version else coalesce(changed.version, before.version) end as version,
       is_mine or was_mine or exists (select from allowed) as allowed,
       event.payload,
       to_char(event.time at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as time
from before
left join changed on true
left join event on true
-- what a repeated statement has made, if that is not the latest: as long as the event waits it can be told
left join (
    select version, (payload::json -> 'data')::text as document
    from outbox
    where id = $2::uuid
) as mine on was_mine
