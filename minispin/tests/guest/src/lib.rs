//! The component of minispin's conformance tests. It makes the one host call that a request describes and
//! answers with a description of what the host returned; what that should be, only the tests know.

mod http;
mod postgres;
mod redis;

use std::time::Duration;

use ::http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use spin_sdk::{
    http::{FullBody, IntoResponse, Request},
    http_service, time, variables,
};

/// What a call came to: `Err` becomes `{"error": …}`, so that a test sees both with one look.
type Outcome = Result<Value, Value>;

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_or(Bytes::new(), http_body_util::Collected::to_bytes);
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or_default();
    let outcome = match path.strip_prefix("/guest/").and_then(|call| call.split_once('/')) {
        Some(("pg", call)) => postgres::call(call, &body).await,
        Some(("redis", call)) => redis::call(call, &body).await,
        Some(("variables", name)) => variable(name).await,
        Some(("http", _)) => http::call(query).await,
        Some(("trap", _)) => panic!("as the test asked"),
        Some(("hang", _)) => hang().await,
        Some(("spin", _)) => {
            println!("computing");
            loop {
                std::hint::spin_loop();
            }
        }
        Some(("held", authority)) => http::call_as_this_instance(authority).await,
        Some(("later", url)) => http::call_after_the_response(url),
        Some(("log", text)) => {
            println!("out {text}");
            eprintln!("err {text}");
            Ok(Value::Null)
        }
        _ => Ok(http::describe(&parts)),
    };
    answer(&outcome)
}

async fn variable(name: &str) -> Outcome {
    variables::get(name).await.map(Value::from).map_err(|error| json!(format!("{error:?}")))
}

/// Until the client gives up. A future that nothing could ever wake would trap instead of hanging.
async fn hang() -> Outcome {
    loop {
        time::sleep(Duration::from_secs(3600)).await;
    }
}

fn answer(outcome: &Outcome) -> Response<FullBody<Bytes>> {
    let body = match outcome {
        Ok(value) => value.to_string(),
        Err(error) => json!({ "error": error }).to_string(),
    };
    let length = body.len();
    let mut response = Response::new(FullBody::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}
