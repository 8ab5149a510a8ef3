//! Results for people (a table, Markdown) and for machines (JUnit; JSON is in `outcome`). Nothing is judged here.

use std::fmt::Write as _;

use super::result::{Outcome, PairResult, Verdict};
use crate::tools::client::protocol::Protocol;

/// What is lost in an outcome, each once, most frequent first: they are called by their places, counted from 1.
fn legend(outcome: &Outcome) -> Vec<(String, usize)> {
    let mut found: Vec<(String, usize)> = Vec::new();
    for cell in &outcome.cells {
        let Verdict::Degraded(lost) = &cell.verdict else { continue };
        for what in lost {
            match found.iter_mut().find(|(known, _)| known == what) {
                Some((_, count)) => *count += 1,
                None => found.push((what.clone(), 1)),
            }
        }
    }
    found.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    found
}

fn symbol(cell: Option<&PairResult>, legend: &[(String, usize)], failed: &str) -> String {
    match cell.map(|cell| &cell.verdict) {
        None => String::new(),
        Some(Verdict::Ok) => "ok".to_owned(),
        Some(Verdict::Failed(_)) => failed.to_owned(),
        Some(Verdict::Degraded(lost)) => {
            let place = |what: &String| legend.iter().position(|(known, _)| known == what).unwrap_or(0) + 1;
            let mut places: Vec<usize> = lost.iter().map(place).collect();
            places.sort_unstable();
            places.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        }
    }
}

fn tongues(cells: &[PairResult], of: impl Fn(&PairResult) -> Option<Protocol>) -> Vec<Protocol> {
    let mut found: Vec<Protocol> = cells.iter().filter_map(of).collect();
    found.sort();
    found.dedup();
    found
}

/// The grid: a head line, and a line per member.
fn grid(outcome: &Outcome, legend: &[(String, usize)], failed: &str) -> Vec<Vec<String>> {
    let members = tongues(&outcome.cells, |cell| cell.member);
    let joiners = tongues(&outcome.cells, |cell| Some(cell.joiner));
    let head = std::iter::once(String::new()).chain(joiners.iter().map(|joiner| joiner.short().to_owned()));
    let mut lines = vec![head.collect::<Vec<String>>()];
    for member in members {
        let cell = |joiner: &Protocol| {
            let found =
                outcome.cells.iter().find(|cell| cell.member == Some(member) && cell.joiner == *joiner);
            symbol(found, legend, failed)
        };
        lines.push(std::iter::once(member.short().to_owned()).chain(joiners.iter().map(cell)).collect());
    }
    lines
}

fn totals(outcome: &Outcome) -> String {
    let count = |word: &str| outcome.cells.iter().filter(|cell| cell.verdict.word() == word).count();
    let refused = outcome.control.iter().filter(|cell| cell.verdict == Verdict::Ok).count();
    let control = match outcome.control.len() {
        0 => String::new(),
        all => {
            format!("; {refused} of {all} joiners of a closed room were refused or told that they are first")
        }
    };
    format!("{} ok, {} degraded, {} failed{control}", count("ok"), count("degraded"), count("failed"))
}

/// For people, on a terminal.
pub fn table(outcome: &Outcome) -> String {
    let legend = legend(outcome);
    let grid = grid(outcome, &legend, "FAIL");
    let mut out = format!("{}: members down, joiners across\n\n", outcome.server);
    let columns = grid.first().map_or(0, Vec::len);
    let width = |column: usize| grid.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for line in &grid {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    out.push('\n');
    for (place, (what, count)) in legend.iter().enumerate() {
        let _ = writeln!(out, "{:>3}  {what} ({count})", place + 1);
    }
    for failure in outcome.failures() {
        let _ = writeln!(out, "FAIL {failure}");
    }
    let _ = writeln!(out, "{} in {:.1} s", totals(outcome), outcome.took_ms as f64 / 1000.0);
    out
}

/// For docs/reference/interop.md. Nothing in it differs from run to run.
pub fn markdown(outcome: &Outcome) -> String {
    let legend = legend(outcome);
    let grid = grid(outcome, &legend, "**failed**");
    let mut out = String::new();
    for (number, line) in grid.iter().enumerate() {
        let mut line = line.clone();
        line[0] = if number == 0 { "member ↓ joiner →".to_owned() } else { format!("**{}**", line[0]) };
        let _ = writeln!(out, "| {} |", line.join(" | "));
        if number == 0 {
            let _ = writeln!(out, "|{}", "---|".repeat(line.len()));
        }
    }
    out.push('\n');
    for (place, (what, count)) in legend.iter().enumerate() {
        let cells = if *count == 1 { "1 pair".to_owned() } else { format!("{count} pairs") };
        let _ = writeln!(out, "{}. {what} ({cells})", place + 1);
    }
    if !outcome.failures().is_empty() {
        out.push_str("\nFailed:\n\n");
        for (why, cells) in failures_by_reason(outcome) {
            let _ = writeln!(out, "- {why}: {}", cells.join(", "));
        }
    }
    if !outcome.control.is_empty() {
        out.push_str("\n| nobody has opened the room, and the joiner speaks | it is told |\n|---|---|\n");
        for cell in &outcome.control {
            let told = cell.told.clone().unwrap_or_else(|| format!("**{}**", cell.verdict));
            let _ = writeln!(out, "| `{}` | {told} |", cell.joiner);
        }
    }
    let _ = write!(out, "\n{}.\n", totals(outcome));
    out
}

fn failures_by_reason(outcome: &Outcome) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for cell in &outcome.cells {
        let Verdict::Failed(why) = &cell.verdict else { continue };
        match found.iter_mut().find(|(known, _)| known == why) {
            Some((_, cells)) => cells.push(format!("`{}`", cell.name())),
            None => found.push((why.clone(), vec![format!("`{}`", cell.name())])),
        }
    }
    found
}

