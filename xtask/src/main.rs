//! `cargo xtask`: the commands of a developer of this repository, in Rust, so that they run
//! wherever the product builds.

use std::process::ExitCode;

use clap::Parser;

mod cargo; // what is compiled
mod host; // what runs the component
mod up; // everything, until Ctrl-C
mod consume; // what `up` put on the topic
mod test; // everything, checked
mod fuzz; // what strangers send
mod chaos; // everything, broken and healed
mod bench; // how fast it is

/// Runs, watches and tests the task API.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Task {
    /// Build and run everything: services, sidecar, application. Ctrl-C stops it all; the data stays
    Up(up::Options),
    /// Print the topic of the running `up` with Kafka's own console consumer
    Consume(consume::Options),
    /// Format, lints, dependencies, unit tests, and the end-to-end tests on real services
    Test(test::Options),
    /// Bend what the component and the sidecar parse until it breaks, for a bounded time; wants nightly Rust
    Fuzz(fuzz::Options),
    /// Break services and programs at random moments while clients write, and check that nothing is lost
    Chaos(chaos::Options),
    /// Measure beside others, print tables and draw a chart; `bench --help` says what and how
    Bench(bench::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Up(options) => up::run(options).await,
        Task::Consume(options) => consume::run(options).await,
        Task::Test(options) => test::run(options).await,
        Task::Fuzz(options) => fuzz::run(options).await,
        Task::Chaos(options) => chaos::run(options).await,
        Task::Bench(options) => bench::run(options).await,
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
