//! The token that a tool shows to a server with `--auth`.

use std::path::PathBuf;

use clap::Args;
use thiserror::Error;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::config::redact::displayed_path;

/// The option of tools whose clients may need a token.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TokenArgs {
    /// Token of every client, for servers with --auth, or @FILE to read it from a file: command lines are
    /// visible to other users. It has to be for the keys that the tool uses, which are random ones but for
    /// replay
    #[arg(long, value_name = "TOKEN|@FILE")]
    token: Option<String>,
}

/// The reason why a token is not usable. No text quotes it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum TokenError {
    /// The file is not readable.
    #[error("cannot read the token of {}", displayed_path(file))]
    File {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The token cannot stand in a header.
    #[error("--token is empty, or has characters that no token has")]
    Malformed,
}

impl TokenArgs {
    /// Returns the value of an `Authorization` header, if there is a token.
    pub(super) fn authorization(&self) -> Result<Option<HeaderValue>, TokenError> {
        let token = match &self.token {
            None => return Ok(None),
            Some(text) => match text.strip_prefix('@').map(PathBuf::from) {
                None => text.clone(),
                Some(file) => std::fs::read_to_string(&file)
                    .map_err(|source| TokenError::File { file, source })?
                    .trim()
                    .to_owned(),
            },
        };
        let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let mut value = value.ok().filter(|_| is_token).ok_or(TokenError::Malformed)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(token: &str) -> Result<String, TokenError> {
        let args = TokenArgs { token: Some(token.to_owned()) };
        args.authorization().map(|value| value.unwrap().to_str().unwrap().to_owned())
    }

    #[test]
    fn token_is_given_or_in_a_file_and_never_shown() {
        assert_eq!(TokenArgs::default().authorization().unwrap(), None);
        assert_eq!(header("a.b-c").unwrap(), "Bearer a.b-c");
        let file = std::env::temp_dir().join(format!("sigver-token-{}", std::process::id()));
        std::fs::write(&file, "a.b-c\n").unwrap();
        assert_eq!(header(&format!("@{}", file.display())).unwrap(), "Bearer a.b-c");
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(header(&format!("@{}", file.display())), Err(TokenError::File { .. })));
        for wrong in ["", "two words", "a\r\nb", "é"] {
            assert!(matches!(header(wrong), Err(TokenError::Malformed)), "{wrong}");
        }
        let value = TokenArgs { token: Some("secret".to_owned()) }.authorization().unwrap();
        assert_eq!(format!("{value:?}"), "Some(Sensitive)");
    }
}
