//! What `/metrics` tells.
//!
//! Names and labels follow OpenTelemetry's semantic conventions where they have one (messaging,
//! HTTP server), as Prometheus spells them: `_` for `.`, base units, `_total` for counters.
//! Help texts use the words of Kafka, PostgreSQL and Redis, not this program's own.

mod format; // how it is written
#[cfg(target_os = "linux")]
mod process; // what the kernel knows of the process

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context as _, Result};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use format::Format;

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
    /// Events whose component could not invalidate what is cached.
    pub invalidation_requests: Counter,
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
        let mut registry = Registry::default();
        let metrics = Metrics {
            registry: Arc::default(),
            sent: Family::default(),
            send_duration: Family::new_with_constructor(durations),
            publication_delay: durations(),
            pending: Family::default(),
            publishing: Gauge::default(),
            dropped: Counter::default(),
            invalidation_requests: Counter::default(),
            invalidation_failures: Counter::default(),
            invalidation_pending: Gauge::default(),
            outbox_events: Family::default(),
            outbox_parked: Family::default(),
            outbox_oldest_age: Family::default(),
            request_duration: Family::new_with_constructor(durations),
        };
        let of_sidecar = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register(
            "kafka_sidecar_build",
            "The sidecar that runs; the value is always 1",
            Info::new(of_sidecar),
        );
        #[cfg(target_os = "linux")]
        registry.register_collector(Box::new(process::OfProcess));
        // Only what is about the topic has its name.
        let labels = [
            ("messaging_system".into(), "kafka".into()),
            ("messaging_destination_name".into(), topic.to_owned().into()),
        ];
        let of_topic = registry.sub_registry_with_labels(labels.into_iter());
        of_topic.register(
            "messaging_client_sent_messages",
            "Events that the broker has acknowledged",
            metrics.sent.clone(),
        );
        of_topic.register_with_unit(
            "messaging_client_operation_duration",
            "Time from a produce request to the broker's answer",
            Unit::Seconds,
            metrics.send_duration.clone(),
        );
        of_topic.register(
            "outbox_unacknowledged_events",
            "Events that this sidecar has taken for the partition and the broker has not acknowledged",
            metrics.pending.clone(),
        );
        registry.register_with_unit(
            "outbox_publication_delay",
            "Time from a change to the broker's acknowledgement of its event",
            Unit::Seconds,
            metrics.publication_delay.clone(),
        );
        registry.register(
            "outbox_publishing",
            "Whether this sidecar publishes (1) or not (0), as when another one does",
            metrics.publishing.clone(),
        );
        registry.register(
            "outbox_pushes_dropped",
            "Events that the component did not send to the sidecar because too many waited; the \
             sidecar reads them from the outbox table",
            metrics.dropped.clone(),
        );
        registry.register(
            "cache_invalidation_requests",
            "Events whose cached answers the component could not invalidate in Redis; the sidecar does",
            metrics.invalidation_requests.clone(),
        );
        registry.register(
            "cache_invalidation_failures",
            "Attempts of the sidecar to invalidate cached answers that Redis did not carry out; \
             each is repeated",
            metrics.invalidation_failures.clone(),
        );
        registry.register(
            "cache_invalidation_pending",
            "Whether cached answers still have to be invalidated (1) or not (0)",
            metrics.invalidation_pending.clone(),
        );
        registry.register(
            "outbox_events",
            "Rows of the outbox table, refused events among them, counted up to 100,000",
            metrics.outbox_events.clone(),
        );
        registry.register(
            "outbox_parked_events",
            "Events that the broker refuses and that wait for an operator: see `kafka-sidecar \
             parked list`",
            metrics.outbox_parked.clone(),
        );
        registry.register_with_unit(
            "outbox_oldest_event_age",
            "Age of the oldest row of the outbox table that is not refused, 0 if there is none",
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

    pub fn text(&self, format: Format) -> Result<String> {
        let mut text = String::new();
        let encoded = match format {
            Format::Text => prometheus_text::encode(&mut text, &self.registry),
            Format::OpenMetrics => text::encode(&mut text, &self.registry),
        };
        encoded.context("encoding the metrics")?;
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

    const OUTBOX: [&str; 3] = ["outbox_events ", "outbox_parked_events ", "outbox_oldest_event_age_seconds "];

    fn samples(metrics: &Metrics) -> [bool; 3] {
        let text = metrics.text(Format::Text).unwrap();
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

    #[test]
    fn each_format_is_written_as_its_readers_expect() {
        let metrics = Metrics::new("task_events");
        metrics.note_dropped(1);
        let text = metrics.text(Format::Text).unwrap();
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
        assert!(text.contains("# TYPE outbox_pushes_dropped_total counter\n"), "{text}");
        assert!(text.contains("\noutbox_pushes_dropped_total 1\n"), "{text}");
        let text = metrics.text(Format::OpenMetrics).unwrap();
        assert!(text.ends_with("# EOF\n") && text.contains("# UNIT "), "{text}");
        assert!(text.contains("# TYPE outbox_pushes_dropped counter\n"), "{text}");
    }

    #[test]
    fn only_metrics_of_the_topic_have_its_name() {
        let metrics = Metrics::new("task_events");
        metrics.note_acked(2, [Duration::ZERO].into_iter());
        metrics.note_send(2, Duration::ZERO, None);
        metrics.note_pending(2, 1);
        metrics.note_outbox(1, 1.0);
        metrics.note_outbox_events(1);
        let text = metrics.text(Format::Text).unwrap();
        let of_topic = ["messaging_client_", "outbox_unacknowledged_events"];
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let is_of_topic = of_topic.iter().any(|name| line.starts_with(name));
            for label in
                ["messaging_destination_name=\"task_events\"", "messaging_destination_partition_id=\"2\""]
            {
                assert_eq!(line.contains(label), is_of_topic, "{line}");
            }
        }
    }

    #[test]
    fn help_uses_no_words_of_the_house() {
        let text = Metrics::new("task_events").text(Format::Text).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
            let help = line.split_once(' ').unwrap().1.replace("`kafka-sidecar parked list`", "");
            for word in ["lane", "park", "sweep", "push", "term", "repair"] {
                assert!(!help.contains(word), "{line}");
            }
        }
    }

    #[test]
    fn the_build_and_the_process_are_told() {
        let text = Metrics::new("task_events").text(Format::Text).unwrap();
        let build = concat!("kafka_sidecar_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n");
        assert!(text.contains(build), "{text}");
        if cfg!(target_os = "linux") {
            let sample = |name: &str| -> f64 {
                let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
                line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
            };
            let now_s = chrono::Utc::now().timestamp() as f64;
            let age_s = now_s - sample("process_start_time_seconds");
            assert!((-2.0..86_400.0).contains(&age_s), "{age_s}");
            assert!(sample("process_cpu_seconds_total") >= 0.0);
            assert!(sample("process_resident_memory_bytes") > 1_000_000.0);
            assert!(sample("process_open_fds") >= 3.0);
        }
    }
}
