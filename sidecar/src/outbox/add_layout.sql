-- Events are placed by this number of partitions from these offsets on.
insert into topic_layouts (topic, number, partitions, begin_offsets) values ($1, $2, $3, $4)
