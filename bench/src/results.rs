//! What was measured, written after each part, for programs: `.data/bench/results.json`.

use std::path::PathBuf;
use std::{fs, thread};

use anyhow::{Context as _, Result};
use serde::Serialize;
use xtask::repository;

use crate::{Options, backlog, growth, latency, requests, startup};

#[derive(Serialize)]
pub struct Results {
    pub quick: bool,
    pub rounds: u32,
    pub seconds: u32,
    pub cores: usize,
    pub wasm_bytes: u64,
    pub start: Vec<startup::Figure>,
    pub requests: Vec<requests::Figure>,
    pub memory: Vec<requests::Memory>,
    pub latency: Vec<latency::Figure>,
    pub backlog: Vec<backlog::Figure>,
    pub growth: Vec<growth::Column>,
}

impl Results {
    pub fn new(options: &Options) -> Result<Results> {
        let wasm = repository::root().join("target/wasm32-wasip2/guest/task_api.wasm");
        let wasm =
            fs::metadata(wasm).context("looking at the component: run this with `cargo xtask bench`")?;
        Ok(Results {
            quick: options.quick,
            rounds: options.rounds(),
            seconds: options.seconds(),
            cores: thread::available_parallelism()?.get(),
            wasm_bytes: wasm.len(),
            start: Vec::new(),
            requests: Vec::new(),
            memory: Vec::new(),
            latency: Vec::new(),
            backlog: Vec::new(),
            growth: Vec::new(),
        })
    }

    pub fn save(&self) -> Result<()> {
        fs::write(Results::path()?, serde_json::to_vec_pretty(self)?).context("writing the results")
    }

    fn path() -> Result<PathBuf> {
        let dir = repository::data_dir()?.join("bench");
        repository::create_dir(&dir)?;
        Ok(dir.join("results.json"))
    }
}
