-- A search finds words by their beginning, without regard to accents, and inside runs of Chinese
-- and Japanese, which have no spaces.

-- The text without accents: "naïve" is "naive". NFKD takes combining marks off their letters, and
-- NFKC joins what is left, so that Hangul stays whole. Compatibility forms, such as full-width
-- letters, become the ordinary ones.
create function without_accents(text) returns text
    language sql immutable strict parallel safe
    return normalize(regexp_replace(normalize($1, nfkd), '[\u0300-\u036f]+', '', 'g'), nfkc);

-- The same with spaces around each character of Han, Hiragana and Katakana: each is a word.
create function words_apart(text) returns text
    language sql immutable strict parallel safe
    return regexp_replace(
        $1,
        '([\u3005-\u3007\u3041-\u3096\u3099-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff'
        '\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd])',
        ' \1 ', 'g'
    );

-- What a search looks for: every word of $1, in any order. A word matches those that begin with it.
-- A run of Chinese or Japanese matches where its characters follow each other. The parser of
-- to_tsvector splits some words once more; to_tsquery makes a phrase of such parts.
create function words_query(text) returns tsquery
    language sql immutable strict parallel safe
    return (
        select to_tsquery('simple', coalesce(string_agg(phrase, ' & '), ''))
        from (
            select '(' || string_agg(quote_literal(token) || ':*', ' <-> ' order by place) || ')' as phrase
            from unnest(string_to_array(words_in(without_accents($1)), ' ')) with ordinality as words (word, nth),
                 unnest(string_to_array(words_apart(word), ' ')) with ordinality as tokens (token, place)
            where token <> ''
            group by nth
        ) as phrases
    );

-- Writes the table anew, and locks it for as long.
alter table tasks drop column words;
alter table tasks
    add column words tsvector generated always as (
        to_tsvector('simple', words_in(words_apart(without_accents(title || ' ' || coalesce(description, '')))))
    ) stored;
create index tasks_words on tasks using gin (words);
