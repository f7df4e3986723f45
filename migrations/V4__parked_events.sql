-- Events that the broker refuses for good, such as one that is larger than the topic takes: they stay here, and
-- with them the later events of their tasks, until somebody has them retried or dropped.
alter table outbox
    add column parked_at     timestamptz,
    add column parked_reason text,
    add constraint outbox_parked_with_reason check ((parked_at is null) = (parked_reason is null));

-- Empty, as a rule: what the sweep looks into for each row.
create index outbox_parked on outbox (aggregateid, version) where parked_at is not null;
