-- The broker has refused the event for good. Its row stays, out of the sweep's way, until somebody decides.
update outbox
set parked_at = now(), parked_reason = $2
where id = $1
