//! The results for people: what there is to reach, then all figures, as Markdown.

use std::collections::BTreeSet;

use crate::contender::Kind;
use crate::operation::Operation;
use crate::requests::{CLIENTS_MANY, CLIENTS_USUAL, Figure};
use crate::results::Results;
use crate::stats::Spread;

/// Who a ratio is about, and whom it compares with.
type Pair = (Operation, u32, Kind);

pub fn print(results: &Results) {
    println!(
        "\n{} cores, shared with the load; {} rounds of {} s; medians (lowest–highest).",
        results.cores, results.rounds, results.seconds
    );
    targets(results);
    requests(results);
    processor(results);
    memory(results);
    latency(results);
    backlog(results);
    start(results);
    growth(results);
}

/// The ratios that are to be reached.
fn targets(results: &Results) {
    let mut rows = Vec::new();
    let mut row = |work: &str, to_reach: &str, found: Option<(f64, String)>, is_reached: fn(f64) -> bool| {
        if let Some((value, shown)) = found {
            let verdict = if is_reached(value) { "yes" } else { "no" };
            rows.push(format!("| {work} | {to_reach} | {shown} | {verdict} |"));
        }
    };
    let per_s = |what: Pair, than: Pair| {
        let ratio = find(results, what)?.per_s.median / find(results, than)?.per_s.median;
        Some((ratio, format!("{ratio:.2} ×")))
    };
    let p99 = |what: Pair, than: Pair| {
        let ratio = find(results, what)?.p99_ms.median / find(results, than)?.p99_ms.median;
        Some((ratio, format!("{ratio:.2} ×")))
    };
    let usual = |operation, kind| (operation, CLIENTS_USUAL, kind);
    let many = |kind| (Operation::Create, CLIENTS_MANY, kind);
    for (on, system, hello) in
        [("", Kind::System, Kind::Hello), (", on spin up", Kind::Spin, Kind::SpinHello)]
    {
        let [create, get, list] =
            [Operation::Create, Operation::GetCached, Operation::ListCached].map(|work| usual(work, system));
        let [native, hello] = [usual(Operation::Create, Kind::Native), usual(Operation::Hello, hello)];
        let peer = |(work, clients, _): Pair| (work, clients, Kind::Peer);
        let mut row = |work: &str, to_reach: &str, found, is_reached: fn(f64) -> bool| {
            row(&format!("{work}{on}"), to_reach, found, is_reached);
        };
        row("create", "≥ 5 × FastAPI", per_s(create, peer(create)), |x| x >= 5.0);
        row("create, p99", "≤ 0.25 × FastAPI", p99(create, peer(create)), |x| x <= 0.25);
        row("create", "≥ 0.4 × native", per_s(create, native), |x| x >= 0.4);
        row("get, cached", "≥ 8 × FastAPI", per_s(get, peer(get)), |x| x >= 8.0);
        row("get, cached", "≥ 0.75 × hello", per_s(get, hello), |x| x >= 0.75);
        row("list, cached", "≥ 3 × FastAPI", per_s(list, peer(list)), |x| x >= 3.0);
        row("list, cached", "≥ 0.7 × hello", per_s(list, hello), |x| x >= 0.7);
        let errors = find(results, many(system)).map(|figure| figure.errors as f64);
        row("create, 512 clients", "no error", errors.map(|errors| (errors, errors.to_string())), |x| {
            x == 0.0
        });
        row("create, 512 clients, p99", "< FastAPI", p99(many(system), many(Kind::Peer)), |x| x < 1.0);
    }
    let at_100 = results.latency.iter().find(|f| f.contender == Kind::System && f.writes_per_s == 100);
    let ms = |spread: &Spread| (spread.median, format!("{:.1} ms", spread.median));
    row("commit to Kafka at 100/s, p50", "≤ 5 ms", at_100.map(|f| ms(&f.from_response_p50_ms)), |x| {
        x <= 5.0
    });
    row("commit to Kafka at 100/s, p99", "≤ 20 ms", at_100.map(|f| ms(&f.from_response_p99_ms)), |x| {
        x <= 20.0
    });
    let backlog = results.backlog.first().map(|figure| {
        let ratio = figure.sidecar_per_s.median / figure.plain_per_s.median;
        (ratio, format!("{ratio:.2} × at {} events", figure.events))
    });
    row("backlog", "≥ 0.5 × plain loop", backlog, |x| x >= 0.5);
    let mib = results.wasm_bytes as f64 / 1e6;
    row("the .wasm", "≤ 1.5 MB", Some((mib, format!("{mib:.2} MB"))), |x| x <= 1.5);
    let first = results.start.iter().find(|figure| figure.contender == Kind::System);
    row(
        "first 201",
        "≤ 1,000 ms",
        first.map(|f| (f.later_ms.median, format!("{:.0} ms", f.later_ms.median))),
        |x| x <= 1_000.0,
    );
    let sidecar = results.memory.iter().filter(|m| m.contender == Kind::System && m.process == "sidecar");
    let drained = results.backlog.iter().map(|figure| figure.sidecar_peak_mib);
    let peak = sidecar.map(|memory| memory.peak_mib).chain(drained).reduce(f64::max);
    row("sidecar at its peak", "≤ 40 MiB", peak.map(|mib| (mib, format!("{mib:.0} MiB"))), |x| x <= 40.0);

    println!(
        "\n| work, {CLIENTS_USUAL} clients | to reach | measured | reached |\n| --- | --- | ---: | --- |"
    );
    rows.iter().for_each(|row| println!("{row}"));
}

