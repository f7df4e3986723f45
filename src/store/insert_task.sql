-- The task and its event, both or neither; safe to repeat (migrations/V6). Times travel as text, because Spin cannot
-- bind timestamptz.
select insert_task($1::uuid, $2::text, $3::text, $4::text, $5::int2, ($6::text)::timestamptz, $7::text[],
                   ($8::text)::timestamptz, $9::uuid, $10::text, $11::text, $12::text)
