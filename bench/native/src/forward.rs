//! Tells the sidecar, after the commit, as the component does: one request under way, and what gathers
//! meanwhile goes with the next. What does not get there is left to the sweep.

use bytes::Bytes;
use contract::{BATCH_CONTENT_TYPE, EVENTS_PATH, Event};
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc;

const BATCH_EVENTS_MAX: usize = 64;
/// Past it events are left to the sweep.
const WAITING_EVENTS_MAX: usize = 4_096;

#[derive(Clone)]
pub struct Forwarder(mpsc::Sender<Event>);

impl Forwarder {
    pub fn start(sidecar_url: &str, token: &str) -> Forwarder {
        let (sender, receiver) = mpsc::channel(WAITING_EVENTS_MAX);
        let url = format!("{sidecar_url}{EVENTS_PATH}");
        tokio::spawn(run(receiver, url, format!("Bearer {token}")));
        Forwarder(sender)
    }

    pub fn forward(&self, event: Event) {
        let _ = self.0.try_send(event);
    }
}

async fn run(mut waiting: mpsc::Receiver<Event>, url: String, authorization: String) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, BATCH_EVENTS_MAX).await > 0 {
        if let Err(error) = send(&client, &url, &authorization, &batch).await {
            eprintln!("{error:#}");
        }
        batch.clear();
    }
}

async fn send(
    client: &Client<HttpConnector, Full<Bytes>>,
    url: &str,
    authorization: &str,
    batch: &[Event],
) -> anyhow::Result<()> {
    let request = Request::post(url)
        .header(header::AUTHORIZATION, authorization)
        .header(header::CONTENT_TYPE, BATCH_CONTENT_TYPE)
        .body(Full::new(Bytes::from(serde_json::to_vec(batch)?)))?;
    let response = client.request(request).await?;
    anyhow::ensure!(response.status().is_success(), "the sidecar answered {}", response.status());
    response.into_body().collect().await?;
    Ok(())
}
