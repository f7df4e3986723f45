-- The whole answer as one value: Spin hands rows over one at a time, which costs more than the query.
-- Ids are UUIDv7, so the newest task has the greatest id.
select '[' || coalesce(string_agg(document, ',' order by id desc), '') || ']'
from (
    select id, task_document(tasks) as document
    from tasks
    order by id desc
    limit $1::int8
) as newest
