//! What a process costs: processor time and memory, with the processes that descend from it. Linux only,
//! from `/proc`; elsewhere there are no figures.

use std::collections::BTreeMap;
use std::fs;

use xtask::process::Process;

/// Of a second, on every Linux that there is (`getconf CLK_TCK`).
const TICKS_PER_S: f64 = 100.0;

/// Seconds of processor time by name, since each was started.
pub type Times = BTreeMap<&'static str, f64>;

/// What was used between two looks.
pub fn between(before: &Times, after: &Times) -> Times {
    after.iter().map(|(name, seconds)| (*name, seconds - before.get(name).unwrap_or(&0.0))).collect()
}

pub fn times<'a>(processes: impl IntoIterator<Item = (&'static str, &'a Process)>) -> Times {
    let all = all();
    processes.into_iter().map(|(name, process)| (name, ticks(&all, process.id()) / TICKS_PER_S)).collect()
}

/// Of this process and of its children that have ended, such as wrk: the load.
pub fn load_s() -> f64 {
    all().get(&std::process::id()).map_or(0.0, |stat| (stat.own_ticks + stat.former_ticks) / TICKS_PER_S)
}

/// MiB that the process and its descendants had at their peaks; what they share counts for each.
pub fn peak_mib(process: &Process) -> f64 {
    let all = all();
    let kib: f64 = family(&all, process.id()).filter_map(peak_kib).sum();
    kib / 1024.0
}

struct Stat {
    parent: u32,
    own_ticks: f64,
    /// Of children that have ended.
    former_ticks: f64,
}

fn all() -> BTreeMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, stat(&fs::read_to_string(entry.path().join("stat")).ok()?)?))
        })
        .collect()
}

/// `pid (name) state parent …`, where the name may hold spaces and brackets; proc(5) numbers the fields.
fn stat(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|ticks| ticks.parse::<f64>().ok());
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own_ticks: ticks(14)? + ticks(15)?,
        former_ticks: ticks(16)? + ticks(17)?,
    })
}

/// PostgreSQL's and the peer's processes have children.
fn family(all: &BTreeMap<u32, Stat>, ancestor: u32) -> impl Iterator<Item = u32> {
    let mut family = vec![ancestor];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(all.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family.into_iter()
}

/// A child that ends is counted by its parent from then on, so the sum never falls.
fn ticks(all: &BTreeMap<u32, Stat>, pid: u32) -> f64 {
    family(all, pid).filter_map(|pid| all.get(&pid)).map(|stat| stat.own_ticks + stat.former_ticks).sum()
}

fn peak_kib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_move_the_fields() {
        let line = "7 (a) b (c)) S 1 7 7 0 -1 4194304 9 0 0 0 30 12 5 6 20 0 1 0 100 0 0";
        let stat = stat(line).unwrap();
        assert_eq!((stat.parent, stat.own_ticks, stat.former_ticks), (1, 42.0, 11.0));
    }
}
