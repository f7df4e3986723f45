//! What a request's headers ask for: conditions, preferences, an idempotency key, and where it came
//! from. Parsed here once; what a standard says to ignore is ignored here.

use http::HeaderMap;
use uuid::Uuid;

use crate::fields::Invalid;

/// The longest that a client may ask a write to wait for the broker.
const WAIT_S_MAX: u64 = 30;

pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;

/// Conditions on the version that a write finds (RFC 9110, section 13.1).
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Conditions {
    /// If-Match: one of these, if there is a list; `*` is none, since a write needs its task anyway.
    pub one_of: Option<Vec<i64>>,
    /// If-None-Match: none of these.
    pub none_of: Option<Vec<i64>>,
    /// If-Match was sent, whatever it said.
    pub has_if_match: bool,
}

/// Preferences (RFC 7240) that are honoured; any other is ignored, as it says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Preferences {
    /// `wait`, in seconds, cut to what is allowed.
    pub wait_s: Option<u64>,
    /// `return=minimal`.
    pub minimal: bool,
}

enum Tags {
    Any,
    Versions(Vec<i64>),
}

impl Conditions {
    pub fn parse(headers: &HeaderMap) -> Conditions {
        let if_match = tags(headers, "if-match", false);
        let has_if_match = if_match.is_some();
        let one_of = match if_match {
            Some(Tags::Versions(versions)) => Some(versions),
            Some(Tags::Any) | None => None,
        };
        match tags(headers, "if-none-match", true) {
            // A task that is there is what must not be: no version will do.
            Some(Tags::Any) => Conditions { one_of: Some(vec![]), none_of: None, has_if_match },
            Some(Tags::Versions(versions)) => Conditions { one_of, none_of: Some(versions), has_if_match },
            None => Conditions { one_of, none_of: None, has_if_match },
        }
    }
}

/// Whether a reader has this version already, by its If-None-Match.
pub fn has_version(headers: &HeaderMap, version: i64) -> bool {
    match tags(headers, "if-none-match", true) {
        Some(Tags::Any) => true,
        Some(Tags::Versions(versions)) => versions.contains(&version),
        None => false,
    }
}

/// The strong entity tag of a version.
pub fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

/// The versions among a list of entity tags. A tag that is not one of ours matches nothing, and so is
/// left out; a weak one (`W/`) counts only where the comparison is weak.
fn tags(headers: &HeaderMap, name: &str, weak_too: bool) -> Option<Tags> {
    let mut versions = Vec::new();
    let mut present = false;
    for value in headers.get_all(name) {
        present = true;
        for tag in value.to_str().unwrap_or_default().split(',').map(str::trim) {
            if tag == "*" {
                return Some(Tags::Any);
            }
            let strong = tag.strip_prefix("W/").filter(|_| weak_too).unwrap_or(tag);
            let opaque = strong.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let version = opaque.and_then(|opaque| opaque.parse::<i64>().ok());
            // One form for each version: neither "+3" nor "03" is a tag that we gave out.
            versions.extend(version.filter(|version| etag(*version) == strong));
        }
    }
    present.then_some(Tags::Versions(versions))
}

impl Preferences {
    pub fn parse(headers: &HeaderMap) -> Preferences {
        let mut preferences = Preferences::default();
        let mut has_return = false;
        let values = headers.get_all("prefer").into_iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split(',')) {
            // Parameters after a semicolon are for preferences that we do not know.
            let token = preference.split(';').next().unwrap_or_default();
            let (name, value) = token.split_once('=').unwrap_or((token, ""));
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                // Of a preference that is sent twice the first one counts (RFC 7240, section 2).
                "wait" if preferences.wait_s.is_none() => {
                    preferences.wait_s = value.parse::<u64>().ok().map(|wait_s| wait_s.min(WAIT_S_MAX));
                }
                "return" if !has_return => {
                    has_return = true;
                    preferences.minimal = value == "minimal";
                }
                _ => {}
            }
        }
        preferences
    }

    /// Of a request that makes no event to wait for.
    pub fn without_wait(self) -> Preferences {
        Preferences { wait_s: None, ..self }
    }

    /// The value of Preference-Applied, if any preference was.
    pub fn applied(self) -> Option<String> {
        let minimal = self.minimal.then(|| "return=minimal".to_owned());
        let wait = self.wait_s.map(|wait_s| format!("wait={wait_s}"));
        let applied: Vec<_> = minimal.into_iter().chain(wait).collect();
        (!applied.is_empty()).then(|| applied.join(", "))
    }
}

