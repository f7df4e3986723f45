//! If-Match and If-None-Match: conditions on the version of a task (RFC 9110, sections 8.8.3 and
//! 13.1). The strong entity tag of a task is its version in quotes.

use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName};
use thiserror::Error;

use crate::fields::Invalid;

/// What the two headers of a request ask for.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Conditions {
    if_match: Option<EntityTags>,
    if_none_match: Option<EntityTags>,
}

#[derive(Debug, Eq, PartialEq)]
enum EntityTags {
    /// `*`, which only counts as the whole value.
    Any,
    Listed(Vec<EntityTag>),
}

/// A tag of ours. No other tag can match a task, so others are left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct EntityTag {
    version: i64,
    is_weak: bool,
}

/// Why the conditions do not hold, as far as the request tells.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Unmet {
    #[error("the task has another version by now; read it again")]
    OtherVersion,
    #[error("a weak entity tag never matches If-Match (RFC 9110, section 13.1.1); send it without W/")]
    WeakTag,
    #[error("the task has a version that If-None-Match excludes")]
    Excluded,
}

/// The strong entity tag of a version.
pub fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

impl Conditions {
    /// # Errors
    /// A header that is no list of entity tags. Nobody can tell what it asks for.
    pub fn parse(headers: &HeaderMap) -> Result<Conditions, Invalid> {
        Ok(Conditions {
            if_match: EntityTags::parse(headers, &IF_MATCH, "If-Match")?,
            if_none_match: EntityTags::parse(headers, &IF_NONE_MATCH, "If-None-Match")?,
        })
    }

    pub fn has_if_match(&self) -> bool {
        self.if_match.is_some()
    }

    /// The versions that a write may find, by strong comparison; nothing if any will do. `*` in
    /// If-None-Match excludes every version.
    pub fn one_of(&self) -> Option<Vec<i64>> {
        match (&self.if_match, &self.if_none_match) {
            (_, Some(EntityTags::Any)) => Some(Vec::new()),
            (Some(EntityTags::Listed(tags)), _) => {
                Some(tags.iter().filter(|tag| !tag.is_weak).map(|tag| tag.version).collect())
            }
            (Some(EntityTags::Any) | None, _) => None,
        }
    }

    /// The versions that a write must not find, by weak comparison.
    pub fn none_of(&self) -> Option<Vec<i64>> {
        match &self.if_none_match {
            Some(EntityTags::Listed(tags)) => Some(tags.iter().map(|tag| tag.version).collect()),
            Some(EntityTags::Any) | None => None,
        }
    }

    /// Whether a reader's If-Match lets this version through.
    pub fn wants(&self, version: i64) -> bool {
        match &self.if_match {
            Some(EntityTags::Listed(tags)) => tags.contains(&EntityTag { version, is_weak: false }),
            Some(EntityTags::Any) | None => true,
        }
    }

    /// Whether a reader has this version already, by its If-None-Match.
    pub fn has(&self, version: i64) -> bool {
        match &self.if_none_match {
            Some(EntityTags::Listed(tags)) => tags.iter().any(|tag| tag.version == version),
            Some(EntityTags::Any) => true,
            None => false,
        }
    }

    /// What a request whose conditions do not hold is told.
    pub fn unmet(&self) -> Unmet {
        match &self.if_match {
            Some(EntityTags::Listed(tags)) if tags.iter().any(|tag| tag.is_weak) => Unmet::WeakTag,
            None => Unmet::Excluded,
            Some(_) => Unmet::OtherVersion,
        }
    }
}

impl EntityTags {
    /// Nothing if the header was not sent. A header that was sent twice is one list.
    fn parse(headers: &HeaderMap, name: &HeaderName, shown: &str) -> Result<Option<EntityTags>, Invalid> {
        if !headers.contains_key(name) {
            return Ok(None);
        }
        let values: Vec<_> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
        let value = values.join(&b", "[..]);
        let parsed = match value.trim_ascii() {
            b"*" => Some(EntityTags::Any),
            list => listed(list).map(EntityTags::Listed),
        };
        let detail = "must be * alone, or entity tags in double quotes such as \"2\", separated by commas";
        parsed.map(Some).ok_or_else(|| Invalid::header(shown, "value", detail))
    }
}

/// Nothing if it is not a list of entity tags; elements may be empty (RFC 9110, section 5.6.1.2).
fn listed(list: &[u8]) -> Option<Vec<EntityTag>> {
    let mut tags = Vec::new();
    let mut rest = list;
    loop {
        rest = rest.trim_ascii_start();
        if let Some((tag, after)) = first(rest) {
            tags.extend(tag);
            rest = after.trim_ascii_start();
        }
        rest = match rest.split_first() {
            None => return Some(tags),
            Some((b',', after)) => after,
            Some(_) => return None,
        };
    }
}

