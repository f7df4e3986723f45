//! What a request's headers ask for: preferences, an idempotency key, and where it came from.
//! Parsed here once; what a standard says to ignore is ignored here.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use crate::fields::Invalid;

/// The longest that a client may ask a write to wait for the broker.
const WAIT_S_MAX: u64 = 30;

/// What W3C Trace Context asks everybody to pass on at least, and when a member is a long one.
const TRACESTATE_CHARS_MAX: usize = 512;
const TRACESTATE_LONG_CHARS: usize = 128;
const TRACESTATE_MEMBERS_MAX: usize = 32;

pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;

/// Preferences (RFC 7240) that are honoured; any other is ignored, as it says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Preferences {
    /// `wait`, in seconds, cut to what is allowed.
    pub wait_s: Option<u64>,
    /// `return=minimal`.
    pub minimal: bool,
}

/// The request's W3C Trace Context, passed on with its event.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TraceContext {
    pub traceparent: Option<String>,
    /// Only with a traceparent.
    pub tracestate: Option<String>,
}

/// A header that may be sent once: nothing if it is sent more often, since readers differ in which
/// one they take.
pub fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// The parts of a header's value. A separator in quotes is text (RFC 9110, section 5.6.4).
pub fn parts(value: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    value.split(move |character| {
        let was_escaped = is_escaped;
        is_escaped = is_quoted && !was_escaped && character == '\\';
        if character == '"' && !was_escaped {
            is_quoted = !is_quoted;
        }
        character == separator && !is_quoted
    })
}

