-- Each number of partitions that the topic's events were placed by, oldest first.
select partitions, begin_offsets from topic_layouts where topic = $1 order by number
