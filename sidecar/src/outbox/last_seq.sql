-- The last number that a row of the outbox has got. Rows that are inserted later get higher ones.
select case when is_called then last_value else 0 end from outbox_seq
