-- What shows whether this session is the publisher's. Not from memory: behind a connection pool each statement may be in another
-- session than the one before it, and after a failover the server may be another one.
select pg_is_in_recovery(),
       pg_backend_pid(),
       nullif(current_setting('outbox.publisher', true), ''),
       exists (
           select from pg_locks
           where locktype = 'advisory' and granted and pid = pg_backend_pid()
             and database = (select oid from pg_database where datname = current_database())
             and (classid::bigint << 32) | objid::bigint = hashtextextended('outbox ' || current_schema(), 0)
             and objsubid = 1
       ),
       (select topic from outbox_topic),
       (select minimum_version from schema_compatibility)
