-- What is not on the topic yet of one task's changes, and whether the task is there. Oldest first.
select exists (select from tasks where id = $1::uuid) as found,
       coalesce(
           (
               select '[' || string_agg(row_to_json(event)::text, ',' order by version) || ']'
               from (
                   select id, type as event_type, version,
                          to_char(time at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as time
                   from outbox
                   where aggregateid = $1::uuid
                   order by version
                   limit 100
               ) as event
           ),
           '[]'
       ) as events
