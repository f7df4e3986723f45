-- A change that is repeated because its answer was lost recognises its own work also when others have changed the
-- task since. So many others as this remembers do not come between a statement and its repetition.
alter table tasks
    add column earlier_event_ids uuid[] not null default '{}' check (cardinality(earlier_event_ids) <= 16);
