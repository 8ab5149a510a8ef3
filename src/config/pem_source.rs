//! Places of PEM text: files, or the option's value itself.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::redact::displayed;

/// A place of PEM text: a file, or the value itself, as environment variables have it where there are no
/// files. Neither `Debug` nor `Display` shows the text.
#[derive(Clone, PartialEq, Eq)]
pub enum PemSource {
    /// A file.
    File(PathBuf),
    /// The text.
    Inline(String),
}

impl PemSource {
    /// Returns the file with this name, or the text if the value is PEM, as it is or in base64.
    pub fn parse(value: &OsStr) -> Self {
        let inline = value.to_str().and_then(|text| match text.contains(PEM_BEGIN) {
            true => Some(text.to_owned()),
            false => decode(text),
        });
        inline.map_or_else(|| PemSource::File(PathBuf::from(value)), PemSource::Inline)
    }
}

/// Beginning of the first line of a section.
const PEM_BEGIN: &str = "-----BEGIN ";

/// Returns the PEM text in base64.
fn decode(text: &str) -> Option<String> {
    let compact: String = text.split_whitespace().collect();
    // The beginning of PEM text, in base64.
    if !compact.starts_with("LS0tLS1CRUdJTi") {
        return None;
    }
    String::from_utf8(STANDARD.decode(compact).ok()?).ok().filter(|text| text.contains(PEM_BEGIN))
}

impl<T: Into<OsString>> From<T> for PemSource {
    fn from(value: T) -> Self {
        PemSource::parse(&value.into())
    }
}

impl fmt::Display for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PemSource::File(path) => f.write_str(&displayed(&path.to_string_lossy())),
            PemSource::Inline(_) => f.write_str("(the PEM text that was given in place of a file)"),
        }
    }
}

impl fmt::Debug for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PemSource({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_in_place_of_a_file_is_recognised_and_not_shown() {
        let pem = "-----BEGIN PRIVATE KEY-----\\nc2VjcmV0\\n-----END PRIVATE KEY-----\\n";
        for text in [pem.to_owned(), pem.replace("\\n", " "), format!(" \"{pem}\""), STANDARD.encode(pem)] {
            let source = PemSource::from(text.as_str());
            assert!(matches!(source, PemSource::Inline(_)), "{text}");
            let shown = format!("{source} {source:?}");
            assert!(!shown.contains("c2Vj") && !shown.contains("LS0t"), "{shown}");
        }
        for path in ["key.pem", "/etc/letsencrypt/live/example.org/privkey.pem", ""] {
            assert_eq!(PemSource::from(path), PemSource::File(path.into()));
            assert_eq!(PemSource::from(path).to_string(), path);
        }
        // The rest of a key that a shell split at its blanks.
        let der = PemSource::from("MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgvF8C7NTqOlBcRXdc");
        assert!(!der.to_string().contains("MIGH"), "{der}");
    }
}
