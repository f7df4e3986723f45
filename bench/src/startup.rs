//! From the start of a process to its first 201, everything else being up. minispin finds the compiled
//! code in its cache but for the first time, which is told apart.

use anyhow::Result;
use serde::Serialize;
use xtask::progress::say;

use crate::Options;
use crate::contender::{Contender, Kind, Setup};
use crate::platform::Platform;
use crate::stats::Spread;

const STARTS: usize = 5;
const SETUP: Setup = Setup { tasks: 1_000, partitions: 3 };

#[derive(Serialize)]
pub struct Figure {
    pub contender: Kind,
    pub first_ms: f64,
    pub later_ms: Spread,
}

pub async fn measure(platform: &mut Platform, options: &Options) -> Result<Vec<Figure>> {
    let starts = if options.quick { STARTS / 2 } else { STARTS };
    let mut figures = Vec::new();
    for contender in Kind::servers() {
        say("Measuring", format_args!("the start of {contender}"));
        let mut times_ms = Vec::new();
        for _ in 0..=starts {
            let mut started = Contender::prepare(platform, contender, SETUP).await?;
            started.start_sidecar(platform).await?;
            times_ms.push(started.start_application(platform).await?.as_secs_f64() * 1e3);
            started.stop(platform).await?;
        }
        let later_ms = Spread::of(times_ms[1..].iter().copied());
        say("", format_args!("first {:.0} ms, later {:.0} ms", times_ms[0], later_ms.median));
        figures.push(Figure { contender, first_ms: times_ms[0], later_ms });
    }
    Ok(figures)
}
