//! Texts of the operator in messages: a private key or a token may be where a file name or a number should
//! be, and messages end up in logs.

use std::borrow::Cow;
use std::path::Path;

/// Fewest characters of a run that may be a secret. A key of 256 bits has 43 in base64.
const MIN_RUN: usize = 40;

/// Returns true if the text has a PEM section, a JSON Web Token, or a long run of base64 or hexadecimal
/// digits. File names with a directory are none.
pub(crate) fn may_be_secret(text: &str) -> bool {
    let text = text.trim();
    if text.contains("-----") || text.contains("PRIVATE KEY") || text.contains("LS0tLS1CRUdJTi") {
        return true;
    }
    if text.starts_with("eyJ") && text.matches('.').count() >= 2 {
        return true;
    }
    let is_path = text.starts_with(['/', '~', '.']);
    let is_digit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '_' | '-');
    let is_mixed = |run: &str| {
        run.contains(|c: char| c.is_ascii_digit()) && run.contains(|c: char| c.is_ascii_alphabetic())
    };
    !is_path && text.split(|c| !is_digit(c)).any(|run| run.len() >= MIN_RUN && is_mixed(run))
}

/// Returns the text with `***` in place of the password of a URL, if it has one.
pub(crate) fn without_password(text: &str) -> Cow<'_, str> {
    let parts = || {
        let (scheme, rest) = text.split_once("://")?;
        // A password may have a slash or an `@` that is not escaped.
        let (login, host) = rest.rsplit_once('@')?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{host}"))
    };
    parts().map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Returns the text for a message, without what may be a secret and without control characters.
pub(crate) fn displayed(text: &str) -> Cow<'_, str> {
    if may_be_secret(text) {
        return format!("({} characters, not shown)", text.chars().count()).into();
    }
    let shown = without_password(text);
    if let Cow::Owned(shown) = shown {
        return shown.escape_debug().to_string().into();
    }
    match text.contains(char::is_control) {
        true => text.escape_debug().to_string().into(),
        false => text.into(),
    }
}

/// Returns the path for a message, by the rules of [`displayed`].
pub(crate) fn displayed_path(path: &Path) -> String {
    displayed(&path.to_string_lossy()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        for secret in [
            "-----BEGIN PRIVATE KEY-----",
            "RSA PRIVATE KEY",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
            "MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        ] {
            assert_eq!(displayed(secret), format!("({} characters, not shown)", secret.len()));
        }
        for shown in ["key.pem", "8000x", "start", "/srv/MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDo/k", "é"]
        {
            assert_eq!(displayed(shown), shown);
        }
        assert_eq!(displayed("http://u:p@h:1/x"), "http://u:***@h:1/x");
        assert_eq!(displayed("a\u{1b}[2J\n"), "a\\u{1b}[2J\\n");
    }
}
