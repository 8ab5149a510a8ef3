//! PEM as it is in files: with text around it, in any line ends or none, and several sections on one line,
//! which `cat` leaves behind a file without a last line end.
//!
//! What looks like a section is read or reported with its line, so that no part of a chain is lost unnoticed.
//! No error has text of the file, which may be a key.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use thiserror::Error;

/// Lines of some tools end in bits that are not zero, or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// Longest label, in bytes.
const MAX_LABEL: usize = 32;

/// Mistake in a PEM file. Lines are counted from 1.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PemError {
    /// A section without its last line.
    #[error("it is cut short: the '{label}' that begins on line {line} has no line '-----END {label}-----'")]
    NoEnd {
        /// Line of the beginning.
        line: usize,
        /// Kind of the section.
        label: String,
    },
    /// A section without its first line.
    #[error("the '{label}' that ends on line {line} has no line '-----BEGIN {label}-----'")]
    NoBegin {
        /// Line of the end.
        line: usize,
        /// Kind of the section.
        label: String,
    },
    /// A line that resembles the first or last of a section.
    #[error("line {line} is not a proper '-----BEGIN …-----' or '-----END …-----'")]
    Marker {
        /// The line.
        line: usize,
    },
    /// Content that is not base64.
    #[error("the '{label}' that begins on line {line} is not base64")]
    Base64 {
        /// Line of the beginning.
        line: usize,
        /// Kind of the section.
        label: String,
    },
    /// A file of two-byte characters.
    #[error("it is UTF-16 text; save it as UTF-8 or ASCII")]
    Utf16,
}

/// A section of a PEM file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// Kind, such as `CERTIFICATE`.
    pub(super) label: String,
    /// Line of its beginning.
    pub(super) line: usize,
    /// Content; empty if it is encrypted.
    pub(super) der: Vec<u8>,
    /// The content has headers of encrypted content.
    pub(super) encrypted: bool,
}

/// Returns all sections of a file.
///
/// # Errors
/// Something looks like a section, and is none.
pub(super) fn sections(bytes: &[u8]) -> Result<Vec<Section>, PemError> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(PemError::Utf16);
    }
    let text = String::from_utf8_lossy(bytes);
    let mut sections = Vec::new();
    let mut rest = &text[..];
    let line_of = |rest: &str| 1 + text[..text.len() - rest.len()].matches('\n').count();
    while let Some(at) = rest.find(BEGIN) {
        check_between(&rest[..at], line_of(rest))?;
        let line = line_of(&rest[at..]);
        let (label, content) = label(&rest[at + BEGIN.len()..]).ok_or(PemError::Marker { line })?;
        let Some(end) = content.find(END).filter(|end| !content[..*end].contains(BEGIN)) else {
            return Err(PemError::NoEnd { line, label: label.to_owned() });
        };
        let last_line = line_of(&content[end..]);
        rest = match self::label(&content[end + END.len()..]) {
            Some((last, behind)) if last == label => behind,
            _ => return Err(PemError::Marker { line: last_line }),
        };
        let encrypted = content[..end].contains("Proc-Type:") && content[..end].contains("ENCRYPTED");
        let der = match encrypted {
            true => Vec::new(),
            false => {
                decode(&content[..end]).ok_or_else(|| PemError::Base64 { line, label: label.to_owned() })?
            }
        };
        sections.push(Section { label: label.to_owned(), line, der, encrypted });
    }
    check_between(rest, line_of(rest))?;
    Ok(sections)
}

