//! Spin's host sets no deadline on any call, opening a connection included: a stopped server would
//! hang its callers for good. So every call to the host goes through here.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use thiserror::Error;

#[derive(Clone, Copy, Debug, Error)]
#[error("no answer within {} ms", .0.as_millis())]
pub struct TimedOut(Duration);

/// Awaits `call` for `limit` at most. Past it the call is dropped, which cancels it in the host.
pub async fn within<T>(limit: Duration, call: impl Future<Output = T>) -> Result<T, TimedOut> {
    match select(pin!(call), pin!(spin_sdk::time::sleep(limit))).await {
        Either::Left((answer, _)) => Ok(answer),
        Either::Right(((), _)) => Err(TimedOut(limit)),
    }
}
