//! Renders a matrix result as a text table, as Markdown and as JUnit XML.

use std::fmt::Write as _;

use super::result::{MatrixResult, PairFailure, PairId, PairResult, Verdict};
use crate::text_table::{CellAlignment, text_table};
use crate::tools::client::protocol::Protocol;

/// Returns each loss of a result with its number of pairs, most frequent first. In a grid a loss is named by
/// its place, counted from 1.
fn legend(result: &MatrixResult) -> Vec<(String, usize)> {
    let mut found: Vec<(String, usize)> = Vec::new();
    for pair in &result.pairs {
        let Verdict::Degraded { losses } = &pair.verdict else { continue };
        for loss in losses {
            match found.iter_mut().find(|(known, _)| known == loss) {
                Some((_, count)) => *count += 1,
                None => found.push((loss.clone(), 1)),
            }
        }
    }
    found.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    found
}

fn symbol(result: Option<&PairResult>, legend: &[(String, usize)], failed: &str) -> String {
    match result.map(|result| &result.verdict) {
        None => String::new(),
        Some(Verdict::Ok) => "ok".to_owned(),
        Some(Verdict::Failed { .. }) => failed.to_owned(),
        Some(Verdict::Degraded { losses }) => {
            let place = |loss: &String| legend.iter().position(|(known, _)| known == loss).unwrap_or(0) + 1;
            let mut places: Vec<usize> = losses.iter().map(place).collect();
            places.sort_unstable();
            places.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        }
    }
}

pub(super) fn protocols(results: &[PairResult], of: impl Fn(&PairId) -> Option<Protocol>) -> Vec<Protocol> {
    let mut found: Vec<Protocol> = results.iter().filter_map(|result| of(&result.pair)).collect();
    found.sort();
    found.dedup();
    found
}

/// Returns a head row, and a row for each member.
fn grid(result: &MatrixResult, legend: &[(String, usize)], failed: &str) -> Vec<Vec<String>> {
    let members = protocols(&result.pairs, |pair| pair.member);
    let joiners = protocols(&result.pairs, |pair| Some(pair.joiner));
    let label = |protocol: &Protocol| protocol.table_label().to_owned();
    let mut rows = vec![std::iter::once(String::new()).chain(joiners.iter().map(label)).collect::<Vec<_>>()];
    for member in members {
        let cell = |joiner: &Protocol| {
            let pair = PairId { member: Some(member), joiner: *joiner };
            symbol(result.pairs.iter().find(|result| result.pair == pair), legend, failed)
        };
        rows.push(std::iter::once(label(&member)).chain(joiners.iter().map(cell)).collect());
    }
    rows
}

fn totals(result: &MatrixResult) -> String {
    let count = |name: &str| result.pairs.iter().filter(|pair| pair.verdict.name() == name).count();
    let handled = result.control.iter().filter(|pair| pair.verdict == Verdict::Ok).count();
    let control = match result.control.len() {
        0 => String::new(),
        all => format!(
            "; {handled} of {all} joiners of a room without a member were rejected or made the member"
        ),
    };
    format!("{} ok, {} degraded, {} failed{control}", count("ok"), count("degraded"), count("failed"))
}

/// Renders a result as text for a terminal.
pub(crate) fn text(result: &MatrixResult) -> String {
    let legend = legend(result);
    let mut out = format!("{}: members down, joiners across\n\n", result.server);
    out.push_str(&text_table(&grid(result, &legend, "FAIL"), CellAlignment::Right));
    out.push('\n');
    for (place, (loss, count)) in legend.iter().enumerate() {
        let _ = writeln!(out, "{:>3}  {loss} ({count})", place + 1);
    }
    for failure in result.failures() {
        let _ = writeln!(out, "FAIL {failure}");
    }
    let _ = writeln!(out, "{} in {:.1} s", totals(result), result.duration_ms as f64 / 1000.0);
    out
}

