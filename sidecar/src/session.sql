-- The outbox is read by its indexes. A plan that was made while it was small is kept while it grows by a million removed
-- rows, and must not read all of them.
set enable_seqscan = off;
set jit = off;
