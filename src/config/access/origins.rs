//! Patterns of the origins from which pages may connect.

use std::fmt;

use regex_lite::Regex;

use crate::config::parse::ValueError;

/// Origins of the pages that may connect. Browsers send `Origin` with every WebSocket and every request
/// that may be read across origins, and `Sec-Fetch-Site: cross-site` with other requests of a page.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub enum AllowedOrigins {
    /// Every origin, as with the Node.js servers.
    #[default]
    Any,
    /// Origins that match one of these.
    Only(Vec<OriginPattern>),
}

impl AllowedOrigins {
    /// Parses a list of patterns with commas between them, or `*`. A pattern is an origin
    /// (`https://example.org`), a host of any scheme and port (`example.org`), `null`, or an expression
    /// between slashes for whole origins. A host that begins with `*.` is every host below it.
    ///
    /// # Errors
    /// A part of the list is none of these, or the list is empty.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        if text.trim() == "*" {
            return Ok(AllowedOrigins::Any);
        }
        let patterns = split(text).into_iter().map(OriginPattern::parse).collect::<Result<Vec<_>, _>>()?;
        Ok(AllowedOrigins::Only(patterns))
    }

    /// Returns true if pages of this origin may connect.
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            AllowedOrigins::Any => true,
            AllowedOrigins::Only(patterns) => patterns.iter().any(|pattern| pattern.matches(origin)),
        }
    }
}

/// Splits a list at its commas, but for those within an expression.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text.trim());
    loop {
        let ends = rest.match_indices(',').map(|(at, _)| at);
        let end = match rest.strip_prefix('/') {
            None => ends.into_iter().next(),
            Some(_) => ends.into_iter().find(|end| rest[1..*end].trim_end().ends_with('/')),
        };
        let Some(end) = end else {
            parts.push(rest.trim_end());
            return parts;
        };
        parts.push(rest[..end].trim_end());
        rest = rest[end + 1..].trim_start();
    }
}

/// A pattern of origins.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum OriginPattern {
    /// Origins of a host.
    Host {
        /// Scheme; `None` is any, with any port.
        scheme: Option<String>,
        /// Host, or what follows the `*` of all hosts below one: `.example.org`.
        host: String,
        /// Port, if it is not that of the scheme.
        port: Option<u16>,
    },
    /// The origin of pages without one, such as files.
    Null,
    /// Origins in which the expression matches somewhere.
    ///
    /// `regex_lite` takes linear time and its classes are ASCII, like RE2, which signallerd used. Unicode
    /// classes (`\p`) and quotations (`\Q…\E`) of RE2 are missing; origins are ASCII.
    Expression(Regex),
}

/// Expressions are equal if their texts are.
impl PartialEq for OriginPattern {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OriginPattern::Host { scheme, host, port } => {
                let scheme = scheme.iter().map(|scheme| format!("{scheme}://")).collect::<String>();
                let port = port.iter().map(|port| format!(":{port}")).collect::<String>();
                let star = if host.starts_with('.') { "*" } else { "" };
                write!(f, "{scheme}{star}{host}{port}")
            }
            OriginPattern::Null => f.write_str("null"),
            OriginPattern::Expression(expression) => write!(f, "/{expression}/"),
        }
    }
}

impl OriginPattern {
    fn parse(text: &str) -> Result<Self, ValueError> {
        if let Some(expression) = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
            return Ok(OriginPattern::Expression(Regex::new(&format!("^(?:{expression})$"))?));
        }
        if text == "null" {
            return Ok(OriginPattern::Null);
        }
        Self::parse_host(text).ok_or_else(|| ValueError::Origin(text.to_owned()))
    }

    fn parse_host(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (scheme, authority) = match text.split_once("://") {
            Some((scheme, authority)) => (Some(scheme), authority.strip_suffix('/').unwrap_or(authority)),
            None => (None, &*text),
        };
        let (host, port) = split_port(authority);
        let port = port.map(parse_port).map_or(Some(None), |port| port.map(Some))?;
        let below = host.strip_prefix('*').filter(|rest| rest.starts_with('.'));
        let name = below.unwrap_or(host);
        let is_ipv6 = host.starts_with('[') && host.ends_with(']');
        let is_scheme = |scheme: &str| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
        };
        let is_valid = scheme.is_none_or(is_scheme)
            && (is_ipv6
                || name.chars().all(is_host_character) && name.contains(|c: char| c.is_ascii_alphanumeric()))
            && (below.is_some() || !name.starts_with('.'));
        is_valid.then(|| OriginPattern::Host {
            port: port.filter(|port| default_port(scheme) != Some(*port)),
            scheme: scheme.map(str::to_owned),
            host: name.to_owned(),
        })
    }

    /// Returns true if the pattern is for this origin.
    pub(crate) fn matches(&self, origin: &str) -> bool {
        match self {
            OriginPattern::Expression(expression) => expression.is_match(origin),
            OriginPattern::Null => origin == "null",
            OriginPattern::Host { scheme, host, port } => {
                let origin = origin.to_ascii_lowercase();
                let Some((of_origin, authority)) = origin.split_once("://") else { return false };
                let (name, of_page) = split_port(authority);
                let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                let is_origin = match inner {
                    Some(inner) => inner.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, ':' | '.')),
                    None => name.chars().all(is_host_character),
                };
                let is_host = match host.starts_with('.') {
                    true => name.len() > host.len() && name.ends_with(host.as_str()),
                    false => name == host,
                };
                let is_port = match of_page.map(parse_port) {
                    Some(None) => false,
                    Some(Some(of_page)) => match port {
                        Some(port) => of_page == *port,
                        None => scheme.is_none() || default_port(Some(of_origin)) == Some(of_page),
                    },
                    None => port.is_none_or(|port| default_port(Some(of_origin)) == Some(port)),
                };
                is_origin && is_host && is_port && scheme.as_ref().is_none_or(|scheme| scheme == of_origin)
            }
        }
    }
}

