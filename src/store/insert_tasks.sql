-- Many tasks and their events, all or none, from rows of JSON in the order of the request (migrations/V6).
select insert_tasks(($1::text)::json)
