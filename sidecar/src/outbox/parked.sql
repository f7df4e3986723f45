-- Parked events for the operator, the longest parked first.
select id, type, aggregateid, version, octet_length(payload) as bytes, parked_at, parked_reason,
       (
           select count(*)
           from outbox as later
           where later.aggregateid = outbox.aggregateid and later.version > outbox.version
       ) as waiting
from outbox
where parked_at is not null
order by parked_at, id
limit $1
