//! Authentication of clients.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::ConfigError;
use crate::config::parse::ValueError;

/// Claim of a JSON Web Token that names the room keys.
pub const DEFAULT_JWT_CLAIM: &str = "keys";

/// Longest wait for the program that decides about tokens.
pub const DEFAULT_CALLOUT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for which its answers are kept.
pub const DEFAULT_CALLOUT_CACHE: Duration = Duration::from_secs(60);

/// Settings of the authentication of clients. By default there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthConfig {
    /// Kind of tokens that clients need.
    pub method: AuthMethod,
    /// Claim of a JSON Web Token that names the room keys. See [`DEFAULT_JWT_CLAIM`].
    pub jwt_claim: String,
    /// Audience that a JSON Web Token must have; `None` is a token without one.
    pub jwt_audience: Option<String>,
    /// Longest wait for the program that decides about tokens. See [`DEFAULT_CALLOUT_TIMEOUT`].
    pub callout_timeout: Duration,
    /// Time for which its answers are kept. See [`DEFAULT_CALLOUT_CACHE`].
    pub callout_cache: Duration,
}

impl Default for AuthConfig {
    fn default() -> Self {
        AuthConfig {
            method: AuthMethod::None,
            jwt_claim: DEFAULT_JWT_CLAIM.to_owned(),
            jwt_audience: None,
            callout_timeout: DEFAULT_CALLOUT_TIMEOUT,
            callout_cache: DEFAULT_CALLOUT_CACHE,
        }
    }
}

impl AuthConfig {
    /// Checks that no setting is for another kind of tokens. One with the default value counts as not given.
    ///
    /// # Errors
    /// [`ConfigError::AuthMethodMissing`].
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let AuthConfig { method, jwt_claim, jwt_audience, callout_timeout, callout_cache } = self;
        let unused = match method {
            _ if !matches!(method, AuthMethod::Jwt(_)) && jwt_claim != DEFAULT_JWT_CLAIM => {
                ("auth-jwt-claim", "jwt:<path>")
            }
            _ if !matches!(method, AuthMethod::Jwt(_)) && jwt_audience.is_some() => {
                ("auth-jwt-audience", "jwt:<path>")
            }
            AuthMethod::Callout(_) => return Ok(()),
            _ if *callout_timeout != DEFAULT_CALLOUT_TIMEOUT => ("auth-callout-timeout", "callout:<url>"),
            _ if *callout_cache != DEFAULT_CALLOUT_CACHE => ("auth-callout-cache", "callout:<url>"),
            AuthMethod::None | AuthMethod::TokenFile(_) | AuthMethod::Jwt(_) => return Ok(()),
        };
        Err(ConfigError::AuthMethodMissing { option: unused.0, method: unused.1 })
    }
}

/// Kind of tokens that clients need.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AuthMethod {
    /// None: every client may connect, as with the Node.js servers.
    #[default]
    None,
    /// Tokens in this file.
    TokenFile(PathBuf),
    /// JSON Web Tokens that are signed with a key in this file.
    Jwt(PathBuf),
    /// Tokens that the program at this URL accepts.
    Callout(String),
}

impl AuthMethod {
    /// Parses `none`, `token-file:PATH`, `jwt:PATH` or `callout:URL`.
    ///
    /// # Errors
    /// The text is none of these.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        match text.split_once(':') {
            None if text == "none" => Ok(AuthMethod::None),
            Some(("token-file", path)) if !path.is_empty() => Ok(AuthMethod::TokenFile(path.into())),
            Some(("jwt", path)) if !path.is_empty() => Ok(AuthMethod::Jwt(path.into())),
            Some(("callout", url)) if url.starts_with("http://") || url.starts_with("https://") => {
                Ok(AuthMethod::Callout(url.to_owned()))
            }
            _ => Err(ValueError::Word("none, token-file:<path>, jwt:<path of the key>, or callout:<url>")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_need_their_kind_of_tokens() {
        let jwt = AuthMethod::Jwt("k".into());
        let callout = AuthMethod::Callout("http://h".to_owned());
        let file = AuthMethod::TokenFile("t".into());
        let defaults = AuthConfig::default;
        let unused = |config: AuthConfig| match config.check() {
            Err(ConfigError::AuthMethodMissing { option, .. }) => option,
            _ => "",
        };
        for method in [AuthMethod::None, file, jwt, callout] {
            let config = AuthConfig { method: method.clone(), ..defaults() };
            assert_eq!(unused(config.clone()), "");
            let is_jwt = matches!(method, AuthMethod::Jwt(_));
            let is_callout = matches!(method, AuthMethod::Callout(_));
            let expected = |name, is_used: bool| if is_used { "" } else { name };
            let claim = AuthConfig { jwt_claim: "rooms".to_owned(), ..config.clone() };
            assert_eq!(unused(claim), expected("auth-jwt-claim", is_jwt));
            let audience = AuthConfig { jwt_audience: Some("a".to_owned()), ..config.clone() };
            assert_eq!(unused(audience), expected("auth-jwt-audience", is_jwt));
            let timeout = AuthConfig { callout_timeout: Duration::ZERO, ..config.clone() };
            assert_eq!(unused(timeout), expected("auth-callout-timeout", is_callout));
            let cache = AuthConfig { callout_cache: Duration::ZERO, ..config };
            assert_eq!(unused(cache), expected("auth-callout-cache", is_callout));
        }
    }
}
