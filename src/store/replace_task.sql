-- As change_task.sql, for a PUT whose body has fields that only the API sets, as a GET shows them:
-- it is refused unless they fit the task.
--
-- The row that they are compared with is not locked. So the change is bound to the version that was
-- compared: if others change the task meanwhile, change_task refuses. Without a version it refuses
-- any task, unless it finds its own event there: then this is a repetition of what was allowed.
--
-- $1 to $18 as in change_task.sql; $19 version, $20 created_at, $21 updated_at, each null if the body
-- does not have it; $22 tracestate.
with before as (
    select version,
           ($5::int8[] is null or version = any ($5::int8[]))
               and ($6::int8[] is null or version <> all ($6::int8[])) as preconditions_hold,
           $19::int8 is null or version = $19::int8 as version_fits,
           $20::text is null or created_at = ($20::text)::timestamptz as created_at_fits,
           $21::text is null or updated_at = ($21::text)::timestamptz as updated_at_fits
    from tasks
    where id = $1::uuid
)
select answer.document, answer.version, answer.allowed, answer.payload, answer.time,
       answer.previous_id::text,
       before.preconditions_hold, before.version_fits, before.created_at_fits, before.updated_at_fits
from before,
     change_task(
         $1::uuid, $2::uuid, ($3::text)::timestamptz,
         case when set_config('task_api.tracestate', coalesce($22::text, ''), true) is not null
              then $4::text end,
         case
             when preconditions_hold and version_fits and created_at_fits and updated_at_fits
                 then array[before.version]
             else '{}'
         end,
         null,
         $7::bool, $8::text, $9::bool, $10::text, $11::bool, $12::text, $13::bool, $14::int2,
         $15::bool, ($16::text)::timestamptz, $17::bool, $18::text[]
     ) as answer (document, version, allowed, payload, time, previous_id)
