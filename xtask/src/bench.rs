//! `cargo xtask bench`: figures, printed and judged as ratios by who reads them; nothing here fails a build.

mod lists; // a page of a list, however many tasks there are
mod outbox; // a pass of the sweep, however many events went through

use std::process::ExitCode;

use anyhow::Result;

#[derive(clap::Subcommand)]
pub(crate) enum Options {
    /// The statement of a page with 1,000 and with 1,000,000 tasks: first and last page in each order, each filter
    Lists(lists::Options),
    /// The sweep's page and the removal while 1,000,000 events go through the outbox, and what could slow them down
    Outbox(outbox::Options),
}

pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    match options {
        Options::Lists(options) => lists::run(options).await,
        Options::Outbox(options) => outbox::run(options).await,
    }
}
