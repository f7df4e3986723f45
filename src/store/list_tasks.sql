-- One page of a list. {key} is what it is ordered by, {key_text} the same as text, {type} its type,
-- {direction} asc or desc, {after} the comparison that goes with it; all from a fixed set, never from
-- a request.
--
-- The whole page is one value: Spin hands rows over one at a time, which costs more than the query.
-- One row more than asked for tells whether there is a next page.
--
-- $1 status, $2 priority, $3 tags, all of them, $4 due before, $5 words, $6 and $7 key and id of the last task seen,
-- $8 limit, $9 offset.
with page as (
    select row_number() over () as place, ordered.*
    from (
        select id, {key_text} as key, task_document(tasks) as document
        from tasks
        where ($1::text is null or status = $1::text)
          and ($2::int2 is null or priority = $2::int2)
          and ($3::text[] is null or tags @> $3::text[])
          and ($4::text is null or coalesce(due_at, 'infinity') < ($4::text)::timestamptz)
          and ($5::text is null or words @@ words_query($5::text))
          and ($6::text is null or ({key}, id) {after} (($6::text)::{type}, $7::uuid))
        order by {key} {direction}, id {direction}
        limit $8::int8 + 1 offset $9::int8
    ) as ordered
)
select '[' || coalesce(string_agg(document, ',' order by place) filter (where place <= $8::int8), '') || ']'
           as list,
       max(key) filter (where place = $8::int8 and has_next) as last_key,
       max(id::text) filter (where place = $8::int8 and has_next) as last_id
from page, (select count(*) > $8::int8 as has_next from page) as counted
