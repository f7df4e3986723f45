-- The component's writes, as functions: PostgreSQL keeps the plans of what is in them for as long as a session lives,
-- while the text that a Spin guest sends is parsed and planned anew each time. One statement in src/store calls each,
-- so that a task and its event are still committed together or not at all.

-- A task as the API shows it, field for field as before, but as an expression that the planner puts in the place of
-- the call.
create or replace function task_document(task tasks) returns text
    language sql stable
    return '{"id":"' || task.id
        || '","title":' || to_json(task.title)
        || ',"description":' || coalesce(to_json(task.description)::text, 'null')
        || ',"status":"' || task.status
        || '","priority":"' || (array['low', 'normal', 'high'])[task.priority + 1]
        || '","due_at":'
        || coalesce('"' || to_char(task.due_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '"', 'null')
        || ',"tags":' || array_to_json(task.tags)
        || ',"version":' || task.version
        || ',"created_at":"' || to_char(task.created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        || '","updated_at":"' || to_char(task.updated_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        || '"}';

-- Every value comes from the caller, so nothing has to be read back. A call that is repeated because its answer was
-- lost finds its own row and does nothing.
create function insert_task(
    new_id uuid, new_title text, new_description text, new_status text, new_priority int2, new_due_at timestamptz,
    new_tags text[], now_at timestamptz, event_id uuid, event_type text, event_payload text, event_traceparent text
) returns void
    language plpgsql
as $$
begin
    insert into tasks (id, title, description, status, priority, due_at, tags, version, created_at, updated_at,
                       last_event_id)
    values (new_id, new_title, new_description, new_status, new_priority, new_due_at, new_tags, 1, now_at, now_at,
            event_id)
    on conflict (id) do nothing;
    if found then
        insert into outbox (id, aggregatetype, aggregateid, type, payload, version, time, traceparent)
        values (event_id, 'task', new_id, event_type, event_payload, 1, now_at, event_traceparent);
    end if;
end;
$$;

-- Many tasks and their events, all or none, from rows of JSON; likewise.
create function insert_tasks(new_tasks json) returns void
    language plpgsql
as $$
begin
    with input as (
        select *
        from json_to_recordset(new_tasks) as input (
            id uuid, title text, description text, status text, rank int2, due_at timestamptz, tags text[],
            created_at timestamptz, event_id uuid, type text, payload text, traceparent text
        )
    ), task as (
        insert into tasks (id, title, description, status, priority, due_at, tags, version, created_at, updated_at,
                           last_event_id)
        select id, title, description, status, rank, due_at, tags, 1, created_at, created_at, event_id
        from input
        on conflict (id) do nothing
        returning id
    )
    insert into outbox (id, aggregatetype, aggregateid, type, payload, version, time, traceparent)
    select input.event_id, 'task', input.id, input.type, input.payload, 1, input.created_at, input.traceparent
    from input
    join task on task.id = input.id;
end;
$$;

-- Each field comes as a pair: whether it is to be set, and to what. The row is locked first, so what is compared, and
-- counted up from, is the latest state.
create function change_task(
    task_id uuid, event_id uuid, now_at timestamptz, event_traceparent text, one_of int8[], none_of int8[],
    sets_title bool, new_title text, sets_description bool, new_description text, sets_status bool, new_status text,
    sets_priority bool, new_priority int2, sets_due_at bool, new_due_at timestamptz, sets_tags bool, new_tags text[],
    out answer_document text, out answer_version int8, out answer_allowed bool, out answer_payload text,
    out answer_time text
) returns setof record
    language plpgsql
as $$
declare
    before tasks;
    task tasks;
begin
    select * into before from tasks where id = task_id for update;
    if not found then
        return;
    end if;

    -- A repeated call whose work is done, and others have changed the task since. As long as its event waits in the
    -- outbox it can be told what it made.
    if event_id = any (before.earlier_event_ids) then
        answer_allowed := true;
        select version, (payload::json -> 'data')::text
        into answer_version, answer_document
        from outbox
        where id = event_id;
        return next;
        return;
    end if;

    task := before;
    if before.last_event_id = event_id then -- the same, and nobody has
        answer_allowed := true;
    else
        answer_allowed := (one_of is null or before.version = any (one_of))
            and (none_of is null or before.version <> all (none_of));
        if answer_allowed then
            if sets_title then task.title := new_title; end if;
            if sets_description then task.description := new_description; end if;
            if sets_status then task.status := new_status; end if;
            if sets_priority then task.priority := new_priority; end if;
            if sets_due_at then task.due_at := new_due_at; end if;
            if sets_tags then task.tags := new_tags; end if;
        end if;
    end if;

    if (task.title, task.description, task.status, task.priority, task.due_at, task.tags)
        is distinct from
        (before.title, before.description, before.status, before.priority, before.due_at, before.tags)
    then
        update tasks
        set title = task.title, description = task.description, status = task.status, priority = task.priority,
            due_at = task.due_at, tags = task.tags, version = before.version + 1,
            updated_at = greatest(now_at, before.updated_at), last_event_id = event_id,
            earlier_event_ids = (array_remove(array[before.last_event_id], null) || before.earlier_event_ids)[:16]
        where id = task_id
        returning * into task;
        answer_payload := '{"event_type":"TASK_UPDATED","data":' || task_document(task) || '}';
        answer_time := to_char(task.updated_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
        insert into outbox (id, aggregatetype, aggregateid, type, payload, version, time, traceparent)
        values (event_id, 'task', task_id, 'TASK_UPDATED', answer_payload, task.version, task.updated_at,
                event_traceparent);
    end if;
    answer_document := task_document(task);
    answer_version := task.version;
    return next;
end;
$$;

-- A task's last event carries its last state, and is one version further on than that, so that it comes after every
-- other event of the task.
create function delete_task(
    task_id uuid, event_id uuid, now_at timestamptz, event_traceparent text, one_of int8[], none_of int8[],
    out answer_payload text, out answer_version int8, out answer_time text
) returns setof record
    language plpgsql
as $$
declare
    task tasks;
    deleted_at timestamptz;
begin
    select * into task from tasks where id = task_id for update;
    if not found then
        return;
    end if;
    if (one_of is null or task.version = any (one_of)) and (none_of is null or task.version <> all (none_of)) then
        delete from tasks where id = task_id;
        deleted_at := greatest(now_at, task.updated_at);
        answer_version := task.version + 1;
        answer_payload := '{"event_type":"TASK_DELETED","data":' || task_document(task) || '}';
        answer_time := to_char(deleted_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
        insert into outbox (id, aggregatetype, aggregateid, type, payload, version, time, traceparent)
        values (event_id, 'task', task_id, 'TASK_DELETED', answer_payload, answer_version, deleted_at,
                event_traceparent);
    end if;
    return next;
end;
$$;
