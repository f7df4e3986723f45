-- The sweep finds them again; all of them, if no ids are given.
update outbox
set parked_at = null, parked_reason = null
where parked_at is not null and ($1::uuid[] is null or id = any ($1))
returning id
