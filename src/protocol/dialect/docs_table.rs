//! The table of dialects for people: what `sigver dialects` prints, and `docs/reference/dialects.md` holds.

use std::fmt::Write as _;

use super::{ContentLayout, Dialect, Family, Release};

/// What people want to know of a dialect beside what the program needs.
struct DialectDoc {
    /// What a client that joins a room says first.
    joins: &'static str,
    /// How each side notices that the other is gone.
    liveness: &'static str,
    /// The published netflux clients that speak it (measured in a browser, but for those in brackets).
    clients: &'static str,
}

fn about(dialect: Dialect) -> DialectDoc {
    let (joins, liveness, clients) = match dialect {
        Dialect::Sigver1 => (r#"`{"type":"join","id":K}`"#, "none", ""),
        Dialect::Sigver4 | Dialect::Sigver5 => (r#"`{"type":"join","key":K}`"#, "none", ""),
        Dialect::Sigver6 => (r#"`{"joinkey":K}`"#, "none", ""),
        Dialect::Sigver7 => (r#"`{"join":K,"data":D}`"#, "none", "0.10.3, (0.4 – 0.9)"),
        Dialect::Sigver7_6 => (r#"`{"join":K}`"#, "none", "0.10.8, 1.0.0-rc.3"),
        Dialect::Sigver8 => (r#"`{"join":K}`"#, "none", ""),
        Dialect::Sigver9 => (r#"`{"join":K}`"#, "none", "1.0.0-rc.14"),
        Dialect::Sigver11 => (r#"`{"join":K}`"#, "none", "(1.1.0-beta.0 – beta.5)"),
        Dialect::Sigver13 => (r#"`{"join":K}`"#, "the server pings every 5 s", "(1.1.0-beta.0 – beta.5)"),
        Dialect::Sigver15 => {
            ("nothing", "the server pings members every 5 s", "1.1.0-beta.7, beta.8, (1.2, 2.0)")
        }
        Dialect::Sigver15_1 => ("nothing", "the server pings members every 5 s", ""),
        Dialect::Sigver16 => ("nothing", "heartbeats of members every 5 s, three may be missed", "(2.1)"),
        Dialect::Sigver18 => ("nothing", "heartbeats every 5 s, three may be missed", "3.0.0"),
        Dialect::Sigver19 => ("connect", "heartbeats every 5 s, three may be missed", "(4.0.0 – 4.1.2)"),
        Dialect::Sigver20 => {
            ("connect", "heartbeats every 5 s, three may be missed", "4.3.0, 4.3.1, (4.1.3 – 4.2)")
        }
    };
    DialectDoc { joins, liveness, clients }
}

fn layout(layout: ContentLayout) -> &'static str {
    match layout {
        ContentLayout::V15_1 => "A: id 1, data 2, isError 3, isEnd 4",
        ContentLayout::V15_0 => "B: id 1, isEnd 2, data 3, isError 4",
        ContentLayout::V19 => "C: id 1, lastData 2, data 3",
        ContentLayout::V20 => "D: senderId 1, recipientId 2, lastData 3, data 4",
    }
}

/// All dialects as a Markdown text.
pub fn markdown() -> String {
    let mut out = String::from(
        "# The dialects\n\nWritten by `sigver dialects --markdown`; a test keeps it so. Facts are measured on the \
         original servers and clients.\n\nFamilies and dialects are names for `--protocol`, and so is every release: \
         `--protocol sigver-8.0.2`.\n\n| dialect | family | releases that speak it | a joiner says first | who \
         speaks first | who is gone | netflux clients |\n|---|---|---|---|---|---|---|\n",
    );
    for dialect in Dialect::ALL {
        let DialectDoc { joins, liveness, clients } = about(dialect);
        let first = if server_first(dialect) { "server" } else { "client" };
        let (family, releases) = (dialect.family().name(), releases(dialect));
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "| `{dialect}` | `{family}` | {releases} | {joins} | {first} | {liveness} | {clients} |"
        );
    }
    out.push_str(
        "| `signaller` | | boramalper/signaller | `GET /connect/<handle>` | either | deadlines | signaller.js \
         |\n\nReleases that are not in bold are spoken only when named: nothing on the wire tells them from the bold \
         one. netflux clients in brackets are known from their source, the others were run.\n\n## Contents of the \
         protobuf dialects\n\n| dialect | fields of a content |\n|---|---|\n",
    );
    for dialect in Dialect::ALL {
        if let Some(known) = dialect.layout() {
            let _ = writeln!(out, "| `{dialect}` | {} |", layout(known));
        }
    }
    out
}

/// Whether a client waits for the server's first word.
fn server_first(dialect: Dialect) -> bool {
    match dialect.family() {
        Family::ProtobufV1 => true,
        Family::ProtobufV2 => false,
        Family::Json => dialect == Dialect::Sigver13,
    }
}

fn releases(dialect: Dialect) -> String {
    let of_it = Release::ALL.into_iter().filter(|release| release.dialect() == dialect);
    let mut all = Vec::new();
    for release in of_it {
        let versions = release.in_words();
        all.push(if release == dialect.release() { format!("**{versions}**") } else { versions });
    }
    all.join("; ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_is_what_the_program_prints() {
        let document = include_str!("../../../docs/reference/dialects.md");
        assert_eq!(
            document,
            super::markdown(),
            "write docs/reference/dialects.md by `sigver dialects --markdown`"
        );
    }
}