fn is_host_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')
}

/// Returns the port of these digits. The parser of the library takes a sign.
fn parse_port(digits: &str) -> Option<u16> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Returns the host and the port of an authority without a user.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn default_port(scheme: Option<&str>) -> Option<u16> {
    match scheme {
        Some("https" | "wss") => Some(443),
        Some("http" | "ws") => Some(80),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(list: &str, origin: &str) -> bool {
        AllowedOrigins::parse(list).unwrap().allows(origin)
    }

    #[test]
    fn origins_are_matched_whole() {
        for (list, origin, allowed) in [
            ("*", "https://anything.example", true),
            ("https://a.example", "https://a.example", true),
            ("https://A.example/", "https://a.EXAMPLE", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:444", false),
            ("https://a.example:443", "https://a.example", true),
            ("https://a.example", "https://a.example:443", true),
            ("http://a.example:8080", "http://a.example:8080", true),
            ("http://a.example:8080", "http://a.example", false),
            ("https://a.example", "https://a.example.evil.example", false),
            ("https://a.example", "https://b.example/https://a.example", false),
            ("https://a.example", "https://x@a.example", false),
            ("a.example", "http://a.example:3000", true),
            ("a.example", "https://a.example", true),
            ("a.example:443", "https://a.example", true),
            ("a.example:443", "http://a.example", false),
            ("a.example", "https://b.a.example", false),
            ("*.a.example", "https://b.a.example", true),
            ("*.a.example", "https://c.b.a.example:1", true),
            ("*.a.example", "https://a.example", false),
            ("*.a.example", "https://.a.example", false),
            ("*.a.example", "https://ba.example", false),
            ("https://*.a.example", "http://b.a.example", false),
            ("https://*.a.example", "https://b.a.example:1", false),
            ("*.a.example", "https://evil.example/.a.example", false),
            ("*.a.example", "https://evil.example?.a.example", false),
            ("*.a.example", "https://evil.example#.a.example", false),
            ("*.a.example", "https://x@b.a.example", false),
            ("*.a.example", "https://evil.example:1.a.example", false),
            ("*.a.example", "https://b\u{e9}.a.example", false),
            ("a.example", "https://a.example:+443", false),
            ("a.example", "https://a.example:", false),
            ("https://[::1]:8000", "https://[::1]:8000", true),
            ("[::1]", "http://[::1]", true),
            ("null", "null", true),
            ("a.example", "null", false),
            ("a.example", "", false),
            ("x, b.example ,c.example", "https://b.example", true),
            ("capacitor://localhost", "capacitor://localhost", true),
            (r"/https://pr-\d{1,3}\.a\.example/", "https://pr-12.a.example", true),
            (r"/https://pr-\d{1,3}\.a\.example/", "https://pr-12.a.example.evil.example", false),
            (r"/https://pr-\d{1,3}\.a\.example/", "https://pr-1234.a.example", false),
            (r"/http://x|https://y/ , z", "https://y", true),
            (r"/http://x|https://y/ , z", "https://yy", false),
            (r"/http://x|https://y/ , z", "https://z", true),
        ] {
            assert_eq!(allows(list, origin), allowed, "{list} for {origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for list in [
            "",
            "a,",
            ",",
            "https://",
            "*",
            "*.",
            "a b",
            "https://a/path",
            "a:99999",
            "a:b",
            "**.a",
            "a.*",
            "/x",
        ] {
            let list = if list == "*" { "*,a" } else { list };
            assert!(AllowedOrigins::parse(list).is_err(), "{list:?}");
        }
        assert!(AllowedOrigins::parse("/(/").is_err());
    }

    #[test]
    fn parsed_pattern_is_displayed_as_it_was() {
        for text in ["https://a.example", "*.a.example:8000", "null", "http://*.a", "/^(?:x)$/"] {
            let pattern = OriginPattern::parse(text).unwrap();
            let again = text.trim_start_matches("/^(?:").trim_end_matches(")$/");
            assert!(pattern.to_string().contains(again), "{pattern}");
        }
    }
}
