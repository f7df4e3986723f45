-- What is to be published of one task, from the version that the lane knows to the one that made it look,
-- and nothing from a parked one on.
select id, type, aggregateid, payload, version, time, traceparent, tracestate, previous_id, seq
from outbox
where aggregateid = $1
  and version > $2
  and version <= $3
  and not exists (
      select from outbox as parked
      where parked.aggregateid = $1 and parked.version <= outbox.version and parked.parked_at is not null
  )
order by version
limit $4