impl Preferences {
    pub fn parse(headers: &HeaderMap) -> Preferences {
        let mut preferences = Preferences::default();
        let mut has_return = false;
        let values = headers.get_all("prefer").into_iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| parts(value, ',')) {
            // Parameters after a semicolon are for preferences that we do not know.
            let token = parts(preference, ';').next().unwrap_or_default();
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
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Invalid> {
    if !headers.contains_key(IDEMPOTENCY_KEY) {
        return Ok(None);
    }
    let Some(value) = single(headers, IDEMPOTENCY_KEY) else {
        return Err(Invalid::header("Idempotency-Key", "value", "is given more than once"));
    };
    let text = value.to_str().unwrap_or_default().trim();
    let key = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let printable = key.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"');
    if !(1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&key.len()) || !printable {
        let detail = "must have 1 to 255 printable ASCII characters other than the quote, such as a UUID";
        return Err(Invalid::header("Idempotency-Key", "value", detail));
    }
    Ok(Some(key.to_owned()))
}

impl TraceContext {
    /// The standard says to ignore a traceparent that is not valid, and tracestate without a valid one.
    pub fn parse(headers: &HeaderMap) -> TraceContext {
        let traceparent = traceparent(headers);
        let tracestate = traceparent.as_ref().and_then(|_| tracestate(headers));
        TraceContext { traceparent, tracestate }
    }
}

/// Of a version that is not known the first four fields count (level 2, section 3.2), and go on as
/// version 00.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    const KNOWN_LENGTH: usize = 55;
    let value = single(headers, "traceparent")?.to_str().ok()?;
    let (known, rest) = value.split_at_checked(KNOWN_LENGTH)?;
    let [version, trace_id, parent_id, flags] = known.split('-').collect::<Vec<_>>().try_into().ok()?;
    let is_hex = |length: usize, field: &str| {
        field.len() == length && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |length, field: &str| is_hex(length, field) && field.bytes().any(|byte| byte != b'0');
    if !is_hex(2, version) || !is_id(32, trace_id) || !is_id(16, parent_id) || !is_hex(2, flags) {
        return None;
    }
    match version {
        "ff" => None,
        "00" => rest.is_empty().then(|| value.to_owned()),
        _ if rest.is_empty() || rest.starts_with('-') => {
            // Sampled and random: the flags that version 00 knows.
            let flags = u8::from_str_radix(flags, 16).ok()? & 0b11;
            Some(format!("00-{trace_id}-{parent_id}-{flags:02x}"))
        }
        _ => None,
    }
}

/// All lines as one list (section 3.3), unless a member is malformed. A list that is too long loses
/// whole members, as the standard says: first those that are long themselves, the oldest first.
fn tracestate(headers: &HeaderMap) -> Option<String> {
    let values: Option<Vec<&str>> =
        headers.get_all("tracestate").iter().map(|value| value.to_str().ok()).collect();
    let values = values?;
    let members = values.iter().flat_map(|value| value.split(',')).map(str::trim);
    let mut members: Vec<&str> = members.filter(|member| !member.is_empty()).collect();
    let keys: Option<BTreeSet<&str>> = members.iter().map(|member| tracestate_key(member)).collect();
    if members.len() > TRACESTATE_MEMBERS_MAX || keys?.len() < members.len() {
        return None;
    }
    while members.iter().map(|member| member.len() + 1).sum::<usize>() > TRACESTATE_CHARS_MAX + 1 {
        let long = members.iter().rposition(|member| member.len() > TRACESTATE_LONG_CHARS);
        members.remove(long.unwrap_or(members.len() - 1));
    }
    (!members.is_empty()).then(|| members.join(","))
}

/// The key of a member, if both it and the value are as section 3.3.1.3 has them.
fn tracestate_key(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let starts = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let goes_on = |byte: u8| starts(byte) || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@');
    let is_key = key.bytes().next().is_some_and(starts) && key.bytes().all(goes_on);
    let is_value = !value.is_empty() && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=');
    (is_key && is_value && key.len() <= 256 && value.len() <= 256).then_some(key)
}

/// The client's own id of the request if it is short and plain, else a new one.
pub fn request_id(headers: &HeaderMap) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match single(headers, "x-request-id").and_then(|value| value.to_str().ok()) {
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
    fn known_preferences_are_taken_and_others_ignored() {
        let parse = |value| Preferences::parse(&headers(&[("prefer", value)]));
        assert_eq!(parse("wait=5"), Preferences { wait_s: Some(5), ..Preferences::default() });
        assert_eq!(parse("wait=86400").wait_s, Some(30));
        let both = parse("respond-async, Wait = \"2\"; foo=bar, return=minimal, wait=9");
        assert_eq!((both.wait_s, both.minimal), (Some(2), true));
        assert_eq!(both.applied().as_deref(), Some("return=minimal, wait=2"));
        assert_eq!(parse("wait=soon, return=representation, return=minimal").applied(), None);
        assert_eq!(parse(r#"foo="a, wait=5, \"; return=minimal", bar; x=", wait=6""#).applied(), None);
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
        let twice = headers(&[("idempotency-key", "a"), ("idempotency-key", "a")]);
        assert_eq!(idempotency_key(&twice).unwrap_err().detail, "is given more than once");
    }

    #[test]
    fn only_a_well_formed_traceparent_is_passed_on() {
        let parse = |value| traceparent(&headers(&[("traceparent", value)]));
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(parse(good).as_deref(), Some(good));
        let longer = format!("{good}-x");
        for bad in ["", "00", &good.to_uppercase(), &good[1..], "00-x-y-01", &longer] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let twice = headers(&[("traceparent", good), ("traceparent", good)]);
        assert_eq!(traceparent(&twice), None);
    }

    #[test]
    fn a_traceparent_with_zero_ids_or_version_ff_is_dropped() {
        let parse = |value: &str| traceparent(&headers(&[("traceparent", value)]));
        for bad in [
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_higher_traceparent_is_read_by_its_first_four_fields() {
        let parse = |value: &str| traceparent(&headers(&[("traceparent", value)]));
        let ids = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
        let known = format!("00-{ids}-01");
        for higher in [format!("cc-{ids}-01"), format!("01-{ids}-09-what-the-future-will-be-like")] {
            assert_eq!(parse(&higher), Some(known.clone()), "{higher}");
        }
        for bad in [format!("cc-{ids}-01.x"), format!("cc-{ids}-0")] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }

    const TRACEPARENT: (&str, &str) =
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");

    fn tracestate_of(values: &[&str]) -> Option<String> {
        let lines = values.iter().map(|value| ("tracestate", *value));
        TraceContext::parse(&headers(&[TRACEPARENT].into_iter().chain(lines).collect::<Vec<_>>())).tracestate
    }

    #[test]
    fn lines_of_tracestate_are_one_list() {
        assert_eq!(tracestate_of(&["a=1, b@c=x y ,,", "d/e=2"]).as_deref(), Some("a=1,b@c=x y,d/e=2"));
        for nothing in [&[][..], &[""], &[" , "]] {
            assert_eq!(tracestate_of(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn a_malformed_tracestate_is_dropped_and_the_traceparent_stays() {
        let many = (0..33).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join(",");
        let long_key = format!("{}=v", "k".repeat(257));
        for bad in ["a", "=v", "a=", "A=v", "_a=v", "a=b=c", "a=\t\tv", "a=1,a=2", &many, &long_key] {
            assert_eq!(tracestate_of(&[bad]), None, "{bad}");
        }
        let parsed = TraceContext::parse(&headers(&[TRACEPARENT, ("tracestate", "bad")]));
        assert_eq!(parsed.traceparent.as_deref(), Some(TRACEPARENT.1));
    }

    #[test]
    fn without_a_valid_traceparent_there_is_no_tracestate() {
        for lines in [&[("tracestate", "a=1")][..], &[("traceparent", "00-0-0-01"), ("tracestate", "a=1")]] {
            assert_eq!(TraceContext::parse(&headers(lines)), TraceContext::default(), "{lines:?}");
        }
    }

    #[test]
    fn a_tracestate_that_is_too_long_loses_whole_members() {
        let member = |key: &str, chars: usize| format!("{key}={}", "v".repeat(chars - 2));
        let [long, full, one] = [("l", 129), ("f", 127), ("o", 4)].map(|(key, chars)| member(key, chars));
        let rest: Vec<_> = ["a", "b", "c"].map(|key| member(key, 127)).into();
        let exact = [rest.join(","), member("x", 128)].join(",");
        assert_eq!((exact.len(), tracestate_of(&[&exact])), (512, Some(exact.clone())));
        // The long one goes first, then the last.
        let sent = [full, long, rest.join(","), one].join(",");
        let kept = [member("f", 127), rest.join(",")].join(",");
        assert_eq!(tracestate_of(&[&sent]), Some(kept));
    }

    #[test]
    fn a_request_id_is_the_clients_if_it_is_plain() {
        assert_eq!(request_id(&headers(&[("x-request-id", "abc-1")])), "abc-1");
        assert_ne!(request_id(&headers(&[("x-request-id", "a b")])), "a b");
        assert_ne!(request_id(&headers(&[("x-request-id", "a"), ("x-request-id", "b")])), "a");
    }
}
