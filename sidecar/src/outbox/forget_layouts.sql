-- The topic was made anew: what was known of the old one is about records that are gone.
delete from topic_layouts where topic = $1
