//! The table of dialects for people: what `sigver dialects` prints, and `docs/reference/dialects.md` holds.

use std::fmt::Write as _;

use super::release::DialectDoc;
use super::{Dialect, Release};

/// Returns all dialects as a Markdown text.
pub(crate) fn markdown() -> String {
    let mut out = String::from(
        "# The dialects\n\nWritten by `sigver dialects --markdown`; a test keeps it so. Facts are measured on the \
         Node.js servers and the clients.\n\nFamilies and dialects are names for `--protocol`, and so is every release: \
         `--protocol sigver-8.0.2`.\n\n| dialect | family | releases that speak it | a joiner sends first | first \
         to send | keepalive | netflux clients |\n|---|---|---|---|---|---|---|\n",
    );
    for dialect in Dialect::ALL {
        let DialectDoc { first_message, keepalive, clients } = dialect.facts().docs;
        let first = if dialect.server_sends_first() { "server" } else { "client" };
        let (family, releases) = (dialect.family().name(), releases(dialect));
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "| `{dialect}` | `{family}` | {releases} | {first_message} | {first} | {keepalive} | {clients} |"
        );
    }
    out.push_str(
        "| `signaller` | | boramalper/signaller | `GET /connect/<handle>` | either | deadlines | signaller.js \
         |\n\nReleases that are not in bold are used only when named: no message distinguishes them from the bold one. \
         Only tags exist of sigver 9.0, 12, 15.0.0 and 21. The first three are rows of their own, pinned by their \
         numbers; 21 is served as 20.1.0. Any other exact number that was never on npm, such as `sigver-15.0.3`, names \
         the nearest release of its major version, with a warning at the start.\n\n\
         - `sigver-9.0.1` answers `isKeyOk`, and its event streams take messages by POST. Not measured: the rest, which \
         is that of 8.1 for messages and of 9.1 for event streams. A POST is answered with 200, and never with 521 or \
         560: it is not known for which errors. In `auto`, its clients are served as those of 8 and 10.1.\n\
         - `sigver-12` pings openers. In `auto`, its clients are served as those of 11 and 13, and not pinged.\n\
         - `sigver-15.0.0` has ping in field 3 and pong in field 4. Not measured: the rest, which is that of 15.0.1, and \
         the field of `joined`, which is 5. In `auto`, its clients are served as those of 15.0.4, whose pings they do not \
         understand.\n\nnetflux clients in brackets are known from their source, the others were run.\n\n## Contents of the \
         protobuf dialects\n\n| dialect | fields of a content |\n|---|---|\n",
    );
    for dialect in Dialect::ALL {
        if let Some(known) = dialect.content_layout() {
            let _ = writeln!(out, "| `{dialect}` | {} |", known.facts().docs);
        }
    }
    out
}

fn releases(dialect: Dialect) -> String {
    let bold_if_default = |release: Release| {
        let versions = release.version_list();
        if release == dialect.release() { format!("**{versions}**") } else { versions }
    };
    dialect.releases().map(bold_if_default).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn document_equals_output_of_program() {
        let document = include_str!("../../../docs/reference/dialects.md");
        assert_eq!(
            document,
            super::markdown(),
            "write docs/reference/dialects.md by `sigver dialects --markdown`"
        );
    }
}
