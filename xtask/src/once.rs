//! Directories that are filled once, and used ever after.
//!
//! Invariant: such a directory is complete or absent, and is never changed: it is filled under another name, then renamed.

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::progress::say;
use crate::repository;

/// Fills `target` unless it is there already. `name` is its own among its neighbours; `title` is for those who wait.
pub fn filled(target: &Path, name: &str, title: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if target.is_dir() {
        return Ok(());
    }
    let parent = target.parent().context("a directory of its own")?;
    repository::create_dir(parent)?;
    let lock = File::create(parent.join(format!("{name}.lock")))?;
    lock.lock().context("waiting for another process that fetches the same")?;
    if target.is_dir() {
        return Ok(());
    }
    let started = Instant::now();
    say("Fetching", format_args!("{title}, once"));
    let unfinished = parent.join(format!("{name}.unfinished"));
    let _ = fs::remove_dir_all(&unfinished); // of a process that was killed, for the lock is ours
    repository::create_dir(&unfinished)?;
    fill(&unfinished)?;
    fs::rename(&unfinished, target)?;
    say("Fetched", format_args!("{title} in {:.1} s", started.elapsed().as_secs_f32()));
    Ok(())
}
