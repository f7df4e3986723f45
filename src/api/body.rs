use axum::body::{Body, Bytes};
use futures::StreamExt as _;
use http::{HeaderMap, header};
use http_body::Body as _;
use serde_json::Value;

use crate::config::Config;
use crate::deadline::within;
use crate::headers::single;
use crate::json;
use crate::problem::Problem;

pub(super) const TASK_BYTES_MAX: usize = 64 * 1024;
pub(super) const BATCH_BYTES_MAX: usize = 1024 * 1024;

pub(super) const JSON: &[&str] = &["application/json"];

/// Refuses a request whose body is not sent as one of these, and as it is.
pub(super) fn expect(headers: &HeaderMap, media_types: &'static [&'static str]) -> Result<(), Problem> {
    let encodings = headers.get_all(header::CONTENT_ENCODING).into_iter();
    let mut encodings = encodings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    if !encodings.all(|encoding| encoding.trim_ascii().eq_ignore_ascii_case(b"identity")) {
        return Err(Problem::UnsupportedEncoding);
    }
    let content_type = single(headers, "content-type").and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).map(str::trim).unwrap_or_default();
    if media_types.iter().any(|media_type| essence.eq_ignore_ascii_case(media_type)) {
        Ok(())
    } else {
        Err(Problem::UnsupportedMediaType(media_types))
    }
}

pub(super) async fn read(body: Body, bytes_max: usize, config: &Config) -> Result<Bytes, Problem> {
    match within(config.body_timeout, collect(body, bytes_max)).await {
        Ok(collected) => collected,
        Err(_timed_out) => Err(Problem::BodyTimeout),
    }
}

/// Up to the length that the request gave: asking for more, only to hear that there is none, costs two calls to the
/// host.
async fn collect(body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let bytes_given = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
    if bytes_given.is_some_and(|bytes| bytes > bytes_max) {
        return Err(Problem::TooLarge(bytes_max / 1024));
    }
    let mut frames = body.into_data_stream();
    let mut collected = Vec::with_capacity(bytes_given.unwrap_or_default());
    while bytes_given.is_none_or(|bytes| collected.len() < bytes)
        && let Some(frame) = frames.next().await
    {
        let frame = frame.map_err(|error| Problem::Incomplete(error.to_string()))?;
        if collected.len() + frame.len() > bytes_max {
            return Err(Problem::TooLarge(bytes_max / 1024));
        }
        collected.extend_from_slice(&frame);
    }
    Ok(collected.into())
}

pub(super) fn parse(body: &[u8]) -> Result<Value, Problem> {
    Ok(json::parse(body)?)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn json_is_json_with_any_parameters() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            expect(&headers, JSON).is_ok()
        };
        assert!(with("application/json") && with("Application/JSON; charset=utf-8"));
        assert!(!with("text/plain") && !with("application/x-www-form-urlencoded"));
        assert!(expect(&HeaderMap::new(), JSON).is_err());
        let mut twice = HeaderMap::new();
        for _ in 0..2 {
            twice.append(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        assert!(expect(&twice, JSON).is_err());
    }

    #[test]
    fn a_body_with_a_content_coding_is_refused() {
        for (coding, is_taken) in
            [("identity", true), ("Identity", true), ("gzip", false), ("identity, br", false)]
        {
            let headers = HeaderMap::from_iter([
                (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (header::CONTENT_ENCODING, HeaderValue::from_static(coding)),
            ]);
            assert_eq!(expect(&headers, JSON).is_ok(), is_taken, "{coding}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_json_or_malformed(
            bytes in prop::collection::vec(any::<u8>(), 0..100), text in "[\\[\\]{}:,\"0-9a-z .\\\\-]{0,20}"
        ) {
            for bytes in [&*bytes, text.as_bytes()] {
                match parse(bytes) {
                    Ok(value) => prop_assert_eq!(parse(value.to_string().as_bytes()).unwrap(), value),
                    Err(problem) => prop_assert!(matches!(problem, Problem::Malformed(_))),
                }
            }
        }

        #[test]
        fn any_content_type_is_one_of_those_expected_or_refused(value in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let headers = [(header::CONTENT_TYPE, value)].into_iter().collect();
                let refused = expect(&headers, JSON);
                prop_assert!(matches!(refused, Err(Problem::UnsupportedMediaType(JSON))));
            }
        }
    }
}
