-- Gives events up, and gives them back to be kept by whoever asked for it. The task's next event is its oldest
-- then, and goes.
delete from outbox
where parked_at is not null and id = any ($1)
returning id, version, payload
