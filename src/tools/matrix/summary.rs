//! The short report of a matrix: a symbol for each pair, and what is worse than expected.

use std::fmt::Write as _;

use super::render::{failures_by_reason, protocols};
use super::result::{MatrixResult, PairFailure, PairId, PairResult, Verdict};
use crate::text_table::{CellAlignment, text_table};
use crate::tools::client::protocol::Protocol;

/// Greatest width, in columns.
const WIDTH: usize = 100;

/// Renders a result in at most 100 columns; `failures` are the pairs that are worse than `expected`.
pub(crate) fn summary(result: &MatrixResult, expected: &str, failures: &[PairFailure]) -> String {
    let members = protocols(&result.pairs, |pair| pair.member);
    let joiners = protocols(&result.pairs, |pair| Some(pair.joiner));
    let label = |protocol: &Protocol| protocol.table_label().to_owned();
    let mut rows = vec![std::iter::once(String::new()).chain(joiners.iter().map(label)).collect::<Vec<_>>()];
    for member in members {
        let cell =
            |joiner: &Protocol| symbol(result, PairId { member: Some(member), joiner: *joiner }, failures);
        rows.push(
            std::iter::once(label(&member)).chain(joiners.iter().map(|j| cell(j).to_owned())).collect(),
        );
    }
    let count = |name: &str| result.pairs.iter().filter(|pair| pair.verdict.name() == name).count();
    let mut out = format!("{}: members down, joiners across\n\n", result.server);
    out.push_str(&text_table(&rows, CellAlignment::Right));
    let _ = writeln!(
        out,
        "\n  +  everything arrives ({})\n  -  works, with losses, which --full lists ({})\n  \
         x  does not work ({})\n  !  worse than {expected} ({})",
        count("ok"),
        count("degraded"),
        count("failed"),
        failures.len()
    );
    for (reason, pairs) in failures_by_reason(result) {
        out.push_str(&cut(&format!("  x {:>3}  {reason}", pairs.len())));
    }
    for failure in failures {
        out.push_str(&cut(&format!("  !      {failure}")));
    }
    let verdict = match failures.len() {
        0 => "No pair is".to_owned(),
        1 => "1 pair is".to_owned(),
        more => format!("{more} pairs are"),
    };
    let seconds = result.duration_ms as f64 / 1000.0;
    let _ = writeln!(out, "{verdict} worse than {expected}; this took {seconds:.1} s.");
    out
}

fn symbol(result: &MatrixResult, pair: PairId, failures: &[PairFailure]) -> &'static str {
    let found = result.pairs.iter().find(|result| result.pair == pair);
    match found.map(|PairResult { verdict, .. }| verdict) {
        _ if failures.iter().any(|failure| failure.pair == pair) => "!",
        None => "",
        Some(Verdict::Ok) => "+",
        Some(Verdict::Degraded { .. }) => "-",
        Some(Verdict::Failed { .. }) => "x",
    }
}

/// Returns a line of at most [`WIDTH`] columns.
fn cut(line: &str) -> String {
    match line.char_indices().nth(WIDTH) {
        None => format!("{line}\n"),
        Some(_) => format!("{}…\n", line.chars().take(WIDTH - 1).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::matrix::known::known;

    #[test]
    fn whole_matrix_fits_terminal() {
        let known = known();
        let text = summary(&known, "known of this version", &[]);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("\n15.1  x  x  x"), "{text}");
        assert!(
            text.ends_with("\nNo pair is worse than known of this version; this took 0.0 s.\n"),
            "{text}"
        );
    }

    #[test]
    fn regression_is_marked() {
        let known = known();
        let pair = known.pairs[0].pair;
        let failures = [PairFailure { pair, reason: "why ".repeat(40) }];
        let text = summary(&known, "before", &failures);
        assert!(
            text.contains("\n   1  !  +") && text.contains("\n  !      sigver-1:sigver-1: why why"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("\n1 pair is worse than before; this took"), "{text}");
    }
}
