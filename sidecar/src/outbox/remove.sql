-- Removes acknowledged rows, and notes with them how far their partitions are known: either both or
-- neither, so that reading back begins before the first record whose row may still be there.
with removed as (
    delete from outbox where id = any ($1)
)
insert into positions (topic, partition, next_offset)
select $2, partition, next_offset
from unnest($3::int[], $4::bigint[]) as acked (partition, next_offset)
on conflict (topic, partition) do update
    set next_offset = greatest(positions.next_offset, excluded.next_offset)
