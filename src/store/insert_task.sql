-- The task and its event, both or neither; safe to repeat (migrations/V6). Times travel as text, because Spin cannot
-- bind timestamptz. $13 is the tracestate, which the row of the outbox takes as its default (migrations/V14).
select insert_task($1::uuid, $2::text, $3::text, $4::text, $5::int2, ($6::text)::timestamptz, $7::text[],
                   ($8::text)::timestamptz, $9::uuid, $10::text, $11::text,
                   case when set_config('task_api.tracestate', coalesce($13::text, ''), true) is not null
                        then $12::text end)