/// For CI. The failures are what `wrong` names, by the name of their cell before the first `": "`.
pub fn junit(outcome: &Outcome, wrong: &[String]) -> String {
    let fault = |cell: &PairResult| {
        let begin = format!("{}: ", cell.name());
        wrong.iter().find_map(|wrong| wrong.strip_prefix(&begin).map(str::to_owned))
    };
    let failures = outcome.all().filter(|cell| fault(cell).is_some()).count();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        out,
        "<testsuites><testsuite name=\"sigver matrix\" tests=\"{}\" failures=\"{failures}\" time=\"{:.3}\">",
        outcome.all().count(),
        outcome.took_ms as f64 / 1000.0
    );
    for cell in outcome.all() {
        let _ = write!(out, "<testcase classname=\"matrix\" name=\"{}\">", escaped(&cell.name()));
        match fault(cell) {
            Some(why) => {
                let _ = write!(out, "<failure message=\"{}\"/>", escaped(&why));
            }
            None => {
                let _ = write!(out, "<system-out>{}</system-out>", escaped(&cell.verdict.to_string()));
            }
        }
        out.push_str("</testcase>\n");
    }
    out + "</testsuite></testsuites>\n"
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML has no way to say these.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::dialect::Dialect;

    fn outcome() -> Outcome {
        let tongue = Protocol::Sigver;
        let cell = |member, joiner, verdict| PairResult { member, joiner, verdict, told: None };
        let five = tongue(Dialect::Sigver5);
        let twenty = tongue(Dialect::Sigver20);
        Outcome {
            server: "here".into(),
            took_ms: 1500,
            cells: vec![
                cell(Some(five), five, Verdict::Ok),
                cell(Some(five), twenty, Verdict::Degraded(vec!["b".into(), "a".into()])),
                cell(Some(twenty), twenty, Verdict::Failed("<\"why\">".into())),
            ],
            control: vec![PairResult { told: Some("closed".into()), ..cell(None, five, Verdict::Ok) }],
        }
    }

    #[test]
    fn people_see_a_grid_and_what_its_numbers_mean() {
        let table = table(&outcome());
        assert!(table.contains("     5    20\n 5  ok   1,2\n20      FAIL\n"), "{table}");
        assert!(table.contains("\n  1  a (1)\n  2  b (1)\n"), "{table}");
        assert!(
            table.contains("FAIL sigver-20:sigver-20: failed: <\"why\">\n1 ok, 1 degraded, 1 failed"),
            "{table}"
        );
    }

    #[test]
    fn the_markdown_has_the_same() {
        let markdown = markdown(&outcome());
        assert!(markdown.contains("| **5** | ok | 1,2 |\n"), "{markdown}");
        assert!(markdown.contains("- <\"why\">: `sigver-20:sigver-20`\n"), "{markdown}");
        assert!(markdown.contains("| `sigver-5` | closed |\n"), "{markdown}");
    }

    #[test]
    fn ci_sees_what_is_wrong() {
        let outcome = outcome();
        let junit = junit(&outcome, &outcome.failures());
        assert!(junit.contains("tests=\"4\" failures=\"1\" time=\"1.500\""), "{junit}");
        assert!(junit.contains("<failure message=\"failed: &lt;&quot;why&quot;&gt;\"/>"), "{junit}");
        assert!(junit.contains("name=\"nobody:sigver-5\"><system-out>ok</system-out>"), "{junit}");
    }
}
