-- Where reading back begins, of each partition that there is something of.
select partition, next_offset from positions where topic = $1
