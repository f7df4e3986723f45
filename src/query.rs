//! What a list is asked for: filters, order, and where the page begins.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::fields::{Errors, Invalid, NO_NUL, TAG_CHARS_MAX, TAGS_MAX, TIME, parse_time};
use crate::task::{Priority, Status};

pub const LIMIT_DEFAULT: u8 = 20;
pub const LIMIT_MAX: u8 = 100;
pub const OFFSET_MAX: u32 = 10_000;
pub const WORDS_CHARS_MAX: usize = 200;
pub const CURSOR_CHARS_MAX: usize = 512;
/// More than any query needs: each parameter once, and as many tags as a task can have.
pub const PARAMETERS_MAX: usize = 32;

#[derive(Clone, Debug, Default)]
pub struct Query {
    pub status: Option<Status>,
    pub priority: Option<Priority>,
    /// All of these, in order, each once.
    pub tags: Vec<String>,
    /// In the form in which times travel.
    pub due_before: Option<String>,
    pub words: Option<String>,
    pub sort: Sort,
    pub after: Option<Cursor>,
    pub limit: u8,
    pub offset: u32,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sort {
    pub key: SortKey,
    pub ascending: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SortKey {
    #[default]
    CreatedAt,
    UpdatedAt,
    DueAt,
    Priority,
}

/// The last task of a page, from which the next one goes on. Opaque to clients: its form may change.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Cursor {
    sort: String,
    pub key: String,
    pub id: Uuid,
}

impl SortKey {
    pub const ALL: [SortKey; 4] = [SortKey::CreatedAt, SortKey::UpdatedAt, SortKey::DueAt, SortKey::Priority];

    pub fn name(self) -> &'static str {
        match self {
            SortKey::CreatedAt => "created_at",
            SortKey::UpdatedAt => "updated_at",
            SortKey::DueAt => "due_at",
            SortKey::Priority => "priority",
        }
    }
}

impl Sort {
    fn parse(text: &str) -> Option<Sort> {
        let (name, ascending) = match text.strip_prefix('-') {
            Some(name) => (name, false),
            None => (text, true),
        };
        SortKey::ALL.into_iter().find(|key| key.name() == name).map(|key| Sort { key, ascending })
    }

    fn name(self) -> String {
        format!("{}{}", if self.ascending { "" } else { "-" }, self.key.name())
    }
}

impl Cursor {
    pub fn new(sort: Sort, key: String, id: Uuid) -> Cursor {
        Cursor { sort: sort.name(), key, id }
    }

    pub fn encode(&self) -> String {
        let json = serde_json::to_vec(self).expect("a cursor has only string keys");
        URL_SAFE_NO_PAD.encode(json)
    }

    /// Nothing if it was not given out. Each part is parsed and written anew, since PostgreSQL
    /// reads it: RFC 3339 has times that PostgreSQL refuses.
    fn decode(text: &str) -> Option<Cursor> {
        if text.len() > CURSOR_CHARS_MAX {
            return None;
        }
        let cursor: Cursor = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let sort = Sort::parse(&cursor.sort)?;
        let key = match (sort.key, cursor.key.as_str()) {
            (SortKey::DueAt, "infinity") | (SortKey::Priority, "0" | "1" | "2") => cursor.key,
            (SortKey::Priority, _) => return None,
            (SortKey::CreatedAt | SortKey::UpdatedAt | SortKey::DueAt, time) => {
                timestamp::to_text(&parse_time(time)?)
            }
        };
        Some(Cursor::new(sort, key, cursor.id))
    }
}

