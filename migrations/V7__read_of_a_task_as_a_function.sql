-- The read of one task, as a function for the same reason as the writes in V6: planning it each time cost as much as
-- the rest of it. Lists are not: a plan that is kept would have to do for every filter.
create function read_task(task_id uuid, out document text, out version int8) returns setof record
    language plpgsql stable rows 1
as $$
begin
    return query select task_document(tasks), tasks.version from tasks where tasks.id = task_id;
end;
$$;
