-- The next rows in the order of their ids, which are UUIDv7 and so roughly the order of the changes.
-- Only roughly: whether a row is its task's oldest decides if it may go without a further look.
-- Neither what is parked nor what waits behind it: as a rule nothing is, and the first look at that is at a list that
-- is made once for the page.
select id, type, aggregateid, payload, version, time, traceparent, tracestate, previous_id, seq,
       version = 1 or not exists (
           select from outbox as older
           where older.aggregateid = outbox.aggregateid and older.version < outbox.version
       ) as oldest
from outbox
where id > $1
  and (
      aggregateid not in (select aggregateid from outbox where parked_at is not null)
      or not exists (
          select from outbox as parked
          where parked.aggregateid = outbox.aggregateid
            and parked.version <= outbox.version
            and parked.parked_at is not null
      )
  )
order by id
limit $2
