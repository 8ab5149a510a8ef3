//! PEM text that lost its line breaks, which is what environment variables and templates do to it.

use std::borrow::Cow;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// Returns the text with each line of dashes on a line of its own, in which line breaks that are the two
/// characters `\n`, or blanks, are line breaks again. The text within a section is otherwise unchanged.
pub(super) fn with_line_breaks(text: &[u8]) -> Cow<'_, [u8]> {
    let Ok(utf8) = std::str::from_utf8(text) else { return text.into() };
    if is_well_formed(utf8) {
        return text.into();
    }
    let unescaped = utf8.replace("\\r", "").replace("\\n", "\n");
    let mut out = String::with_capacity(unescaped.len() + 64);
    let mut rest = unescaped.as_str();
    while let Some(section) = next_section(rest) {
        out.push_str(section.before.trim_end());
        out.push_str(&format!("\n{BEGIN}{}{DASHES}\n", section.label));
        match section.body.contains(':') {
            // Headers end with an empty line.
            true => out.push_str(section.body.trim()),
            false => out.extend(section.body.split_whitespace().map(|line| format!("{line}\n"))),
        }
        if !out.ends_with('\n') {
            out.push('\n');
        }
        out.push_str(&format!("{END}{}{DASHES}\n", section.label));
        rest = section.after;
    }
    out.push_str(rest);
    Cow::Owned(out.into_bytes())
}

/// Returns true if each line of dashes is a line of its own.
fn is_well_formed(text: &str) -> bool {
    text.lines().filter(|line| line.contains(DASHES)).all(|line| {
        let line = line.trim_end();
        let inner = line.strip_prefix(BEGIN).or_else(|| line.strip_prefix(END));
        inner.and_then(|inner| inner.strip_suffix(DASHES)).is_some_and(|label| !label.contains(DASHES))
    })
}

struct Section<'a> {
    before: &'a str,
    label: &'a str,
    body: &'a str,
    after: &'a str,
}

/// Returns the first whole section.
fn next_section(text: &str) -> Option<Section<'_>> {
    let (before, begun) = text.split_once(BEGIN)?;
    let (label, inner) = begun.split_once(DASHES)?;
    let (body, after) = inner.split_once(&format!("{END}{label}{DASHES}"))?;
    // A section that was cut short has the beginning of the next one in it.
    (!body.contains(BEGIN)).then_some(Section { before, label, body, after })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN A KEY-----\nAAAA\nBBBB\n-----END A KEY-----\n";

    fn mended(text: &str) -> String {
        String::from_utf8(with_line_breaks(text.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn lost_line_breaks_are_restored() {
        let one_line = PEM.replace('\n', " ");
        for text in [
            PEM.replace('\n', "\\n"),
            PEM.replace('\n', "\\r\\n"),
            one_line.clone(),
            one_line.trim().to_owned(),
            PEM.replace('\n', "\t"),
            PEM.replace('\n', ""),
            PEM.trim().replace('\n', "\\n\n"),
        ] {
            let mended = mended(&text);
            // A single line of base64 is valid as well.
            let lines = mended.trim().replace("AAAABBBB", "AAAA\nBBBB");
            assert_eq!(lines, PEM.trim(), "{text}");
        }
        assert_eq!(mended(&format!("\"{}\"", PEM.replace('\n', "\\n"))).matches("\nAAAA\nBBBB\n").count(), 1);
        assert_eq!(mended(&format!("{}{PEM}", PEM.trim())).trim(), format!("{PEM}\n{PEM}").trim());
    }

    #[test]
    fn other_text_is_unchanged() {
        let headers = "-----BEGIN A KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END A KEY-----\n";
        for text in [PEM, headers, "Bag Attributes\n", "-----BEGIN A KEY-----\nAAAA\n", "", "-----BEGIN A"] {
            assert_eq!(mended(text).trim(), text.trim());
        }
        assert_eq!(mended(&PEM.replace('\n', "\r\n")), PEM.replace('\n', "\r\n"));
        assert_eq!(*with_line_breaks(b"\xff-----BEGIN "), *b"\xff-----BEGIN ");
    }
}
