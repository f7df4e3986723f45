-- Lists find the words that people see, and the order of creation is that of created_at; a batch
-- can have an Idempotency-Key.

-- The words of a text, in lower case. Between words is white space (a zero-width one too),
-- punctuation, a symbol with its variation selector, or a control character. The parser of
-- PostgreSQL's text search knows other ones: to it "invoice-2024", an address or a file's path is
-- one word, and 2024 after a hyphen a negative number. Lists are searched with the same function.
-- The collation is named, so that the same characters separate words, and fold, whatever the
-- database's locale is; it is there from PostgreSQL 17 on, in a database whose encoding is UTF8.
create function words_in(text) returns text
    language sql immutable strict parallel safe
    return lower(regexp_replace($1 collate pg_c_utf8, '[[:space:]\u200b[:punct:]\ufe0e\ufe0f[:cntrl:]]+', ' ', 'g'));

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
