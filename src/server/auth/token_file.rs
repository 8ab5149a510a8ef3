//! A file of tokens, with the room keys that each is for.

use std::collections::HashMap;
use std::fmt;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::grant::Grant;
use super::{AuthFileError, AuthRefusal};

/// Beginning of a token of which only the hash is in the file.
const HASHED: &str = "sha256:";

/// Digest of a token.
pub(super) type TokenDigest = [u8; SHA256_OUTPUT_LEN];

/// Returns the digest by which a token is found: the time of a search reveals nothing about the token.
pub(super) fn token_digest(token: &str) -> TokenDigest {
    let mut out = [0; SHA256_OUTPUT_LEN];
    for (to, from) in out.iter_mut().zip(digest(&SHA256, token.as_bytes()).as_ref()) {
        *to = *from;
    }
    out
}

/// The tokens of a file.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct TokenFile(HashMap<TokenDigest, Grant>);

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenFile({} tokens)", self.0.len())
    }
}

impl TokenFile {
    /// Parses lines of a token and the keys that it is for, with blanks between them. Empty lines and those
    /// that begin with `#` do not count.
    ///
    /// # Errors
    /// The number of the first line that is invalid, and what is wrong; or there is no token. The text has no
    /// part of a token.
    pub(super) fn parse(text: &str) -> Result<Self, AuthFileError> {
        let mut tokens = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let at_line = |problem| AuthFileError::Line { line: index + 1, problem };
            let mut words = line.split_whitespace();
            let Some(token) = words.next().filter(|word| !word.starts_with('#')) else { continue };
            let digest = match token.strip_prefix(HASHED) {
                Some(hex) => {
                    parse_digest(hex).ok_or_else(|| at_line("sha256: takes 64 hexadecimal digits"))?
                }
                None => token_digest(token),
            };
            let grant = Grant::new(words.map(str::to_owned), None);
            if grant.is_empty() {
                return Err(at_line("no room key follows the token; write * for every key"));
            }
            if tokens.insert(digest, grant).is_some() {
                return Err(at_line("the token is in the file twice"));
            }
        }
        if tokens.is_empty() { Err(AuthFileError::NoTokens) } else { Ok(TokenFile(tokens)) }
    }

    /// Returns the rights of a token.
    pub(super) fn check(&self, token: &str) -> Result<Grant, AuthRefusal> {
        self.0.get(&token_digest(token)).cloned().ok_or(AuthRefusal::InvalidToken)
    }
}

fn parse_digest(hex: &str) -> Option<TokenDigest> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_for_their_keys() {
        let hashed = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        let text = format!("# tokens\n\nabc room team-*\n  def  *  \n{hashed} hidden\r\n");
        let file = TokenFile::parse(&text).unwrap();
        let allows = |token: &str, key: &str| file.check(token).map(|grant| grant.allows(key));
        assert_eq!(allows("abc", "room"), Ok(true));
        assert_eq!(allows("abc", "team-1"), Ok(true));
        assert_eq!(allows("abc", "other"), Ok(false));
        assert_eq!(allows("def", "other"), Ok(true));
        assert_eq!(allows("secret", "hidden"), Ok(true));
        assert_eq!(allows(hashed, "hidden"), Err(AuthRefusal::InvalidToken));
        for unknown in ["", "ab", "abcd", "#"] {
            assert_eq!(allows(unknown, "room"), Err(AuthRefusal::InvalidToken));
        }
        assert_eq!(format!("{file:?}"), "TokenFile(3 tokens)");
    }

    #[test]
    fn invalid_lines_are_errors_without_their_text() {
        for (text, expected) in [
            ("x *\nsecret", "line 2: no room key follows the token; write * for every key"),
            ("secret a\nsecret b", "line 2: the token is in the file twice"),
            ("sha256:12 *", "line 1: sha256: takes 64 hexadecimal digits"),
            ("# no more than this\n", "there is no token in it"),
        ] {
            assert_eq!(TokenFile::parse(text).unwrap_err().to_string(), expected);
        }
    }
}
