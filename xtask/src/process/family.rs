//! Who descends from a process. PostgreSQL's children lead sessions of their own, so that a signal to the group of the
//! first process misses them.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::Pid;

/// Children of `ancestor`, their children, and so on.
pub(super) fn descendants(ancestor: Pid) -> Result<Vec<Pid>> {
    let parents = parents()?;
    let mut family = vec![ancestor];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family.remove(0);
    Ok(family)
}

/// False for a process that is dead and waits for its parent to take notice.
pub(super) fn alive(pid: Pid) -> bool {
    match fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) {
        Ok(stat) => !after_name(&stat).starts_with('Z'),
        Err(_) if fs::exists("/proc/self/stat").unwrap_or(false) => false,
        Err(_) => rustix::process::test_kill_process(pid).is_ok(),
    }
}

/// Every process with its parent: from `/proc` where there is one, else from `ps`, which small Linux images lack.
fn parents() -> Result<Vec<(Pid, Pid)>> {
    if !fs::exists("/proc/self/stat").unwrap_or(false) {
        let ps = Command::new("ps")
            .args(["-A", "-o", "pid=,ppid="])
            .output()
            .context("listing processes with ps")?;
        return Ok(String::from_utf8_lossy(&ps.stdout).lines().filter_map(pair).collect());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // Processes end while we read.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let parent = after_name(&stat).split_whitespace().nth(1).unwrap_or_default();
        found.extend(pair(&format!("{pid} {parent}")));
    }
    Ok(found)
}

/// `pid (name) state parent …`, where the name may hold spaces and brackets.
fn after_name(stat: &str) -> &str {
    stat.rsplit_once(") ").map_or("", |(_, rest)| rest)
}

fn pair(line: &str) -> Option<(Pid, Pid)> {
    let mut numbers = line.split_whitespace().map(|number| number.parse().ok().and_then(Pid::from_raw));
    Some((numbers.next()??, numbers.next()??))
}
