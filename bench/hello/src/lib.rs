//! Answers every request with a few bytes: what is left of a request's cost when the application does
//! nothing. With a length, so that it goes out as the API's responses do.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response};
use spin_sdk::http::{FullBody, IntoResponse, Request};
use spin_sdk::http_service;

const HELLO: &[u8] = b"hello, world\n";

#[http_service]
async fn handle(_request: Request) -> impl IntoResponse {
    let mut response = Response::new(FullBody::new(Bytes::from_static(HELLO)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(HELLO.len()));
    response
}
