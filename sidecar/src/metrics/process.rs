//! What Prometheus' own clients tell of their process, under the same names. Read from /proc when
//! somebody asks; where it cannot be read there are no samples.

use std::fmt;

use procfs::ProcResult;
use procfs::process::{LimitValue, Process};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

#[derive(Debug)]
pub struct OfProcess;

struct State {
    cpu_s: f64,
    /// Since the epoch.
    started_s: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    open_files: u64,
    open_files_max: Option<u64>,
}

impl State {
    fn read() -> ProcResult<State> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks_per_s = procfs::ticks_per_second() as f64;
        Ok(State {
            cpu_s: (stat.utime + stat.stime) as f64 / ticks_per_s,
            started_s: procfs::boot_time_secs()? as f64 + stat.starttime as f64 / ticks_per_s,
            resident_bytes: stat.rss * procfs::page_size(),
            virtual_bytes: stat.vsize,
            open_files: process.fd_count()? as u64,
            open_files_max: match process.limits()?.max_open_files.soft_limit {
                LimitValue::Value(limit) => Some(limit),
                LimitValue::Unlimited => None,
            },
        })
    }
}

impl Collector for OfProcess {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Ok(state) = State::read() else { return Ok(()) };
        let mut tell = |name: &str, help: &str, unit: Option<&Unit>, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
        };
        let (seconds, bytes) = (Some(&Unit::Seconds), Some(&Unit::Bytes));
        let gauge = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        tell("process_cpu", "User and system CPU time", seconds, &ConstCounter::new(state.cpu_s))?;
        let started = ConstGauge::new(state.started_s);
        tell("process_start_time", "When the process began, since the epoch", seconds, &started)?;
        tell("process_resident_memory", "Resident memory", bytes, &gauge(state.resident_bytes))?;
        tell("process_virtual_memory", "Virtual memory", bytes, &gauge(state.virtual_bytes))?;
        tell("process_open_fds", "Open file descriptors", None, &gauge(state.open_files))?;
        match state.open_files_max {
            Some(max) => tell("process_max_fds", "Limit on open file descriptors", None, &gauge(max)),
            None => Ok(()),
        }
    }
}