impl Query {
    /// # Errors
    /// Everything that is wrong with the query string: a parameter that is not known, and one that is there
    /// twice, too. Nothing else is looked at if there are more than [`PARAMETERS_MAX`].
    pub fn parse(query: &str) -> Result<Query, Errors> {
        let pairs = || form_urlencoded::parse(query.as_bytes());
        if let Some((name, _)) = pairs().nth(PARAMETERS_MAX) {
            return Err(Invalid::parameter(&name, "length", "a query has at most 32 parameters").into());
        }
        let mut parsed = Query { limit: LIMIT_DEFAULT, ..Query::default() };
        let mut errors = Errors::default();
        let mut seen = BTreeSet::new();
        for (name, value) in pairs() {
            let set = match seen.insert(name.clone()) || name == "tag" {
                true => parsed.set(&name, &value),
                false => Err(("value", "is given more than once")),
            };
            if let Err((code, detail)) = set {
                errors.push(|| Invalid::parameter(&name, code, detail));
            }
        }
        if parsed.after.is_some() && parsed.offset > 0 {
            let detail = "a page begins after a cursor or at an offset, not both";
            errors.push(|| Invalid::parameter("offset", "value", detail));
        }
        if let Some(cursor) = &parsed.after
            && cursor.sort != parsed.sort.name()
        {
            let detail = "the cursor is of a list in another order";
            errors.push(|| Invalid::parameter("cursor", "value", detail));
        }
        if errors.is_empty() { Ok(parsed) } else { Err(errors) }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), (&'static str, &'static str)> {
        const STATUS: &str = "must be one of todo, in_progress, done";
        const PRIORITY: &str = "must be one of low, normal, high";
        const SORT: &str = "must be one of created_at, updated_at, due_at, priority, or one of them after a \
                            minus for descending";
        const CURSOR: &str = "is not a cursor of this API: take it from a Link header";
        match name {
            "status" => self.status = Some(Status::parse(value).ok_or(("value", STATUS))?),
            "priority" => self.priority = Some(Priority::parse(value).ok_or(("value", PRIORITY))?),
            "tag" => {
                let tag = text(value, TAG_CHARS_MAX, "must have 1 to 50 characters")?;
                if let Err(place) = self.tags.binary_search(&tag) {
                    self.tags.insert(place, tag);
                }
                if self.tags.len() > TAGS_MAX {
                    return Err(("length", "may be given for at most 20 tags"));
                }
            }
            "due_before" => {
                let time = parse_time(value).ok_or(("value", TIME))?;
                self.due_before = Some(timestamp::to_text(&time));
            }
            "q" => {
                let words = text(value, WORDS_CHARS_MAX, "must have 1 to 200 characters")?;
                if !words.contains(char::is_alphanumeric) {
                    return Err(("value", "has no word: at least one letter or digit is needed"));
                }
                self.words = Some(words);
            }
            "sort" => self.sort = Sort::parse(value).ok_or(("value", SORT))?,
            "cursor" => self.after = Some(Cursor::decode(value).ok_or(("value", CURSOR))?),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                self.limit = limit.ok_or(("value", "must be a whole number from 1 to 100"))?;
            }
            "offset" => {
                let offset = value.parse().ok().filter(|offset| *offset <= OFFSET_MAX);
                let detail = "must be a whole number from 0 to 10000; use the cursor to go further";
                self.offset = offset.ok_or(("value", detail))?;
            }
            _ => {
                let detail = "unknown parameter; there are status, priority, tag, due_before, q, sort, cursor, \
                              limit and offset";
                return Err(("unknown", detail));
            }
        }
        Ok(())
    }

    /// The query in one form, whatever the order in which its parts came: the name of its answer in
    /// the cache, and, with a cursor, the query string of the next page.
    pub fn canonical(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let mut add = |name, value: Option<&str>| {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        };
        add("status", self.status.map(Status::as_str));
        add("priority", self.priority.map(Priority::as_str));
        self.tags.iter().for_each(|tag| add("tag", Some(tag)));
        add("due_before", self.due_before.as_deref());
        add("q", self.words.as_deref());
        add("cursor", self.after.as_ref().map(Cursor::encode).as_deref());
        let mut query = query.finish();
        let separator = if query.is_empty() { "" } else { "&" };
        let _ = write!(query, "{separator}sort={}&limit={}", self.sort.name(), self.limit);
        if self.offset > 0 {
            let _ = write!(query, "&offset={}", self.offset);
        }
        query
    }

    /// The query string of the page after the one that ends with `last`.
    pub fn next(&self, last: Cursor) -> String {
        Query { after: Some(last), offset: 0, ..self.clone() }.canonical()
    }
}

