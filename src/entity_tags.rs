//! If-Match and If-None-Match: lists of entity tags (RFC 9110, sections 8.8.3 and 13.1), read as
//! the versions that ours stand for.

use http::{HeaderMap, HeaderName};

/// What one of the two headers asks for.
#[derive(Debug, Eq, PartialEq)]
pub enum EntityTags {
    /// `*`, which only counts as the whole value.
    Any,
    /// The versions of those tags that are ours; no other tag can match a task.
    Versions(Vec<i64>),
    /// Not a list of entity tags, so that nobody can tell what it asks for.
    Malformed,
}

/// How tags are compared (RFC 9110, section 8.8.3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Comparison {
    Strong,
    Weak,
}

/// The strong entity tag of a version.
pub fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

impl EntityTags {
    /// Nothing if the header was not sent. A header that was sent twice is one list.
    pub fn parse(headers: &HeaderMap, name: &HeaderName, comparison: Comparison) -> Option<EntityTags> {
        if !headers.contains_key(name) {
            return None;
        }
        let values: Vec<_> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
        let value = values.join(&b", "[..]);
        Some(match value.trim_ascii() {
            b"*" => EntityTags::Any,
            list => versions(list, comparison).map_or(EntityTags::Malformed, EntityTags::Versions),
        })
    }

    pub fn has(&self, version: i64) -> bool {
        match self {
            EntityTags::Any => true,
            EntityTags::Versions(versions) => versions.contains(&version),
            EntityTags::Malformed => false,
        }
    }
}

/// Nothing if it is not a list of entity tags; elements may be empty (RFC 9110, section 5.6.1.2).
fn versions(list: &[u8], comparison: Comparison) -> Option<Vec<i64>> {
    let mut versions = Vec::new();
    let mut rest = list;
    loop {
        rest = rest.trim_ascii_start();
        if let Some((tag, after)) = first(rest) {
            if comparison == Comparison::Weak || !tag.is_weak {
                versions.extend(tag.version());
            }
            rest = after.trim_ascii_start();
        }
        rest = match rest.split_first() {
            None => return Some(versions),
            Some((b',', after)) => after,
            Some(_) => return None,
        };
    }
}

struct EntityTag<'a> {
    is_weak: bool,
    opaque: &'a [u8],
}

impl EntityTag<'_> {
    /// Each version has one tag: neither `"+3"` nor `"03"` is one that we gave out.
    fn version(&self) -> Option<i64> {
        let text = str::from_utf8(self.opaque).ok()?;
        text.parse::<i64>().ok().filter(|version| version.to_string() == text)
    }
}

/// The entity tag that `text` begins with, and what comes after it.
fn first(text: &[u8]) -> Option<(EntityTag<'_>, &[u8])> {
    let strong = text.strip_prefix(b"W/");
    let quoted = strong.unwrap_or(text).strip_prefix(b"\"")?;
    let end = quoted.iter().position(|byte| *byte == b'"')?;
    let (opaque, after) = (&quoted[..end], &quoted[end + 1..]);
    let is_opaque = opaque.iter().all(|byte| matches!(byte, 0x21..=0x7e | 0x80..));
    is_opaque.then_some((EntityTag { is_weak: strong.is_some(), opaque }, after))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::IF_MATCH;

    use super::*;

    fn parse(values: &[&str], comparison: Comparison) -> Option<EntityTags> {
        let values = values.iter().map(|value| (IF_MATCH, HeaderValue::from_str(value).unwrap()));
        EntityTags::parse(&values.collect(), &IF_MATCH, comparison)
    }

    fn strong(value: &str) -> EntityTags {
        parse(&[value], Comparison::Strong).unwrap()
    }

    #[test]
    fn a_list_is_the_versions_of_our_tags() {
        assert_eq!(parse(&[], Comparison::Strong), None);
        let listed = r#""3", W/"4", "x",, "5" ,"#;
        assert_eq!(strong(listed), EntityTags::Versions(vec![3, 5]));
        assert_eq!(parse(&[listed], Comparison::Weak), Some(EntityTags::Versions(vec![3, 4, 5])));
        assert_eq!(parse(&[r#""1""#, r#""2""#], Comparison::Strong), Some(EntityTags::Versions(vec![1, 2])));
        assert_eq!(strong(r#""+3", "03", """#), EntityTags::Versions(vec![]));
    }

    #[test]
    fn commas_and_stars_in_quotes_are_part_of_a_tag() {
        assert_eq!(strong(r#""a,*,b""#), EntityTags::Versions(vec![]));
        assert_eq!(strong(r#""*""#), EntityTags::Versions(vec![]));
        assert_eq!(strong(r#""x,"7","8,""#), EntityTags::Malformed);
    }

    #[test]
    fn a_star_is_the_whole_value_or_malformed() {
        assert_eq!(strong(" * "), EntityTags::Any);
        for list in ["*, *", "\"1\", *", "*,"] {
            assert_eq!(strong(list), EntityTags::Malformed, "{list}");
        }
        assert_eq!(parse(&["*", "\"1\""], Comparison::Strong), Some(EntityTags::Malformed));
    }

    #[test]
    fn what_is_no_list_of_tags_is_malformed() {
        for list in ["3", "\"3", "w/\"3\"", "W/3", "\"3\" \"4\"", "\"a b\"", "\"3\"x"] {
            assert_eq!(strong(list), EntityTags::Malformed, "{list}");
        }
    }
}