fn requests(results: &Results) {
    if results.requests.is_empty() {
        return;
    }
    println!(
        "\n| | clients | contender | requests/s | p50, ms | p99, ms | longest, ms | errors | × FastAPI | × native |"
    );
    println!("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut figures: Vec<&Figure> = results.requests.iter().collect();
    figures.sort_by_key(|figure| (figure.operation, figure.clients, figure.contender));
    for figure in figures {
        let Figure { contender, operation, clients, per_s, p50_ms, p99_ms, max_ms, errors, .. } = figure;
        let ratio = |than| match find(results, (*operation, *clients, than)) {
            Some(other) if than != *contender => format!("{:.2}", per_s.median / other.per_s.median),
            _ => String::new(),
        };
        println!(
            "| {operation} | {clients} | {contender} | {} | {} | {} | {max_ms:.0} | {errors} | {} | {} |",
            spread(per_s, 0),
            spread(p50_ms, 2),
            spread(p99_ms, 2),
            ratio(Kind::Peer),
            ratio(Kind::Native),
        );
    }
}

fn processor(results: &Results) {
    let usual = || results.requests.iter().filter(|figure| figure.clients == CLIENTS_USUAL);
    let names: BTreeSet<&String> = usual().flat_map(|figure| figure.cpu_us.keys()).collect();
    if names.is_empty() {
        return;
    }
    let heads: String = names.iter().map(|name| format!(" {name} |")).collect();
    println!("\n| processor time per request, µs, {CLIENTS_USUAL} clients | contender |{heads} all |");
    println!("| --- | --- |{} ---: |", " ---: |".repeat(names.len()));
    let mut figures: Vec<&Figure> = usual().collect();
    figures.sort_by_key(|figure| (figure.operation, figure.contender));
    for figure in figures {
        let cells: String = names
            .iter()
            .map(|name| figure.cpu_us.get(*name).map_or(" |".to_owned(), |us| format!(" {us:.0} |")))
            .collect();
        let all: f64 = figure.cpu_us.values().sum();
        println!("| {} | {} |{cells} {all:.0} |", figure.operation, figure.contender);
    }
}

fn memory(results: &Results) {
    if !results.memory.is_empty() {
        println!("\n| peak memory, MiB | process | |\n| --- | --- | ---: |");
    }
    for memory in &results.memory {
        println!("| {} | {} | {:.0} |", memory.contender, memory.process, memory.peak_mib);
    }
}

fn latency(results: &Results) {
    if !results.latency.is_empty() {
        println!(
            "\n| to Kafka | writes/s | answered/s | response to record, ms: p50 | p99 | request to record: p50 | p99 | errors |"
        );
        println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    }
    for figure in &results.latency {
        println!(
            "| {} | {} | {:.0} | {} | {} | {} | {} | {} |",
            figure.contender,
            figure.writes_per_s,
            figure.written_per_s,
            spread(&figure.from_response_p50_ms, 1),
            spread(&figure.from_response_p99_ms, 1),
            spread(&figure.from_request_p50_ms, 1),
            spread(&figure.from_request_p99_ms, 1),
            figure.errors,
        );
    }
}

fn backlog(results: &Results) {
    if !results.backlog.is_empty() {
        println!(
            "\n| backlog | sidecar, events/s | plain loop, events/s | ratio | sidecar's peak, MiB | processor time per event, µs |"
        );
        println!("| ---: | ---: | ---: | ---: | ---: | --- |");
    }
    for figure in &results.backlog {
        let cpu: Vec<_> = figure.cpu_us.iter().map(|(name, us)| format!("{name} {us:.1}")).collect();
        println!(
            "| {} | {} | {} | {:.2} | {:.0} | {} |",
            figure.events,
            spread(&figure.sidecar_per_s, 0),
            spread(&figure.plain_per_s, 0),
            figure.sidecar_per_s.median / figure.plain_per_s.median,
            figure.sidecar_peak_mib,
            cpu.join(", "),
        );
    }
}

fn start(results: &Results) {
    if !results.start.is_empty() {
        println!("\n| start to first 201, ms | the first | later ones |\n| --- | ---: | ---: |");
    }
    for figure in &results.start {
        println!("| {} | {:.0} | {} |", figure.contender, figure.first_ms, spread(&figure.later_ms, 0));
    }
}

fn growth(results: &Results) {
    let Some((usual, more)) = results.growth.split_first() else { return };
    let heads: String = more.iter().map(|column| format!(" {} | ratio |", column.name)).collect();
    println!("\n| this system | {} |{heads}", usual.name);
    println!("| --- | ---: |{}", " ---: | ---: |".repeat(more.len()));
    let row = |name: String, value: &dyn Fn(&crate::growth::Column) -> f64, digits: usize| {
        let base = value(usual);
        let cells: String = more
            .iter()
            .map(|column| format!(" {:.digits$} | {:.2} |", value(column), value(column) / base))
            .collect();
        println!("| {name} | {base:.digits$} |{cells}");
    };
    for (place, figure) in usual.requests.iter().enumerate() {
        row(format!("{}, requests/s", figure.operation), &|column| column.requests[place].per_s.median, 0);
        row(format!("{}, p99, ms", figure.operation), &|column| column.requests[place].p99_ms.median, 1);
    }
    row("commit to Kafka, p50, ms".into(), &|column| column.latency.from_response_p50_ms.median, 1);
    row("commit to Kafka, p99, ms".into(), &|column| column.latency.from_response_p99_ms.median, 1);
    row("backlog, events/s".into(), &|column| column.backlog.sidecar_per_s.median, 0);
    row("backlog, plain loop, events/s".into(), &|column| column.backlog.plain_per_s.median, 0);
    row("server, peak MiB".into(), &|column| column.server_peak_mib, 0);
    row("sidecar, peak MiB".into(), &|column| column.sidecar_peak_mib, 0);
}

pub fn find(results: &Results, (operation, clients, kind): Pair) -> Option<&Figure> {
    let is_it =
        |figure: &&Figure| (figure.operation, figure.clients, figure.contender) == (operation, clients, kind);
    results.requests.iter().find(is_it)
}

fn spread(Spread { median, min, max }: &Spread, digits: usize) -> String {
    if min == max {
        return format!("{median:.digits$}");
    }
    format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
}
