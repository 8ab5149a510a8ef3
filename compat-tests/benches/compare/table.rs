//! The table of results, line by line, as Markdown and as JSON. Pure.

use std::fmt::Write as _;

use compat_tests::summary::Summary;
use serde::Serialize;

use crate::figures::{Figure, Sample, Target, digits};
use crate::works::{Comparison, Row, Work};

/// Samples of one work: per turn, one per run.
pub type Turns = Vec<Vec<Sample>>;

/// A line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Name of the work.
    pub work: &'static str,
    /// Description of the work.
    pub text: &'static str,
    /// Measured figure.
    pub figure: Figure,
    /// Unit.
    pub unit: &'static str,
    /// Participant.
    pub whose: String,
    /// Values of the runs.
    pub value: Summary,
    /// CPU load of the participant, in % of a core.
    pub busy: Option<f64>,
    /// CPU load of the load generator, in % of a core.
    pub load_busy: Option<f64>,
    /// Participant compared with.
    pub comparison: Option<String>,
    /// Values of the participant compared with.
    pub other: Option<Summary>,
    /// Ratios, turn by turn.
    pub ratio: Option<Summary>,
    /// Target.
    pub target: Option<String>,
    /// True if the target is met.
    pub met: Option<bool>,
}

/// Returns the lines of a work, without those that were not measured.
pub fn lines(work: &Work, turns: &Turns) -> Vec<Line> {
    work.rows.iter().filter_map(|row| line(work, row, turns)).collect()
}

fn line(work: &Work, row: &Row, turns: &Turns) -> Option<Line> {
    let of = |run| column(turns, run, row.figure);
    let values = of(row.run);
    let median = |figure| Summary::from_values(column(turns, row.run, figure)).map(|summary| summary.median);
    let name = |run: usize| work.runs.get(run).map(|(party, _)| party.name());
    let (others, comparison) = match row.comparison {
        Comparison::Nothing => (None, None),
        Comparison::Run(run) => (Some(of(run)), name(run)),
        Comparison::Lower(one, other) => {
            let lower = of(one).into_iter().zip(of(other)).map(|(one, other)| one.min(other));
            (Some(lower.collect()), Some("the slower".into()))
        }
    };
    // Ratios are taken per turn: a disturbance affects all participants of a turn.
    let ratios = others.as_ref().map(|others: &Vec<f64>| -> Vec<f64> {
        values.iter().zip(others).map(|(value, other)| value / other).collect()
    });
    let value = Summary::from_values(values)?;
    let ratio = ratios.and_then(Summary::from_values);
    if comparison.is_some() && ratio.is_none() {
        return None;
    }
    let judged = ratio.unwrap_or(value).median;
    Some(Line {
        work: work.name,
        text: work.text,
        figure: row.figure,
        unit: row.figure.unit(),
        whose: name(row.run)?,
        value,
        busy: median(Figure::Busy),
        load_busy: median(Figure::LoadBusy),
        comparison,
        other: others.and_then(Summary::from_values),
        ratio,
        target: row.target.map(|target| target.text(row.comparison != Comparison::Nothing)),
        met: row.target.map(|target: Target| target.met(judged)),
    })
}

/// Returns the values of a figure in one run.
fn column(turns: &Turns, run: usize, figure: Figure) -> Vec<f64> {
    turns.iter().filter_map(|turn| turn.get(run)?.get(&figure).copied()).collect()
}

const HEAD: &str = "| work | measured | ours | busy | reference | theirs | ratio | least to most | target | met |\n\
                    |---|---|--:|--:|---|--:|--:|--:|--:|---|\n";

/// Returns the table as Markdown.
pub fn markdown(lines: &[Line]) -> String {
    let mut text = HEAD.to_owned();
    let mut work = "";
    for line in lines {
        // The description stands in the first line of a work only.
        let description = if line.work == work { "″" } else { line.text };
        work = line.work;
        let spread = line.ratio.unwrap_or(line.value);
        let _ = writeln!(
            text,
            "| {description} | {} | {} | {} | {} | {} | {} | {} to {} | {} | {} |",
            line.unit,
            digits(line.value.median),
            match (line.busy, line.load_busy) {
                (Some(server), Some(load)) => format!("{server:.0} / {load:.0} %"),
                (Some(server), None) => format!("{server:.0} %"),
                _ => "–".into(),
            },
            line.comparison.as_deref().unwrap_or("–"),
            line.other.map_or("–".into(), |other| digits(other.median)),
            line.ratio.map_or("–".into(), |ratio| digits(ratio.median)),
            digits(spread.least),
            digits(spread.most),
            line.target.as_deref().unwrap_or("–"),
            match line.met {
                None => "",
                Some(true) => "yes",
                Some(false) => "**no**",
            },
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::works::all;

    fn turns(values: &[&[f64]], figure: Figure) -> Turns {
        let sample = |value: &f64| Sample::from([(figure, *value)]);
        values.iter().map(|turn| turn.iter().map(sample).collect()).collect()
    }

    fn work(name: &str) -> Work {
        all().into_iter().find(|work| work.name == name).unwrap()
    }

    #[test]
    fn ratio_is_median_of_ratios_per_turn() {
        // The ratio of medians would be 2/10; the second turn was disturbed.
        let lines =
            lines(&work("relay-50"), &turns(&[&[10.0, 2.0], &[100.0, 30.0], &[8.0, 2.0]], Figure::Cost));
        let ratio = lines[0].ratio.unwrap();
        assert_eq!((ratio.least, ratio.median, ratio.most), (0.2, 0.25, 0.3));
        assert_eq!(lines[0].met, Some(true));
        assert!(
            markdown(&lines)
                .contains("| 2.00 | – | sigver@20.1.0 | 10.0 | 0.250 | 0.200 to 0.300 | ≤ 0.41 × | yes |")
        );
    }

    #[test]
    fn lower_of_two_runs_is_compared() {
        let lines = lines(&work("cross"), &turns(&[&[100.0, 200.0, 70.0]], Figure::RatePerCore));
        assert_eq!((lines[0].ratio.unwrap().median, lines[0].met), (0.7, Some(false)));
    }

    #[test]
    fn unmeasured_figure_has_no_line() {
        assert!(lines(&work("cross"), &turns(&[&[1.0, 2.0]], Figure::RatePerCore)).is_empty());
        assert!(lines(&work("start"), &Vec::new()).is_empty());
    }
}