/// The Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07): a string in quotes; many
/// clients send it without, so that is taken too. A quote within would make it two texts.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Vec<Invalid>> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    let key = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let printable = key.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"');
    if !(1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&key.len()) || !printable {
        let detail = "must have 1 to 255 printable ASCII characters other than the quote, such as a UUID";
        return Err(vec![Invalid::header("Idempotency-Key", "value", detail)]);
    }
    Ok(Some(key.to_owned()))
}

/// The request's W3C Trace Context (section 3.2) if it has a well-formed one; the standard says to
/// ignore any other.
pub fn traceparent(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    let lengths: Vec<usize> = value.split('-').map(str::len).collect();
    let hexadecimal = value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    (lengths == [2, 32, 16, 2] && hexadecimal).then(|| value.to_owned())
}

/// The client's own id of the request if it is short and plain, else a new one.
pub fn request_id(headers: &HeaderMap) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match headers.get("x-request-id").and_then(|value| value.to_str().ok()) {
        Some(id) if (1..=128).contains(&id.len()) && id.bytes().all(plain) => id.to_owned(),
        _ => Uuid::now_v7().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn conditions_are_lists_of_versions() {
        let parse = |pairs| Conditions::parse(&headers(pairs));
        assert_eq!(parse(&[]), Conditions::default());
        let listed = parse(&[("if-match", "\"3\", W/\"4\", \"x\",\"5\"")]);
        assert_eq!((listed.one_of, listed.has_if_match), (Some(vec![3, 5]), true));
        let any = parse(&[("if-match", "*")]);
        assert_eq!((any.one_of, any.has_if_match), (None, true));
        assert_eq!(parse(&[("if-match", "\"+3\", \"03\"")]).one_of, Some(vec![]));
        assert_eq!(parse(&[("if-none-match", "W/\"3\"")]).none_of, Some(vec![3]));
        assert_eq!(parse(&[("if-none-match", "*")]).one_of, Some(vec![]));
    }

    #[test]
    fn a_reader_has_the_version_it_names() {
        for (value, has) in [("\"3\"", true), ("W/\"3\"", true), ("*", true), ("\"4\"", false), ("3", false)]
        {
            assert_eq!(has_version(&headers(&[("if-none-match", value)]), 3), has, "{value}");
        }
        assert!(!has_version(&HeaderMap::new(), 3));
    }

    #[test]
    fn known_preferences_are_taken_and_others_ignored() {
        let parse = |value| Preferences::parse(&headers(&[("prefer", value)]));
        assert_eq!(parse("wait=5"), Preferences { wait_s: Some(5), ..Preferences::default() });
        assert_eq!(parse("wait=86400").wait_s, Some(30));
        let both = parse("respond-async, Wait = \"2\"; foo=bar, return=minimal, wait=9");
        assert_eq!((both.wait_s, both.minimal), (Some(2), true));
        assert_eq!(both.applied().as_deref(), Some("return=minimal, wait=2"));
        assert_eq!(parse("wait=soon, return=representation, return=minimal").applied(), None);
    }

    #[test]
    fn an_idempotency_key_is_a_short_text_with_or_without_quotes() {
        let parse = |value| idempotency_key(&headers(&[("idempotency-key", value)]));
        assert_eq!(parse("\"abc\"").unwrap().as_deref(), Some("abc"));
        assert_eq!(parse("abc").unwrap().as_deref(), Some("abc"));
        for bad in ["", "\"\"", "\"", "a\"b", &"x".repeat(256)] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn only_a_well_formed_traceparent_is_passed_on() {
        let parse = |value| traceparent(&headers(&[("traceparent", value)]));
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(parse(good).as_deref(), Some(good));
        for bad in ["", "00", &good.to_uppercase(), &good[1..], "00-x-y-01"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_request_id_is_the_clients_if_it_is_plain() {
        assert_eq!(request_id(&headers(&[("x-request-id", "abc-1")])), "abc-1");
        assert_ne!(request_id(&headers(&[("x-request-id", "a b")])), "a b");
    }
}
