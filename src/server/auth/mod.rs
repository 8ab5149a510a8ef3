//! Authentication of clients by tokens: those of a file, signed ones, or those that a program of the operator
//! accepts.

mod callout;
mod grant;
mod jwt;
mod request_token;
mod token_file;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use thiserror::Error;

use crate::config::io_text::read_error_text;
use crate::config::redact::displayed_path;
use crate::config::{AuthConfig, AuthMethod};
use crate::server::address_table::ClientNetwork;
use crate::server::refusals::RefusalCause;
use crate::server::regular_file;
use crate::server::telemetry::CalloutCounts;
use callout::Callout;
pub(crate) use grant::Grant;
use jwt::JwtVerifier;
pub(crate) use request_token::{RequestToken, take_token};
use token_file::TokenFile;

/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Failure to set up authentication, in one line.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuthError {
    /// A file cannot be read.
    #[error("cannot read the file of --auth, {}: {}", displayed_path(path), read_error_text(source))]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A file does not contain what it should.
    #[error("cannot use the file of --auth, {path}: {source}", path = displayed_path(path))]
    Content {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: AuthFileError,
    },
    /// The program that decides cannot be asked.
    #[error("cannot use --auth callout: {0}")]
    Callout(#[source] AuthFileError),
}

/// A problem with the content of a file, or with a URL. The text has no part of a secret.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuthFileError {
    /// A line is invalid.
    #[error("line {line}: {problem}")]
    Line {
        /// Number of the line.
        line: usize,
        /// Problem, as a phrase.
        problem: &'static str,
    },
    /// The secret can be guessed.
    #[error("the secret of HS256 has less than 32 bytes; make one with 'openssl rand -base64 48'")]
    ShortSecret,
    /// The text is no secret; the problem names what it is instead.
    #[error(
        "it is no PEM public key, and no secret of HS256, as {0}; make one with 'openssl rand -base64 48'"
    )]
    NoSecret(&'static str),
    /// More keys than are tried.
    #[error("it holds more than 16 public keys")]
    TooManyKeys,
    /// No token in a file: all clients would be refused, perhaps as the file is about to be written.
    #[error("there is no token in it")]
    NoTokens,
    /// PEM text is damaged, or has no key.
    #[error("there is no PEM public key in it")]
    Pem,
    /// A private key, which only the issuer of tokens needs.
    #[error("it holds a private key; write the public key to another file with 'openssl pkey -pubout'")]
    PrivateKey,
    /// A key of another kind.
    #[error("a public key of no supported kind, which are RSA of 2048 bits or more and Ed25519")]
    UnsupportedKey,
    /// The text is no URL of HTTP.
    #[error("the URL is none of http:// or https:// with a host")]
    Url,
    /// The URL names a user.
    #[error("the URL has a user or a password, which are not sent; a secret can be in its query")]
    UrlUser,
    /// No certificate is trusted.
    #[error("the system has no certificates for https")]
    NoRoots,
}

/// The reason for which a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthRefusal {
    /// No token in the request.
    NoToken,
    /// A token that is unknown, malformed, wrongly signed, not valid yet or for another audience.
    InvalidToken,
    /// A token whose time is over.
    ExpiredToken,
    /// A token that names no room keys.
    NoKeys,
    /// A token for other room keys.
    ForbiddenKey,
    /// A client that asks too often, and may try again after this many seconds.
    TooManyRequests(u64),
    /// The program that decides does not answer, and the client may try again after this many seconds.
    Unavailable(u64),
}

impl AuthRefusal {
    /// Returns the cause that refusals are counted under.
    pub(crate) const fn cause(self) -> RefusalCause {
        match self {
            AuthRefusal::NoToken => RefusalCause::MissingToken,
            AuthRefusal::InvalidToken => RefusalCause::InvalidToken,
            AuthRefusal::ExpiredToken => RefusalCause::ExpiredToken,
            AuthRefusal::NoKeys | AuthRefusal::ForbiddenKey => RefusalCause::ForbiddenKey,
            AuthRefusal::TooManyRequests(_) => RefusalCause::TooManyTokenRequests,
            AuthRefusal::Unavailable(_) => RefusalCause::AuthUnavailable,
        }
    }
}

/// Decides about tokens.
#[derive(Debug)]
pub(crate) struct Authenticator {
    verifier: Mutex<Arc<Verifier>>,
}

/// A set of tokens, or of rules about them.
#[derive(Debug)]
pub(crate) struct Verifier(VerifierKind);

#[derive(Debug)]
enum VerifierKind {
    TokenFile(TokenFile),
    Jwt(JwtVerifier),
    Callout(Arc<Callout>),
}

impl Verifier {
    /// Returns the verifier of this configuration; `None` if every client may connect. Reads files. Questions
    /// to a program are counted in `counts`.
    ///
    /// # Errors
    /// A file cannot be read or used, or the URL is invalid.
    pub(crate) fn load(config: &AuthConfig, counts: &Arc<CalloutCounts>) -> Result<Option<Self>, AuthError> {
        Ok(Some(Verifier(match &config.method {
            AuthMethod::None => return Ok(None),
            AuthMethod::TokenFile(path) => {
                let text = String::from_utf8(read(path)?).map_err(|_| AuthError::Content {
                    path: path.clone(),
                    source: AuthFileError::Line { line: 1, problem: "the file is not UTF-8" },
                })?;
                let tokens = TokenFile::parse(&text);
                VerifierKind::TokenFile(
                    tokens.map_err(|source| AuthError::Content { path: path.clone(), source })?,
                )
            }
            AuthMethod::Jwt(path) => {
                let audience = config.jwt_audience.as_deref();
                let jwt = JwtVerifier::parse(&read(path)?, &config.jwt_claim, audience);
                VerifierKind::Jwt(jwt.map_err(|source| AuthError::Content { path: path.clone(), source })?)
            }
            AuthMethod::Callout(url) => {
                let callout = Callout::new(url, config.callout_timeout, config.callout_cache, counts);
                VerifierKind::Callout(Arc::new(callout.map_err(AuthError::Callout)?))
            }
        })))
    }
}

impl Authenticator {
    pub(crate) fn new(verifier: Verifier) -> Arc<Self> {
        Arc::new(Authenticator { verifier: Mutex::new(Arc::new(verifier)) })
    }

    /// Decides by `verifier` from now on. Clients that are connected stay.
    pub(crate) fn replace(&self, verifier: Verifier) {
        *self.verifier.lock() = Arc::new(verifier);
    }

    /// Returns the rights of the client with this token, which connects from `network`.
    pub(crate) async fn check(
        &self,
        token: Option<&RequestToken>,
        network: Option<ClientNetwork>,
    ) -> Result<Grant, AuthRefusal> {
        let token = token.ok_or(AuthRefusal::NoToken)?.as_str();
        let verifier = Arc::clone(&self.verifier.lock());
        match &verifier.0 {
            VerifierKind::TokenFile(file) => file.check(token),
            VerifierKind::Jwt(jwt) => {
                let checked = jwt.check(token);
                if jwt.has_public_keys() {
                    // As long as the turn of a connection: with requests one behind another, others wait.
                    tokio::task::yield_now().await;
                }
                checked
            }
            VerifierKind::Callout(callout) => callout.check(token, network).await,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, AuthError> {
    regular_file::read(path, MAX_FILE).map_err(|source| AuthError::Read { path: path.to_owned(), source })
}
