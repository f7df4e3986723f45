-- Events that the broker refuses for good, such as one that is larger than the topic takes: they stay here, and
-- with them the later events of their tasks, until somebody has them retried or dropped.
alter table outbox
    add column parked_at     timestamptz,
    add column parked_reason text,
    add constraint outbox_parked_with_reason check ((parked_at is null) = (parked_reason is null));

-- Empty, as a rule: what the sweep looks into for each row.
create index outbox_parked on outbox (aggregateid, version) where parked_at is not null;

-- Rows live for milliseconds here, and what they leave behind stands in the way of the sweep until a vacuum: so
-- one after so many rows, however large the table is, at full speed, and with the indexes each time. It does not
-- truncate, which would lock out writers to give back what is needed again a moment later.
alter table outbox set (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 100000,
    vacuum_index_cleanup = on,
    vacuum_truncate = off
);
