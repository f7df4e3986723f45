-- Removes acknowledged rows, and notes with them how far their partitions are known: either both or
-- neither, so that reading back begins before the first record whose row may still be there.
--
-- A lower position replaces a higher one. It only costs reading, while a position of a topic that was
-- made anew meanwhile would hide the first records of the new one.
with removed as (
    delete from outbox where id = any ($1)
)
insert into positions (topic, partition, next_offset)
select $2, partition, next_offset
from unnest($3::int[], $4::bigint[]) as acked (partition, next_offset)
on conflict (topic, partition) do update set next_offset = excluded.next_offset
