//! Kills what this process started, once this process is gone without having done so itself: SIGKILL, an abort, `exit`
//! while services sit in statics.
//!
//! The watchdog is a shell that reads from a pipe which process groups are running. The pipe ends with its only writer,
//! this process, and then every group that is still on the list is killed. Unlike the kernel's parent-death signal this
//! needs no unsafe code, works on macOS, does not take the end of a thread for the end of the process, and reaches groups
//! that are stopped. The moment between a child's start and its line in the pipe is not covered.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result};
use rustix::process::Pid;

const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
while read -r change group; do
    others=
    for known in $groups; do
        [ "$known" = "$group" ] || others="$others $known"
    done
    case $change in
        started) groups="$others $group" ;;
        ended) groups=$others ;;
    esac
done
for group in $groups; do
    kill -s KILL -- "-$group" 2>/dev/null
done
"#;

pub(crate) fn started(group: Pid) -> Result<()> {
    tell("started", group)
}

/// The group is empty: from now on its number may come to mean another one.
pub(crate) fn ended(group: Pid) -> Result<()> {
    tell("ended", group)
}

fn tell(change: &str, group: Pid) -> Result<()> {
    static WATCHDOG: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    static START: Mutex<()> = Mutex::new(());
    let watchdog = match WATCHDOG.get() {
        Some(watchdog) => watchdog,
        None => {
            let _one_at_a_time = START.lock().unwrap_or_else(PoisonError::into_inner);
            match WATCHDOG.get() {
                Some(watchdog) => watchdog,
                None => {
                    let watchdog = start()?;
                    WATCHDOG.get_or_init(|| Mutex::new(watchdog))
                }
            }
        }
    };
    let mut pipe = watchdog.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(pipe, "{change} {group}", group = group.as_raw_nonzero())
        .context("telling the watchdog about a process")
}

fn start() -> Result<ChildStdin> {
    let mut shell = Command::new("sh")
        .args(["-c", SCRIPT, "xtask-watchdog"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("starting the watchdog, a shell")?;
    shell.stdin.take().context("the watchdog has no standard input")
}
