-- The stored position is not on the partition any more: retention has deleted it, or the topic was made
-- anew, and then this one is lower.
update positions set next_offset = $3 where topic = $1 and partition = $2
