//! The matrix of this version, as docs/reference/interop.md has it: a test keeps that page equal to a
//! measurement.

use super::result::{MatrixResult, PairId, PairResult, Verdict};
use crate::tools::client::protocol::Protocol;

const DOCUMENT: &str = include_str!("../../../docs/reference/interop.md");

/// Returns what a gateway of this version with `--protocol auto` is known to do.
pub fn known() -> MatrixResult {
    from_markdown(DOCUMENT)
}

/// Returns the first matrix in a document that [`super::render::markdown`] wrote. The reasons of failures
/// are left out.
fn from_markdown(document: &str) -> MatrixResult {
    let mut losses: Vec<&str> = Vec::new();
    let mut rows: Vec<(Protocol, Vec<&str>)> = Vec::new();
    let mut joiners: Vec<Option<Protocol>> = Vec::new();
    let mut control = Vec::new();
    for line in document.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [first, rest @ ..] = cells.as_slice() else { continue };
        if line.starts_with("| member ") && joiners.is_empty() {
            joiners = rest.iter().map(|label| from_label(label)).collect();
        } else if let Some(member) =
            first.strip_prefix("**").and_then(|cell| from_label(cell.strip_suffix("**")?))
        {
            rows.push((member, rest.to_vec()));
        } else if let Some((_, loss)) =
            line.split_once(". ").filter(|(n, _)| n.parse() == Ok(losses.len() + 1))
        {
            losses.extend(loss.rsplit_once(" (").map(|(loss, _)| loss));
        } else if let (Some(joiner), [_]) = (Protocol::from_name(first.trim_matches('`')), rest) {
            let pair = PairId { member: None, joiner };
            control.push(PairResult { pair, verdict: Verdict::Ok, answer: None });
        }
    }
    let verdict = |cell: &str| match cell {
        "ok" => Some(Verdict::Ok),
        "**failed**" => Some(Verdict::Failed { reason: "known".to_owned() }),
        numbers => {
            let loss =
                |number: &str| Some((*losses.get(number.parse::<usize>().ok()?.checked_sub(1)?)?).to_owned());
            Some(Verdict::Degraded { losses: numbers.split(',').map(loss).collect::<Option<_>>()? })
        }
    };
    let pairs = rows.iter().flat_map(|(member, cells)| {
        joiners.iter().zip(cells).filter_map(|(joiner, cell)| {
            let pair = PairId { member: Some(*member), joiner: (*joiner)? };
            Some(PairResult { pair, verdict: verdict(cell)?, answer: None })
        })
    });
    MatrixResult {
        server: "docs/reference/interop.md".to_owned(),
        duration_ms: 0,
        pairs: pairs.collect(),
        control,
    }
}

fn from_label(label: &str) -> Option<Protocol> {
    Protocol::all().find(|protocol| protocol.table_label() == label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::matrix::render;

    #[test]
    fn known_matrix_has_every_pair() {
        let known = known();
        let dialects = Protocol::COUNT - 1;
        assert_eq!(known.pairs.len(), dialects * dialects + 1);
        assert_eq!(known.control.len(), Protocol::COUNT);
        let again = from_markdown(&render::markdown(&known));
        assert_eq!((again.pairs, again.control.len()), (known.pairs.clone(), known.control.len()));
        assert!(known.regressions(&known).is_empty());
    }
}
