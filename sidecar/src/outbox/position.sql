-- Where reading a partition back begins. For a partition that is new to this database it begins at its
-- present end: nothing of ours can stand before that.
with first as (
    insert into positions (topic, partition, next_offset)
    values ($1, $2, $3)
    on conflict (topic, partition) do nothing
    returning next_offset
)
select next_offset from first
union all
select next_offset from positions where topic = $1 and partition = $2
limit 1
