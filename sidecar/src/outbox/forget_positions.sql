-- The topic was made anew with fewer partitions: these are no more.
delete from positions where topic = $1 and partition >= $2
