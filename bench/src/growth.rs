//! How the figures of this system change when there is ten times more of something: tasks, clients,
//! partitions. Each is changed alone; a ratio of 1 means that it does not matter.

use anyhow::Result;
use serde::Serialize;
use xtask::progress::say;

use crate::Options;
use crate::backlog;
use crate::contender::{Contender, Kind, Setup};
use crate::latency;
use crate::operation::Operation;
use crate::platform::Platform;
use crate::requests::{self, CLIENTS_USUAL, SETUP};
use crate::usage;

const TIMES_MORE: i32 = 10;
const BACKLOG_EVENTS: i32 = 100_000;
const WRITES_PER_S: u32 = 100;
const WRITES_S: u32 = 5;

/// All figures under one set of conditions.
#[derive(Serialize)]
pub struct Column {
    pub name: String,
    pub requests: Vec<requests::Figure>,
    pub latency: latency::Figure,
    pub backlog: backlog::Figure,
    pub server_peak_mib: f64,
    pub sidecar_peak_mib: f64,
}

pub async fn measure(platform: &mut Platform, options: &Options) -> Result<Vec<Column>> {
    // A million tasks take longer to insert than all else here to measure.
    let usual = if options.quick { Setup { tasks: SETUP.tasks / 10, ..SETUP } } else { SETUP };
    let more = CLIENTS_USUAL * TIMES_MORE.cast_unsigned();
    let conditions = [
        ("usual", usual, CLIENTS_USUAL),
        ("10 × tasks", Setup { tasks: usual.tasks * TIMES_MORE, ..usual }, CLIENTS_USUAL),
        ("10 × clients", usual, more),
        ("10 × partitions", Setup { partitions: usual.partitions * TIMES_MORE, ..usual }, CLIENTS_USUAL),
    ];
    let mut columns = Vec::new();
    for (name, setup, clients) in conditions {
        let Setup { tasks, partitions } = setup;
        say("Measuring", format_args!("{name}: {tasks} tasks, {clients} clients, {partitions} partitions"));
        columns.push(column(platform, options, name, setup, clients).await?);
    }
    Ok(columns)
}

async fn column(
    platform: &mut Platform,
    options: &Options,
    name: &str,
    setup: Setup,
    clients: u32,
) -> Result<Column> {
    let contender = Contender::start(platform, Kind::System, setup).await?;
    let late = latency::sample(platform, &contender, setup, WRITES_PER_S, WRITES_S).await?;
    let mut figures = Vec::new();
    for operation in Operation::of(Kind::System) {
        let sample = requests::sample(platform, &contender, operation, clients, options.seconds()).await?;
        figures.push(requests::figure((Kind::System, operation, clients), &[sample]));
    }
    let peak = |wanted| {
        let processes = contender.processes();
        let found = processes.iter().find(|(name, _)| *name == wanted);
        found.map_or(f64::NAN, |(_, process)| usage::peak_mib(process))
    };
    let (server_peak_mib, sidecar_peak_mib) = (peak("server"), peak("sidecar"));
    contender.stop(platform).await?;
    Ok(Column {
        name: name.to_owned(),
        requests: figures,
        latency: latency::figure(Kind::System, WRITES_PER_S, &[late]),
        backlog: backlog::compare(platform, BACKLOG_EVENTS, setup.partitions, 1).await?,
        server_peak_mib,
        sidecar_peak_mib,
    })
}
