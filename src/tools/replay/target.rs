//! The server at the other end: its URL, and connections to it, over TLS or not. No WebSockets here.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection, over TLS or not.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A server.
#[derive(Clone)]
pub struct Target {
    /// A name, or an IP address without brackets.
    host: String,
    /// As in a `Host` header.
    authority: String,
    port: u16,
    tls: Option<TlsConnector>,
    /// What comes before a client's own path.
    base: String,
}

impl Target {
    /// The server of a URL: `ws://HOST[:PORT][/PATH]`, or with `wss`. Over TLS it must have a certificate that the
    /// system trusts, or the file that the environment variable `SSL_CERT_FILE` names.
    ///
    /// # Errors
    ///
    /// When it is no such URL, or the system trusts nobody.
    pub fn parse(url: &str) -> Result<Target> {
        let (tls, rest) = match url.split_once("://") {
            Some(("ws", rest)) => (false, rest),
            Some(("wss", rest)) => (true, rest),
            _ => bail!("{url:?} does not begin with ws:// or wss://"),
        };
        let (authority, base) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if url.contains(['?', '#', '@']) || url.contains(char::is_whitespace) {
            bail!("{url:?} has more than a host, a port and a path");
        }
        let port_of = |text: &str| text.parse::<u16>().with_context(|| format!("{url:?} has no proper port"));
        let default = if tls { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port_of(port)?),
            _ => (authority, default),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if bare.is_empty() {
            bail!("{url:?} has no host");
        }
        Ok(Target {
            host: bare.to_owned(),
            authority: authority.to_owned(),
            port,
            tls: tls.then(connector).transpose().map_err(|errors| {
                anyhow!("there are no certificates to trust; SSL_CERT_FILE may name some. {errors}")
            })?,
            base: base.trim_end_matches('/').to_owned(),
        })
    }

    /// A connection.
    ///
    /// # Errors
    ///
    /// When there is none within ten seconds.
    pub async fn dial(&self) -> Result<Box<dyn Stream>> {
        let dialled = timeout(PATIENCE, async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            let stream: Box<dyn Stream> = match &self.tls {
                None => Box::new(stream),
                Some(tls) => {
                    let name = ServerName::try_from(self.host.clone())?;
                    Box::new(tls.connect(name, stream).await?)
                }
            };
            anyhow::Ok(stream)
        });
        match dialled.await {
            Ok(dialled) => dialled.with_context(|| format!("cannot connect to {self}")),
            Err(_) => bail!("cannot connect to {self}: no answer within {} s", PATIENCE.as_secs()),
        }
    }

    /// The value of a `Host` header.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What stands for a client's path there.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

/// What dials over TLS, and trusts whom the system trusts, or the file that `SSL_CERT_FILE` names.
///
/// # Errors
///
/// Why nobody is trusted.
pub fn connector() -> Result<TlsConnector, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(found.certs).0 == 0 {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(errors.join("; "));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Target {
            host: address.ip().to_string(),
            authority: address.to_string(),
            port: address.port(),
            tls: None,
            base: String::new(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority, self.base)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, host, port, path, shown) in [
            ("ws://localhost", "localhost", 80, "/k", "ws://localhost"),
            ("ws://h:8000/", "h", 8000, "/k", "ws://h:8000"),
            ("ws://[::1]:8000/a/b/", "::1", 8000, "/a/b/k", "ws://[::1]:8000/a/b"),
            ("ws://[::1]", "::1", 80, "/k", "ws://[::1]"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, port), "{url}");
            assert_eq!((target.path("/k"), target.to_string()), (path.to_owned(), shown.to_owned()));
        }
        for wrong in
            ["h:8000", "http://h", "ws://", "ws://h:x", "ws://:80", "ws://u@h", "ws://h?x", "ws:// h"]
        {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn who_is_not_there_is_named() {
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let error = Target::parse(&format!("ws://127.0.0.1:{port}")).unwrap().dial().await.err().unwrap();
        assert!(format!("{error:#}").starts_with("cannot connect to ws://127.0.0.1:"), "{error:#}");
    }
}
