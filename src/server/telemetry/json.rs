//! The report for programs.

use super::Report;

/// Returns the report as one indented JSON object, with a line end.
pub(super) fn render(report: &Report) -> String {
    // A report has string keys only, and its numbers are integers: serialising cannot fail.
    let mut out = serde_json::to_string_pretty(report).unwrap_or_default();
    out.push('\n');
    out
}