fn text(value: &str, chars_max: usize, length: &'static str) -> Result<String, (&'static str, &'static str)> {
    if !(1..=chars_max).contains(&value.chars().count()) {
        return Err(("length", length));
    }
    if value.contains('\0') {
        return Err(("value", NO_NUL));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_limits() {
        assert_eq!(Query::parse("").unwrap().limit, 20);
        for good in ["limit=1", "limit=100", "offset=0", "offset=10000"] {
            Query::parse(good).unwrap();
        }
        for bad in
            ["limit=0", "limit=101", "limit=-1", "limit=", "limit=x", "limit=1.0", "limt=1", "offset=10001"]
        {
            assert_eq!(Query::parse(bad).unwrap_err().listed().len(), 1, "{bad}");
        }
    }

    #[test]
    fn the_same_query_has_the_same_name() {
        let one = Query::parse("tag=c&tag=a%20b&status=todo&limit=5&due_before=2026-01-01T01:00:00%2B01:00")
            .unwrap();
        let other = Query::parse(
            "due_before=2026-01-01T00:00:00Z&limit=5&sort=-created_at&tag=a+b&status=todo&tag=c&tag=c",
        )
        .unwrap();
        assert_eq!(one.tags, ["a b", "c"]);
        assert_eq!(one.canonical(), other.canonical());
        assert_eq!(Query::parse(&one.canonical()).unwrap().canonical(), one.canonical());
    }

    #[test]
    fn a_cursor_comes_back_as_it_was_given_out() {
        let query = Query::parse("sort=priority&limit=3&offset=6").unwrap();
        let cursor = Cursor::new(query.sort, "2".to_owned(), Uuid::from_u128(7));
        let next = Query::parse(&query.next(cursor.clone())).unwrap();
        assert_eq!((next.after, next.offset, next.limit, next.sort), (Some(cursor), 0, 3, query.sort));
    }

    #[test]
    fn a_cursor_that_was_not_given_out_is_refused() {
        let id = Uuid::from_u128(7);
        let sort = |text| Sort::parse(text).unwrap();
        for (cursor, query) in [
            (Cursor::new(sort("priority"), "2".into(), id).encode(), "sort=-priority"),
            (Cursor::new(sort("priority"), "'; drop".into(), id).encode(), "sort=priority"),
            (Cursor::new(sort("due_at"), "soon".into(), id).encode(), "sort=due_at"),
            ("!".to_owned(), ""),
            ("x".repeat(513), ""),
        ] {
            let invalid = Query::parse(&format!("cursor={cursor}&{query}")).unwrap_err();
            assert_eq!(invalid.listed().len(), 1, "{cursor}: {invalid:?}");
        }
    }

    #[test]
    fn a_cursor_is_parsed_and_written_anew() {
        for (sort, key, expected) in [
            ("-updated_at", "2026-01-01T20:00:00+20:00", "2026-01-01T00:00:00.000000Z"),
            ("due_at", "2026-01-01T00:00:00.0000019\u{2212}01:00", "2026-01-01T01:00:00.000001Z"),
            ("created_at", "2026-01-01t00:00:00z", "2026-01-01T00:00:00.000000Z"),
        ] {
            let given = Cursor::new(Sort::parse(sort).unwrap(), key.to_owned(), Uuid::from_u128(7));
            let parsed = Cursor::decode(&given.encode()).unwrap();
            assert_eq!((parsed.key.as_str(), parsed.id), (expected, given.id));
        }
    }

    #[test]
    fn only_a_tag_may_be_given_twice() {
        for query in ["status=todo&status=done", "limit=1&limit=1", "q=a&q=b", "x=1&x=1"] {
            let errors = Query::parse(query).unwrap_err();
            let detail = &errors.listed().last().unwrap().detail;
            assert_eq!(detail, "is given more than once", "{query}");
        }
        let tags = |count: usize| (0..count).map(|tag| format!("tag={tag}&")).collect::<String>();
        assert_eq!(Query::parse(&tags(20)).unwrap().tags.len(), 20);
        assert_eq!(Query::parse(&tags(21)).unwrap_err().listed()[0].code, "length");
    }

    #[test]
    fn a_search_needs_a_word() {
        for query in ["q=!!!", "q=%F0%9F%8E%89", "q=+", "q=%C2%AD"] {
            assert_eq!(Query::parse(query).unwrap_err().listed()[0].code, "value", "{query}");
        }
        for query in ["q=c%2B%2B", "q=7", "q=%E6%97%A5", "q=%D9%A3"] {
            assert!(Query::parse(query).is_ok(), "{query}");
        }
    }

    #[test]
    fn a_query_has_at_most_32_parameters() {
        let errors = Query::parse(&"a&".repeat(20_000)).unwrap_err();
        assert_eq!((errors.listed().len(), errors.omitted()), (1, 0), "{errors:?}");
        assert_eq!(Query::parse(&"a&".repeat(32)).unwrap_err().listed().len(), 32);
    }
}