/// The entity tag that `text` begins with, if it is one of ours, and what comes after it.
fn first(text: &[u8]) -> Option<(Option<EntityTag>, &[u8])> {
    let weak = text.strip_prefix(b"W/");
    let quoted = weak.unwrap_or(text).strip_prefix(b"\"")?;
    let end = quoted.iter().position(|byte| *byte == b'"')?;
    let (opaque, after) = (&quoted[..end], &quoted[end + 1..]);
    let is_opaque = opaque.iter().all(|byte| matches!(byte, 0x21..=0x7e | 0x80..));
    let tag = version(opaque).map(|version| EntityTag { version, is_weak: weak.is_some() });
    is_opaque.then_some((tag, after))
}

/// Each version has one tag: neither `"+3"` nor `"03"` is one that we gave out.
fn version(opaque: &[u8]) -> Option<i64> {
    let text = str::from_utf8(opaque).ok()?;
    text.parse::<i64>().ok().filter(|version| version.to_string() == text)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn parse(name: &HeaderName, values: &[&str]) -> Result<Conditions, Invalid> {
        let values = values.iter().map(|value| (name, HeaderValue::from_str(value).unwrap()));
        Conditions::parse(&values.map(|(name, value)| (name.clone(), value)).collect())
    }

    fn if_match(value: &str) -> Conditions {
        parse(&IF_MATCH, &[value]).unwrap()
    }

    fn if_none_match(value: &str) -> Conditions {
        parse(&IF_NONE_MATCH, &[value]).unwrap()
    }

    #[test]
    fn a_list_is_the_versions_of_our_tags() {
        assert_eq!(parse(&IF_MATCH, &[]).unwrap(), Conditions::default());
        let listed = r#""3", W/"4", "x",, "5" ,"#;
        assert_eq!(if_match(listed).one_of(), Some(vec![3, 5]));
        assert_eq!(if_none_match(listed).none_of(), Some(vec![3, 4, 5]));
        assert_eq!(parse(&IF_MATCH, &[r#""1""#, r#""2""#]).unwrap().one_of(), Some(vec![1, 2]));
        assert_eq!(if_match(r#""+3", "03", """#).one_of(), Some(vec![]));
        assert!(if_match("\"x\"").has_if_match() && !if_none_match("\"x\"").has_if_match());
    }

    #[test]
    fn commas_and_stars_in_quotes_are_part_of_a_tag() {
        assert_eq!(if_match(r#""a,*,b""#).one_of(), Some(vec![]));
        assert_eq!(if_match(r#""*""#).one_of(), Some(vec![]));
        assert!(!if_none_match("\"x,*,y\"").has(3));
    }

    #[test]
    fn a_star_is_every_version() {
        assert_eq!(if_match(" * ").one_of(), None);
        assert_eq!((if_none_match("*").one_of(), if_none_match("*").none_of()), (Some(vec![]), None));
        assert!(if_match("*").wants(3) && if_none_match("*").has(3));
    }

    #[test]
    fn a_header_that_is_no_list_of_tags_is_refused_by_name() {
        for (name, shown) in [(IF_MATCH, "If-Match"), (IF_NONE_MATCH, "If-None-Match")] {
            for list in [
                "3",
                "\"3",
                "w/\"3\"",
                "W/3",
                "\"3\" \"4\"",
                "\"a b\"",
                "\"3\"x",
                "*, *",
                "\"1\", *",
                "*,",
                r#""x,"7","8,""#,
            ] {
                let refused = parse(&name, &[list]).unwrap_err();
                assert_eq!(refused.place, crate::fields::Place::Header(shown.to_owned()), "{list}");
            }
            assert!(parse(&name, &["*", "\"1\""]).is_err());
        }
    }

    #[test]
    fn readers_have_and_want_the_versions_they_name() {
        for (value, wants, has) in [("\"3\"", true, true), ("W/\"3\"", false, true), ("\"99\"", false, false)]
        {
            assert_eq!((if_match(value).wants(3), if_none_match(value).has(3)), (wants, has), "{value}");
        }
        assert!(Conditions::default().wants(3) && !Conditions::default().has(3));
    }

    #[test]
    fn a_failed_condition_is_explained() {
        assert_eq!(if_match("\"2\"").unmet(), Unmet::OtherVersion);
        assert_eq!(if_match("W/\"2\"").unmet(), Unmet::WeakTag);
        assert_eq!(if_none_match("\"2\"").unmet(), Unmet::Excluded);
    }
}