/// Splits what follows `-----BEGIN ` or `-----END ` into the label and the text behind its dashes.
fn label(text: &str) -> Option<(&str, &str)> {
    let (label, behind) = text.split_once(DASHES)?;
    // Nothing else may be in an error: it could be a line of a key.
    let is_part = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ';
    let is_label = (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(is_part);
    is_label.then_some((label, behind))
}

/// Checks the text between sections, which begins on this line: it may be anything but parts of a section.
fn check_between(text: &str, line: usize) -> Result<(), PemError> {
    for (line, text) in (line..).zip(text.split('\n')) {
        if let Some((_, behind)) = text.split_once(END) {
            return Err(match label(behind) {
                Some((label, _)) => PemError::NoBegin { line, label: label.to_owned() },
                None => PemError::Marker { line },
            });
        }
        let is_marker = |word: &str| {
            text.split_once(word).is_some_and(|(before, behind)| {
                before.trim_end().ends_with(['-', '\u{2013}', '\u{2014}'])
                    && ["CERTIFICATE", "PRIVATE KEY"].iter().any(|kind| behind.contains(kind))
            })
        };
        if is_marker("BEGIN") || is_marker("END") {
            return Err(PemError::Marker { line });
        }
    }
    Ok(())
}

/// Decodes the content of a section. Line breaks may have become the two characters `\n`, or blanks, on the
/// way through an environment variable.
fn decode(content: &str) -> Option<Vec<u8>> {
    let content = content.replace("\\r", "").replace("\\n", "\n");
    let base64: String = content.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    BASE64.decode(base64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----";
    const B: &str = "-----BEGIN X-----\nMAEA\nMAEA\n-----END X-----";

    fn read(text: &str) -> Result<Vec<(String, usize, usize)>, PemError> {
        let sections = sections(text.as_bytes())?;
        Ok(sections.into_iter().map(|section| (section.label, section.line, section.der.len())).collect())
    }

    #[test]
    fn sections_are_read_from_any_surroundings() {
        let both = |first, second| Ok(vec![("CERTIFICATE".into(), first, 2), ("X".into(), second, 6)]);
        for (text, expected) in [
            (format!("{A}\n{B}\n"), both(1, 4)),
            // What `cat` makes of files without a last line end.
            (format!("{A}{B}"), both(1, 3)),
            (format!("\u{feff}{A}\n\n\n{B}"), both(1, 6)),
            (format!("Bag Attributes\n  name: BEGIN of all\n{A}\nsubject=x\n{B} rubbish\n\0"), both(3, 7)),
            (format!("{A}\r\n{B}\r\n").replace("\r\n", "\n").replace('\n', "\r\n"), both(1, 4)),
            (format!("{A}\n{B}").replace('\n', "\\n"), both(1, 1)),
            (format!("{A}\n{B}").replace('\n', " "), both(1, 1)),
            (format!("{A}\n{B}").replace("MAA=", "MAA"), both(1, 4)),
            (String::new(), Ok(vec![])),
            ("no PEM - at all".into(), Ok(vec![])),
        ] {
            assert_eq!(read(&text), expected, "{text}");
        }
    }

    #[test]
    fn what_looks_like_a_section_is_never_skipped() {
        let label = || "CERTIFICATE".to_owned();
        for (text, expected) in [
            (
                format!("{A}\n{}", A.replace("-----END CERTIFICATE-----", "")),
                PemError::NoEnd { line: 4, label: label() },
            ),
            (
                format!("{}\n{A}", A.replace("-----END CERTIFICATE-----", "")),
                PemError::NoEnd { line: 1, label: label() },
            ),
            (
                format!("{A}\n{}", A.replace("-----BEGIN CERTIFICATE-----", "")),
                PemError::NoBegin { line: 6, label: label() },
            ),
            (
                A.replace("-----BEGIN CERTIFICATE-----", "----BEGIN CERTIFICATE-----"),
                PemError::Marker { line: 1 },
            ),
            (
                A.replace("-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE----"),
                PemError::Marker { line: 1 },
            ),
            (A.replace("-----END CERTIFICATE-----", "-----END CERTIFICATE---"), PemError::Marker { line: 3 }),
            (A.replace("END CERTIFICATE", "END X"), PemError::Marker { line: 3 }),
            (A.replace("-----BEGIN", "\u{2014}BEGIN"), PemError::Marker { line: 1 }),
            (A.replace("MAA=", "MA!="), PemError::Base64 { line: 1, label: label() }),
        ] {
            assert_eq!(read(&text), Err(expected), "{text}");
        }
        assert_eq!(sections(b"\xff\xfe-\0-\0"), Err(PemError::Utf16));
    }

    #[test]
    fn encrypted_content_is_recognized() {
        let text =
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----";
        assert!(sections(text.as_bytes()).unwrap()[0].encrypted);
    }
}
