-- The sources that records of this outbox have had. `verify` knows its own records by them, also
-- those from before the setting changed. The first is what sidecars without the setting write.
alter table outbox_topic add column sources text[] not null default array['/api/tasks'];

-- W3C tracestate, which goes with traceparent. It comes as a setting of the transaction and not as
-- a parameter of the functions. So a component that sends it can use the schema before this
-- migration, and one that does not can use this one.
alter table outbox
    add column tracestate text default nullif(current_setting('task_api.tracestate', true), '');

-- Many requests may be in one call, so here it comes with each row.
create or replace function insert_tasks(new_tasks json) returns void
    language plpgsql
as $$
begin
    with input as (
        select *
        from json_to_recordset(new_tasks) as input (
            id uuid, title text, description text, status text, rank int2, due_at timestamptz,
            tags text[], created_at timestamptz, event_id uuid, type text, payload text,
            traceparent text, tracestate text
        )
    ), task as (
        insert into tasks (id, title, description, status, priority, due_at, tags, version,
                           created_at, updated_at, last_event_id)
        select id, title, description, status, rank, due_at, tags, 1, created_at, created_at,
               event_id
        from input
        on conflict (id) do nothing
        returning id
    )
    insert into outbox (id, aggregatetype, aggregateid, type, payload, version, time,
                        traceparent, tracestate)
    select input.event_id, 'task', input.id, input.type, input.payload, 1, input.created_at,
           input.traceparent, input.tracestate
    from input
    join task on task.id = input.id;
end;
$$;
