//! Outbound HTTP: the URL to get is in the query, `?url=`; and what the guest itself was sent.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::OnceLock,
    time::Duration,
};

use ::http::request::Parts;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use spin_sdk::{http, time, wit_bindgen};

use crate::Outcome;

/// Work that is left after a response takes this long before it shows.
const LATER: Duration = Duration::from_millis(500);

pub(crate) async fn call(query: &str) -> Outcome {
    let url = query.strip_prefix("url=").ok_or_else(|| json!("write it as ?url=…"))?;
    get(url).await
}

async fn get(url: &str) -> Outcome {
    let failed = |error: &dyn std::fmt::Debug| json!(format!("{error:?}"));
    let response = http::get(url).await.map_err(|error| failed(&error))?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(|error| failed(&error))?;
    Ok(json!({ "status": status, "body": String::from_utf8_lossy(&body.to_bytes()) }))
}

/// A call whose path is the instance's own.
pub(crate) async fn call_as_this_instance(authority: &str) -> Outcome {
    static INSTANCE: OnceLock<u64> = OnceLock::new();
    let instance = INSTANCE.get_or_init(|| RandomState::new().build_hasher().finish());
    get(&format!("http://{authority}/{instance}")).await
}

/// Answers at once; the request goes out later.
pub(crate) fn call_after_the_response(authority_and_path: &str) -> Outcome {
    let url = format!("http://{authority_and_path}");
    wit_bindgen::spawn(async move {
        time::sleep(LATER).await;
        if let Err(error) = get(&url).await {
            eprintln!("later: {error}");
        }
    });
    Ok(Value::Null)
}

pub(crate) fn describe(parts: &Parts) -> Value {
    let headers: serde_json::Map<_, _> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap_or_default())))
        .collect();
    json!({ "method": parts.method.as_str(), "uri": parts.uri.to_string(), "headers": headers })
}
