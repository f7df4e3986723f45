//! What `/metrics` tells, in the text format of Prometheus (OpenMetrics 1.0).
//!
//! Names and labels follow OpenTelemetry's semantic conventions where they have one (messaging, HTTP server),
//! as Prometheus spells them: `_` for `.`, base units, `_total` for counters.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context as _, Result};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of a duration's buckets, in seconds: those that OpenTelemetry recommends, and finer ones below.
const DURATION_BUCKETS_S: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 60.0];

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct OfPartition {
    pub messaging_destination_partition_id: u32,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Send {
    pub messaging_destination_partition_id: u32,
    pub error_type: Option<SendError>,
}

#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
#[expect(non_camel_case_types, reason = "the names are the labels' values")]
pub enum SendError {
    /// The broker refuses the batch, and would refuse it again.
    refused,
    /// Nobody knows what became of it; the lane reads back.
    unknown,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Request {
    pub http_request_method: &'static str,
    pub http_route: &'static str,
    pub http_response_status_code: u16,
}

/// A family without labels has no sample until it has a value, unlike a metric of its own.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct NoLabels {}

#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Events that the broker has acknowledged.
    pub sent: Family<OfPartition, Counter>,
    send_duration: Family<Send, Histogram, fn() -> Histogram>,
    publication_delay: Histogram,
    /// Events in a lane that are not acknowledged yet.
    pending: Family<OfPartition, Gauge>,
    /// Whether this sidecar publishes (1) or stands by (0).
    pub publishing: Gauge,
    /// Events that instances of the component left to the outbox without sending them.
    dropped: Counter,
    /// Attempts to invalidate what is cached that Redis did not carry out.
    pub invalidation_failures: Counter,
    /// Whether something cached waits to be invalidated (1) or not (0).
    pub invalidation_pending: Gauge,
    outbox_events: Family<NoLabels, Gauge>,
    outbox_parked: Family<NoLabels, Gauge>,
    outbox_oldest_age: Family<NoLabels, Gauge<f64, AtomicU64>>,
    request_duration: Family<Request, Histogram, fn() -> Histogram>,
}

impl Metrics {
    pub fn new(topic: &str) -> Metrics {
        let labels = [
            ("messaging_system".into(), "kafka".into()),
            ("messaging_destination_name".into(), topic.to_owned().into()),
        ];
        let mut registry = Registry::with_labels(labels.into_iter());
        let metrics = Metrics {
            registry: Arc::default(),
            sent: Family::default(),
            send_duration: Family::new_with_constructor(durations),
            publication_delay: durations(),
            pending: Family::default(),
            publishing: Gauge::default(),
            dropped: Counter::default(),
            invalidation_failures: Counter::default(),
            invalidation_pending: Gauge::default(),
            outbox_events: Family::default(),
            outbox_parked: Family::default(),
            outbox_oldest_age: Family::default(),
            request_duration: Family::new_with_constructor(durations),
        };
        registry.register(
            "messaging_client_sent_messages",
            "Events that the broker has acknowledged",
            metrics.sent.clone(),
        );
        registry.register_with_unit(
            "messaging_client_operation_duration",
            "Time from sending a batch to the broker's answer",
            Unit::Seconds,
            metrics.send_duration.clone(),
        );
        registry.register_with_unit(
            "outbox_publication_delay",
            "Time from a change to the broker's ack of its event",
            Unit::Seconds,
            metrics.publication_delay.clone(),
        );
        registry.register(
            "outbox_lane_pending_events",
            "Events in a lane that are not acknowledged yet",
            metrics.pending.clone(),
        );
        registry.register(
            "outbox_publishing",
            "Whether this sidecar publishes (1) or another one does (0)",
            metrics.publishing.clone(),
        );
        registry.register(
            "outbox_pushes_dropped",
            "Events that the component left to the outbox without pushing them, because too many waited",
            metrics.dropped.clone(),
        );
        registry.register(
            "cache_invalidation_failures",
            "Invalidations that Redis did not carry out; each is repeated",
            metrics.invalidation_failures.clone(),
        );
        registry.register(
            "cache_invalidation_pending",
            "Whether something cached still has to be invalidated (1) or not (0)",
            metrics.invalidation_pending.clone(),
        );
        registry.register(
            "outbox_events",
            "Rows of the outbox, parked ones among them, counted up to 100,000",
            metrics.outbox_events.clone(),
        );
        registry.register(
            "outbox_parked_events",
            "Events that the broker refuses; `kafka-sidecar parked list` shows why",
            metrics.outbox_parked.clone(),
        );
        registry.register_with_unit(
            "outbox_oldest_event_age",
            "Age of the oldest event in the outbox that is not parked, 0 if there is none",
            Unit::Seconds,
            metrics.outbox_oldest_age.clone(),
        );
        registry.register_with_unit(
            "http_server_request_duration",
            "Time to answer a request, waits for receipts included",
            Unit::Seconds,
            metrics.request_duration.clone(),
        );
        Metrics { registry: Arc::new(registry), ..metrics }
    }

    pub fn text(&self) -> Result<String> {
        let mut text = String::new();
        encode(&mut text, &self.registry).context("encoding the metrics")?;
        Ok(text)
    }

    /// An instance of the component left so many events to the outbox.
    pub fn note_dropped(&self, events: u64) {
        self.dropped.inc_by(events);
    }

    /// The outbox was looked at: so many events are parked, and the oldest of the others is so old.
    pub fn note_outbox(&self, parked: i64, oldest_age_s: f64) {
        self.outbox_parked.get_or_create(&NoLabels {}).set(parked);
        self.outbox_oldest_age.get_or_create(&NoLabels {}).set(oldest_age_s);
    }

    pub fn note_outbox_events(&self, events: i64) {
        self.outbox_events.get_or_create(&NoLabels {}).set(events);
    }

    /// Nobody knows what waits: no sample is better than a wrong one.
    pub fn forget_outbox(&self) {
        self.outbox_events.clear();
        self.outbox_parked.clear();
        self.outbox_oldest_age.clear();
    }

    /// So many events of a lane are not acknowledged yet.
    pub fn note_pending(&self, partition: u32, events: usize) {
        let partition = OfPartition { messaging_destination_partition_id: partition };
        self.pending.get_or_create(&partition).set(events as i64);
    }

    /// The lanes are gone.
    pub fn forget_pending(&self) {
        self.pending.clear();
    }

    /// A batch was sent, and answered or given up after `duration`.
    pub fn note_send(&self, partition: u32, duration: Duration, error_type: Option<SendError>) {
        let send = Send { messaging_destination_partition_id: partition, error_type };
        self.send_duration.get_or_create(&send).observe(duration.as_secs_f64());
    }

    /// Events were acknowledged, so long after their changes each.
    pub fn note_acked(&self, partition: u32, delays: impl ExactSizeIterator<Item = Duration>) {
        let partition = OfPartition { messaging_destination_partition_id: partition };
        self.sent.get_or_create(&partition).inc_by(delays.len() as u64);
        for delay in delays {
            self.publication_delay.observe(delay.as_secs_f64());
        }
    }

    pub fn note_request(&self, request: &Request, duration: Duration) {
        self.request_duration.get_or_create(request).observe(duration.as_secs_f64());
    }
}

fn durations() -> Histogram {
    Histogram::new(DURATION_BUCKETS_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTBOX: [&str; 3] = ["outbox_events{", "outbox_parked_events{", "outbox_oldest_event_age_seconds{"];

    fn samples(metrics: &Metrics) -> [bool; 3] {
        let text = metrics.text().unwrap();
        OUTBOX.map(|name| text.lines().any(|line| line.starts_with(name)))
    }

    #[test]
    fn an_unknown_outbox_has_no_samples() {
        let metrics = Metrics::new("task_events");
        assert_eq!(samples(&metrics), [false; 3]);
        metrics.note_outbox(0, 0.0);
        metrics.note_outbox_events(0);
        assert_eq!(samples(&metrics), [true; 3]);
        metrics.forget_outbox();
        assert_eq!(samples(&metrics), [false; 3]);
    }
}
