-- The last number that a row of the outbox has got, whether or not that row is still there. Rows that
-- are inserted later get higher ones.
select outbox_last_seq()
