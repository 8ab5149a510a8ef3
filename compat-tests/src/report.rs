//! Text report: every difference that is not intended, and a table with a line per release.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::exceptions::{Exceptions, Mode, Stale};
use crate::goldens::ORIGINALS;
use crate::runner::Outcome;

/// Totals of one release in one mode.
#[derive(Debug, Default)]
struct Row {
    scripts: usize,
    frames: usize,
    different: usize,
    listed: usize,
    replays: usize,
    failed: usize,
}

/// The report's text, and the numbers of passed and failed scripts.
#[derive(Debug, Default)]
pub struct Report {
    rows: BTreeMap<(usize, &'static str), Row>,
    details: String,
    /// Differences that did not occur again on replay.
    passing: String,
    ids: BTreeMap<String, usize>,
}

impl Report {
    /// Adds the outcome of a script, without the intended differences.
    pub fn add(&mut self, outcome: &Outcome, exceptions: &mut Exceptions) {
        let mode = outcome.mode.map_or("original", Mode::name);
        let age = ORIGINALS.iter().position(|o| o.version == outcome.version).unwrap_or(ORIGINALS.len());
        let row = self.rows.entry((age, mode)).or_default();
        row.scripts += 1;
        row.frames += outcome.comparison.frames;
        row.replays += outcome.plays.saturating_sub(1);
        let mut unlisted = Vec::new();
        for difference in &outcome.comparison.differences {
            let listed = outcome
                .mode
                .and_then(|m| exceptions.cover(m, outcome.version, &outcome.scenario, difference));
            match listed {
                Some(id) => {
                    row.listed += 1;
                    *self.ids.entry(id.to_owned()).or_default() += 1;
                }
                None => unlisted.push(difference),
            }
        }
        row.different += unlisted.len();
        if unlisted.is_empty() && outcome.error.is_none() {
            if !outcome.earlier.is_empty() {
                let _ = writeln!(
                    self.passing,
                    "--- only once: {} {} ({mode})",
                    outcome.version, outcome.scenario
                );
            }
            for difference in &outcome.earlier {
                let _ = writeln!(self.passing, "  {}", difference.to_string().replace('\n', "\n  "));
            }
            return;
        }
        row.failed += 1;
        let _ = writeln!(self.details, "--- {} {} ({mode})", outcome.version, outcome.scenario);
        if let Some(error) = &outcome.error {
            let _ = writeln!(self.details, "  could not be played: {error}");
        }
        for difference in unlisted {
            let _ = writeln!(self.details, "  {}", difference.to_string().replace('\n', "\n  "));
        }
        for note in outcome.actual.iter().flat_map(|a| &a.records) {
            if let crate::transcript::RecordedEvent::Note(note) = &note.event {
                let _ = writeln!(self.details, "  note at {} ms: {note}", record_time(outcome, note));
            }
        }
    }

    /// Returns the numbers of passed and failed scripts.
    pub fn totals(&self) -> (usize, usize) {
        let failed = self.rows.values().map(|r| r.failed).sum();
        (self.rows.values().map(|r| r.scripts).sum::<usize>() - failed, failed)
    }

    /// Returns the report. `stale` are the entries that were not needed.
    pub fn print(&self, stale: &[Stale]) -> String {
        let mut out = format!("{}{}", self.passing, self.details);
        if !out.is_empty() {
            out.push('\n');
        }
        for line in stale {
            let _ = writeln!(out, "{} exception: {}", if line.certain { "stale" } else { "idle" }, line.line);
        }
        let _ = writeln!(
            out,
            "| original | mode     | scripts | frames | differences | listed | replays | failed |"
        );
        let _ = writeln!(
            out,
            "|----------|----------|--------:|-------:|------------:|-------:|--------:|-------:|"
        );
        for ((age, mode), row) in &self.rows {
            let version = ORIGINALS.get(*age).map_or("?", |o| o.version);
            let Row { scripts, frames, different, listed, replays, failed } = row;
            let _ = writeln!(
                out,
                "| {version:8} | {mode:8} | {scripts:7} | {frames:6} | {different:11} | {listed:6} | {replays:7} | {failed:6} |"
            );
        }
        if !self.ids.is_empty() {
            let ids = self.ids.iter().map(|(id, count)| format!("{id} ({count})"));
            let _ = writeln!(out, "listed: {}", ids.collect::<Vec<_>>().join(", "));
        }
        let (passed, failed) = self.totals();
        let _ = writeln!(out, "{passed} passed, {failed} failed");
        out
    }
}

fn record_time(outcome: &Outcome, note: &str) -> u64 {
    let records = outcome.actual.iter().flat_map(|a| &a.records);
    let mut times = records
        .filter(|r| matches!(&r.event, crate::transcript::RecordedEvent::Note(n) if n == note))
        .map(|r| r.t);
    times.next().unwrap_or(0)
}
