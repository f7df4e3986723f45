-- The outbox is read by its indexes. A plan that was made while it was small is kept while it grows by a million removed
-- rows, and must not read all of them.
set enable_seqscan = off;
set jit = off;
-- Who gives a statement up closes its connection. A session that waits for a lock would not notice, and every attempt to
-- do the same again would leave one more. A server on Windows cannot, and refuses the setting.
do $$
begin
    set client_connection_check_interval = '1s';
exception when others then
    null;
end
$$;
