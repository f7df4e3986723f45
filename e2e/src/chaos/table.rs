//! What a run comes to, as a table in Markdown that can stand in a document.

use std::collections::BTreeMap;
use std::fmt;

use super::Options;
use super::checker::{Totals, Violation};
use super::faults::{Fault, Strike, counted};

pub struct Table {
    seed: u64,
    kafka: String,
    brokers: usize,
    rounds: usize,
    strikes: BTreeMap<Fault, usize>,
    skipped: Vec<(Fault, &'static str)>,
    counts: Vec<(String, usize)>,
    is_clean: bool,
}

impl Table {
    pub(super) fn new(options: &Options) -> Table {
        Table {
            seed: options.seed,
            kafka: options.kafka.to_string(),
            brokers: options.brokers,
            rounds: 0,
            strikes: BTreeMap::new(),
            skipped: Vec::new(),
            counts: Vec::new(),
            is_clean: true,
        }
    }

    pub(super) fn skipped(&mut self, fault: Fault, reason: &'static str) {
        self.skipped.push((fault, reason));
    }

    pub(super) fn struck(&mut self, strikes: &[Strike]) {
        self.rounds += 1;
        for (fault, count) in counted(strikes.iter()) {
            *self.strikes.entry(fault).or_default() += count;
        }
    }

    pub(super) fn count(&mut self, totals: &Totals) {
        let mut counts = vec![
            ("writes acknowledged".to_owned(), totals.acknowledged),
            ("writes refused".to_owned(), totals.refused),
            ("writes ambiguous".to_owned(), totals.ambiguous),
            ("of these, happened".to_owned(), totals.happened()),
            ("reads".to_owned(), totals.reads),
            ("of these, asked for writes before Redis failed only".to_owned(), totals.reads_excused),
            ("records on the topic".to_owned(), totals.records),
            ("of these, another producer's".to_owned(), totals.foreign),
            (
                "acknowledged, then lost by PostgreSQL (restored) before publication".to_owned(),
                totals.lost_by_database,
            ),
        ];
        for (reason, count) in &totals.duplicates {
            counts.push((format!("duplicated: {reason}"), *count));
        }
        for (violation, name) in [
            (Violation::Lost, "**lost**"),
            (Violation::Phantom, "**phantom**"),
            (Violation::Disordered, "**out of order**"),
            (Violation::Altered, "**altered**"),
            (Violation::Duplicated, "**duplicated without a reason**"),
            (Violation::Stale, "**stale reads**"),
        ] {
            counts.push((name.to_owned(), totals.violations.get(&violation).copied().unwrap_or_default()));
        }
        self.is_clean = totals.violations.is_empty();
        self.counts = counts;
    }

    /// Nothing was lost, invented, reordered, altered, repeated without a reason, or stale.
    pub fn is_clean(&self) -> bool {
        self.is_clean
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| Kafka {}, brokers: {}, seed {} | |", self.kafka, self.brokers, self.seed)?;
        writeln!(f, "| --- | ---: |")?;
        writeln!(f, "| rounds | {} |", self.rounds)?;
        writeln!(f, "| faults | {} |", self.strikes.values().sum::<usize>())?;
        for (fault, count) in &self.strikes {
            writeln!(f, "| · {fault} | {count} |")?;
        }
        for (fault, reason) in &self.skipped {
            writeln!(f, "| · {fault}: {reason} | skipped |")?;
        }
        for (name, count) in &self.counts {
            writeln!(f, "| {name} | {count} |")?;
        }
        Ok(())
    }
}
