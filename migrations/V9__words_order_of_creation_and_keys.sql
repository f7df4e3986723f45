-- Lists find the words that people see, and the order of creation is that of created_at; a batch
-- can have an Idempotency-Key.

-- The words of a text, in lower case. Between words is white space (a zero-width one too),
-- punctuation, a symbol with its variation selector, or a control character. The parser of
-- PostgreSQL's text search knows other ones: to it "invoice-2024", an address or a file's path is
-- one word, and 2024 after a hyphen a negative number. Lists are searched with the same function.
-- The collation is named, so that the same characters separate words, and fold, whatever the
-- database's locale is. PostgreSQL 17 has pg_c_utf8; an older one has that of the operating system,
-- or ICU's. The database's encoding is UTF8.
do $do$
declare
    chosen text;
begin
    select quote_ident(collname) into strict chosen
    from pg_collation
    where collnamespace = 'pg_catalog'::regnamespace
      and collname in ('pg_c_utf8', 'C.utf8', 'C.UTF-8', 'und-x-icu')
      and collencoding in (-1, pg_char_to_encoding('UTF8'))
    order by array_position(array['pg_c_utf8', 'C.utf8', 'C.UTF-8', 'und-x-icu'], collname::text)
    limit 1;
    execute format(
        $sql$
        create function words_in(text) returns text
            language sql immutable strict parallel safe
            return lower(regexp_replace(
                $1 collate %s, '[[:space:]\u200b[:punct:]\ufe0e\ufe0f[:cntrl:]]+', ' ', 'g'
            ));
        $sql$, chosen);
exception when no_data_found then
    raise exception 'there is no UTF-8 collation: none of pg_c_utf8, C.utf8, C.UTF-8, und-x-icu'
        using hint = 'Create one: create collation pg_catalog."C.utf8" (locale = ''C.utf8'')';
end;
$do$;

-- Writes the table anew, and locks it for as long.
alter table tasks drop column words;
alter table tasks
    add column words tsvector generated always as
        (to_tsvector('simple', words_in(title || ' ' || coalesce(description, '')))) stored;
create index tasks_words on tasks using gin (words);

-- Ids are made by many clocks, and within a millisecond in any order: they only break ties.
create index tasks_created_at on tasks (created_at, id);
drop index tasks_status;
create index tasks_status on tasks (status, created_at, id);

-- A key belongs to the path and to the bearer token that it was sent with, so its name here is made
-- of the three; see src/api/create.rs. A batch has no one task.
alter table idempotency_keys alter column task_id drop not null;
