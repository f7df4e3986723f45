//! The results as a picture: docs/performance/bench.svg.

use std::fs;

use anyhow::Result;
use xtask::progress::say;
use xtask::repository;

use crate::contender::Kind;
use crate::operation::Operation;
use crate::requests::{CLIENTS_USUAL, Figure};
use crate::results::Results;
use crate::svg::{Panel, PanelKind, Series, document};
use crate::tables::find;

const OPERATIONS: [Operation; 6] = [
    Operation::Create,
    Operation::Update,
    Operation::GetCached,
    Operation::Get,
    Operation::ListCached,
    Operation::List,
];

pub fn write(results: &Results) -> Result<()> {
    let dir = repository::root().join("docs/performance");
    fs::create_dir_all(&dir)?;
    let title = format!(
        "Everything on one machine with {} cores, the load included; medians of {} rounds of {} s",
        results.cores, results.rounds, results.seconds
    );
    let rows = [
        vec![at_usual_clients(results)],
        vec![
            over_clients(results, "Creations over clients", "requests/s", |figure| figure.per_s.median),
            over_clients(results, "The slowest hundredth of them", "p99, ms", |figure| figure.p99_ms.median),
        ],
        vec![to_kafka(results, "p50"), to_kafka(results, "p99")],
    ];
    let path = dir.join("bench.svg");
    fs::write(&path, document(&title, &rows))?;
    say("Wrote", path.strip_prefix(repository::root()).unwrap_or(&path).display());
    Ok(())
}

fn at_usual_clients(results: &Results) -> Panel {
    let kinds: Vec<Kind> = Kind::all().into_iter().filter(|kind| !kind.is_hello()).collect();
    let values = |kind: Kind| {
        let of =
            |operation| find(results, (operation, CLIENTS_USUAL, kind)).map(|figure| figure.per_s.median);
        OPERATIONS.into_iter().map(of).collect::<Vec<_>>()
    };
    let mut places: Vec<String> = OPERATIONS.iter().map(ToString::to_string).collect();
    let mut series: Vec<Series> = kinds
        .into_iter()
        .map(|kind| Series { name: kind.to_string(), color: color(kind), values: values(kind) })
        .collect();
    // A place of its own: a component that does nothing has no operations.
    places.push("hello".into());
    series.iter_mut().for_each(|series| series.values.push(None));
    for kind in Kind::all().into_iter().filter(|kind| kind.is_hello()) {
        let mut hello = vec![None; OPERATIONS.len()];
        let found = find(results, (Operation::Hello, CLIENTS_USUAL, kind));
        hello.push(found.map(|figure| figure.per_s.median));
        series.push(Series { name: kind.to_string(), color: color(kind), values: hello });
    }
    Panel {
        title: format!("Requests per second, {CLIENTS_USUAL} clients (logarithmic)"),
        y_label: "requests/s",
        x_label: "FastAPI caches no single tasks, and has no update",
        places,
        series,
        kind: PanelKind::Bars,
    }
}

fn over_clients(results: &Results, title: &str, y_label: &'static str, value: fn(&Figure) -> f64) -> Panel {
    let mut clients: Vec<u32> = results
        .requests
        .iter()
        .filter(|figure| figure.operation == Operation::Create)
        .map(|figure| figure.clients)
        .collect();
    clients.sort_unstable();
    clients.dedup();
    let series = Kind::servers().into_iter().map(|kind| Series {
        name: kind.to_string(),
        color: color(kind),
        values: clients
            .iter()
            .map(|count| find(results, (Operation::Create, *count, kind)).map(value))
            .collect(),
    });
    Panel {
        title: title.to_owned(),
        y_label,
        x_label: "clients",
        places: clients.iter().map(ToString::to_string).collect(),
        series: series.collect(),
        kind: PanelKind::Lines,
    }
}

fn to_kafka(results: &Results, which: &'static str) -> Panel {
    let mut rates: Vec<u32> = results.latency.iter().map(|figure| figure.writes_per_s).collect();
    rates.sort_unstable();
    rates.dedup();
    let value = |kind, rate| {
        let mut figures = results.latency.iter();
        let figure = figures.find(|figure| figure.contender == kind && figure.writes_per_s == rate)?;
        let spread = if which == "p50" { figure.from_request_p50_ms } else { figure.from_request_p99_ms };
        Some(spread.median)
    };
    let series = Kind::servers().into_iter().map(|kind| Series {
        name: kind.to_string(),
        color: color(kind),
        values: rates.iter().map(|rate| value(kind, *rate)).collect(),
    });
    Panel {
        title: format!("From a write's request to its record in Kafka, {which}"),
        y_label: "ms",
        x_label: "writes/s",
        places: rates.iter().map(ToString::to_string).collect(),
        series: series.collect(),
        kind: PanelKind::Lines,
    }
}

fn color(kind: Kind) -> &'static str {
    match kind {
        Kind::System => "#0969da",
        Kind::Spin => "#54aeff",
        Kind::Native => "#57606a",
        Kind::Peer => "#bf8700",
        Kind::Hello => "#8250df",
        Kind::SpinHello => "#c297ff",
        Kind::Statements => "#afb8c1",
    }
}
