-- What is not published of one task, from the version that the lane knows to the one that made it look.
select id, type, aggregateid, payload, version, time, traceparent
from outbox
where aggregateid = $1 and version > $2 and version <= $3
order by version
limit $4
