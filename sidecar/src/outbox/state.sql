-- What waits, for the metrics and the readiness check. Counted up to a limit, so that asking costs the same
-- however much waits.
select (select count(*) from (select from outbox limit $1) as counted) as events,
       (select count(*) from outbox where parked_at is not null) as parked,
       (
           select extract(epoch from now() - time)::float8
           from outbox
           where parked_at is null
           order by id
           limit 1
       ) as oldest_age_s
