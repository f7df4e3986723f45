-- The publisher's lock of this outbox, and that of the topic, by which earlier versions know each other: during an upgrade one
-- of them may still publish. Whoever gets one of them only gives it back with the session.
select pg_try_advisory_lock(hashtextextended('outbox ' || current_schema(), 0))
   and pg_try_advisory_lock(hashtextextended(current_schema() || ' ' || $1, 0))
