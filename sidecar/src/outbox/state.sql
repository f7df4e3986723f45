-- What waits, for the metrics and the readiness check, from where the oldest row may be, so that asking costs the same
-- however much waits and however much has just been removed.
select (select count(*) from outbox where parked_at is not null) as parked,
       (select id from outbox where id > $1 order by id limit 1) as oldest_id,
       (
           select extract(epoch from now() - time)::float8
           from outbox
           where parked_at is null and id > $1
           order by id
           limit 1
       ) as oldest_age_s