/// Renders a result as Markdown for docs/reference/interop.md, without anything that differs from run to run.
pub fn markdown(result: &MatrixResult) -> String {
    let legend = legend(result);
    let mut out = String::new();
    for (number, mut row) in grid(result, &legend, "**failed**").into_iter().enumerate() {
        row[0] = if number == 0 { "member ↓ joiner →".to_owned() } else { format!("**{}**", row[0]) };
        let _ = writeln!(out, "| {} |", row.join(" | "));
        if number == 0 {
            let _ = writeln!(out, "|{}", "---|".repeat(row.len()));
        }
    }
    out.push('\n');
    for (place, (loss, count)) in legend.iter().enumerate() {
        let pairs = if *count == 1 { "1 pair".to_owned() } else { format!("{count} pairs") };
        let _ = writeln!(out, "{}. {loss} ({pairs})", place + 1);
    }
    let failures = failures_by_reason(result);
    if !failures.is_empty() {
        out.push_str("\nFailed:\n\n");
        for (reason, pairs) in failures {
            let _ = writeln!(out, "- {reason}: {}", pairs.join(", "));
        }
    }
    if !result.control.is_empty() {
        out.push_str("\n| protocol of a joiner of a room without a member | answer |\n|---|---|\n");
        for PairResult { pair, verdict, answer } in &result.control {
            let answer = answer.clone().unwrap_or_else(|| format!("**{verdict}**"));
            let _ = writeln!(out, "| `{}` | {answer} |", pair.joiner);
        }
    }
    let _ = write!(out, "\n{}.\n", totals(result));
    out
}

pub(super) fn failures_by_reason(result: &MatrixResult) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for PairResult { pair, verdict, .. } in &result.pairs {
        let Verdict::Failed { reason } = verdict else { continue };
        match found.iter_mut().find(|(known, _)| known == reason) {
            Some((_, pairs)) => pairs.push(format!("`{pair}`")),
            None => found.push((reason.clone(), vec![format!("`{pair}`")])),
        }
    }
    found
}

/// Renders a result as JUnit XML, in which `failures` are the failed test cases.
pub(crate) fn junit(result: &MatrixResult, failures: &[PairFailure]) -> String {
    let failure = |pair: PairId| failures.iter().find(|failure| failure.pair == pair);
    let count = result.all().filter(|result| failure(result.pair).is_some()).count();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        out,
        "<testsuites><testsuite name=\"sigver matrix\" tests=\"{}\" failures=\"{count}\" time=\"{:.3}\">",
        result.all().count(),
        result.duration_ms as f64 / 1000.0
    );
    for PairResult { pair, verdict, .. } in result.all() {
        let _ = write!(out, "<testcase classname=\"matrix\" name=\"{pair}\">");
        let _ = match failure(*pair) {
            Some(failure) => write!(out, "<failure message=\"{}\"/>", escape_xml(&failure.reason)),
            None => write!(out, "<system-out>{}</system-out>", escape_xml(&verdict.to_string())),
        };
        out.push_str("</testcase>\n");
    }
    out + "</testsuite></testsuites>\n"
}

fn escape_xml(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML cannot express control characters.
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

    fn result() -> MatrixResult {
        let five = Protocol::Sigver(Dialect::Sigver5);
        let twenty = Protocol::Sigver(Dialect::Sigver20);
        let pair =
            |member, joiner, verdict| PairResult { pair: PairId { member, joiner }, verdict, answer: None };
        let degraded = Verdict::Degraded { losses: vec!["b".into(), "a".into()] };
        MatrixResult {
            server: "here".into(),
            duration_ms: 1500,
            pairs: vec![
                pair(Some(five), five, Verdict::Ok),
                pair(Some(five), twenty, degraded),
                pair(Some(twenty), twenty, Verdict::Failed { reason: "<\"why\">".into() }),
            ],
            control: vec![PairResult { answer: Some("closed".into()), ..pair(None, five, Verdict::Ok) }],
        }
    }

    #[test]
    fn text_has_grid_and_legend() {
        let text = text(&result());
        assert!(text.contains("     5    20\n 5  ok   1,2\n20      FAIL\n"), "{text}");
        assert!(text.contains("\n  1  a (1)\n  2  b (1)\n"), "{text}");
        assert!(
            text.contains("FAIL sigver-20:sigver-20: failed: <\"why\">\n1 ok, 1 degraded, 1 failed"),
            "{text}"
        );
    }

    #[test]
    fn markdown_has_grid_failures_and_control() {
        let markdown = markdown(&result());
        assert!(markdown.contains("| **5** | ok | 1,2 |\n"), "{markdown}");
        assert!(markdown.contains("- <\"why\">: `sigver-20:sigver-20`\n"), "{markdown}");
        assert!(markdown.contains("| `sigver-5` | closed |\n"), "{markdown}");
    }

    #[test]
    fn junit_has_failures_by_pair() {
        let result = result();
        let junit = junit(&result, &result.failures());
        assert!(junit.contains("tests=\"4\" failures=\"1\" time=\"1.500\""), "{junit}");
        assert!(junit.contains("<failure message=\"failed: &lt;&quot;why&quot;&gt;\"/>"), "{junit}");
        assert!(junit.contains("name=\"none:sigver-5\"><system-out>ok</system-out>"), "{junit}");
    }
}
