//! Server URLs, and connections to the server that one names, with or without TLS.
//!
//! Shared by the synthetic clients and by `replay`: it only opens connections, and neither reads nor writes a
//! frame.

mod error_text;
mod token;
mod trust;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::{Serialize, Serializer};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, error::ProtocolError};

pub(crate) use self::error_text::{error_chain, io_error_text};
pub(crate) use self::token::TokenArgs;
pub use self::trust::{CertificateFileError, TrustArgs};
use crate::config::redact::displayed;

/// Time limit of each of: the TCP connection, the TLS handshake, the WebSocket handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Behaviour of a server that ends a connection at once.
pub(super) const UNANSWERED: &str = "closed the connection without an answer";

/// A server, as its URL names it.
#[derive(Clone)]
pub struct Target {
    /// A name, or an IP address without brackets.
    host: String,
    /// Host and port, as in a `Host` header.
    authority: String,
    port: u16,
    tls: Option<TlsConnector>,
    /// Prefix of every path, without a `/` at its end.
    base: String,
    /// Value of the `Authorization` header of every upgrade.
    authorization: Option<HeaderValue>,
}

/// The reason why there is no connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL names no server.
    #[error("'{shown}' is not the URL of a server: [ws|wss|http|https]://HOST[:PORT][/PATH] is expected", shown = displayed(.0))]
    Url(String),
    /// The system has no certificates to trust.
    #[error("there are no trusted certificates (--cacert or SSL_CERT_FILE may name a file of them): {0}")]
    Certificates(String),
    /// The file of trusted certificates is not usable.
    #[error("cannot use the trusted certificates {}: {problem}", displayed(&file.to_string_lossy()))]
    Cacert {
        /// The file.
        file: PathBuf,
        /// The reason.
        problem: CertificateFileError,
    },
    /// The certificate or the private key of this client is not usable.
    #[error("cannot use the client's certificate or key {}: {problem}", displayed(&file.to_string_lossy()))]
    ClientCertificate {
        /// The file.
        file: PathBuf,
        /// The reason.
        problem: CertificateFileError,
    },
    /// The host name has no address.
    #[error("cannot connect to {server}: the host name '{}' is not found", displayed(host))]
    Name {
        /// The server's URL.
        server: String,
        /// The name.
        host: String,
        /// The cause.
        source: io::Error,
    },
    /// TCP or TLS failed.
    #[error("cannot connect to {server}")]
    Network {
        /// The server's URL.
        server: String,
        /// The cause.
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("cannot connect to {server}: no answer within {} seconds", CONNECT_TIMEOUT.as_secs())]
    Timeout {
        /// The server's URL.
        server: String,
    },
    /// The server answered the upgrade request with another HTTP status than 101.
    #[error("upgrade refused with HTTP {0}")]
    Status(u16),
    /// A request without TLS was sent to a port of TLS.
    #[error("{server} is a port of TLS, which needs wss:// or https://")]
    TlsPort {
        /// The server's URL.
        server: String,
    },
    /// The answer to the upgrade request is not HTTP, or there is none.
    #[error("{server} {problem}{}", if *tls { "" } else { "; a port of TLS needs wss:// or https://" })]
    NotHttp {
        /// The server's URL.
        server: String,
        /// The server's behaviour.
        problem: &'static str,
        /// True if the connection is TLS.
        tls: bool,
    },
    /// The answer to the upgrade request is not that of a WebSocket server.
    #[error("WebSocket handshake failed: {0}")]
    Handshake(String),
}

/// A connection, with or without TLS.
pub enum DialedStream {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A WebSocket on a dialed connection.
pub type DialedSocket = WebSocketStream<DialedStream>;

impl Target {
    /// Parses `[ws|wss|http|https]://HOST[:PORT][/PATH]`. TLS servers need a certificate that the system
    /// trusts, or that the file named by the environment variable `SSL_CERT_FILE` holds.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Url`], or [`ConnectError::Certificates`] if a TLS server cannot be trusted at all.
    pub fn parse(url: &str) -> Result<Target, ConnectError> {
        Target::with_trust(url, &TrustArgs::default())
    }

    /// Parses a URL, as [`parse`](Self::parse), of a server of which these certificates are trusted.
    ///
    /// # Errors
    ///
    /// Those of [`parse`](Self::parse), and [`ConnectError::Cacert`].
    pub fn with_trust(url: &str, trust: &TrustArgs) -> Result<Target, ConnectError> {
        let wrong = || ConnectError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let (tls, default_port) = match uri.scheme_str() {
            Some("ws" | "http") => (false, 80),
            Some("wss" | "https") => (true, 443),
            _ => return Err(wrong()),
        };
        let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else { return Err(wrong()) };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if bare.is_empty() || url.contains(['?', '#', '@']) {
            return Err(wrong());
        }
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => default_port,
            Some(port) => port.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or_else(wrong)?,
            None => return Err(wrong()),
        };
        Ok(Target {
            host: bare.to_owned(),
            authority: authority.to_string(),
            port,
            tls: tls.then(|| trust.connector()).transpose()?,
            base: uri.path().trim_end_matches('/').to_owned(),
            authorization: None,
        })
    }

    /// Returns this server with a token for every WebSocket.
    ///
    /// # Errors
    ///
    /// The token is not readable, or malformed.
    pub(crate) fn with_token(self, token: &TokenArgs) -> Result<Target, token::TokenError> {
        Ok(Target { authorization: token.authorization()?, ..self })
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Name`], [`ConnectError::Network`] or [`ConnectError::Timeout`].
    pub async fn dial(&self) -> Result<DialedStream, ConnectError> {
        let failed = |source| ConnectError::Network { server: self.to_string(), source };
        let late = |_| ConnectError::Timeout { server: self.to_string() };
        let tcp = async {
            let addresses = lookup_host((self.host.as_str(), self.port)).await;
            let addresses: Vec<SocketAddr> = addresses.map_err(|source| self.no_address(source))?.collect();
            TcpStream::connect(&addresses[..]).await.map_err(failed)
        };
        let tcp = timeout(CONNECT_TIMEOUT, tcp).await.map_err(late)??;
        tcp.set_nodelay(true).map_err(failed)?;
        let Some(tls) = &self.tls else { return Ok(DialedStream::Plain(tcp)) };
        let name =
            ServerName::try_from(self.host.clone()).map_err(|error| failed(io::Error::other(error)))?;
        let stream = timeout(CONNECT_TIMEOUT, tls.connect(name, tcp));
        Ok(DialedStream::Tls(Box::new(stream.await.map_err(late)?.map_err(failed)?)))
    }

    /// Checks that an HTTP server answers a WebSocket on a path of a client, granted or not.
    ///
    /// # Errors
    ///
    /// Those of [`dial`](Self::dial), [`ConnectError::TlsPort`] and [`ConnectError::NotHttp`].
    pub async fn check(&self, path: &str) -> Result<(), ConnectError> {
        match self.open(path).await {
            Ok(_) | Err(ConnectError::Status(_) | ConnectError::Handshake(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Opens a WebSocket on a client's path, as a page of the server's own origin would. Returns it with the
    /// answer to the upgrade request.
    pub async fn open(&self, path: &str) -> Result<(DialedSocket, Response), ConnectError> {
        let request = format!("ws://{}{}", self.authority, self.path(path)).into_client_request();
        let mut request = request.map_err(|error| ConnectError::Handshake(error.to_string()))?;
        let origin = HeaderValue::try_from(self.origin());
        request.headers_mut().extend(origin.ok().map(|origin| (header::ORIGIN, origin)));
        self.upgrade(request, None).await
    }

    /// Opens a WebSocket by this request, which is made for [`authority`](Self::authority) and
    /// [`path`](Self::path).
    pub(crate) async fn upgrade(
        &self,
        request: impl IntoClientRequest + Unpin,
        config: Option<WebSocketConfig>,
    ) -> Result<(DialedSocket, Response), ConnectError> {
        let mut request =
            request.into_client_request().map_err(|error| ConnectError::Handshake(error.to_string()))?;
        let token = self.authorization.clone().map(|token| (header::AUTHORIZATION, token));
        request.headers_mut().extend(token);
        let stream = self.dial().await?;
        let upgrade = tokio_tungstenite::client_async_with_config(request, stream, config);
        match timeout(CONNECT_TIMEOUT, upgrade).await {
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(WsError::Http(response))) => {
                let body = response.body().as_deref().unwrap_or_default();
                Err(self.refused(response.status().as_u16(), body))
            }
            Ok(Err(WsError::Io(source))) => Err(ConnectError::Network { server: self.to_string(), source }),
            Ok(Err(WsError::Protocol(ProtocolError::HandshakeIncomplete))) => Err(self.unanswered()),
            Ok(Err(WsError::Protocol(ProtocolError::HttparseError(_)))) => Err(self.not_http()),
            Ok(Err(error)) => Err(ConnectError::Handshake(error.to_string())),
            Err(_) => Err(ConnectError::Timeout { server: self.to_string() }),
        }
    }

    fn no_address(&self, source: io::Error) -> ConnectError {
        ConnectError::Name { server: self.to_string(), host: self.host.clone(), source }
    }

    /// Returns the error of an upgrade that is answered with this HTTP status and body.
    pub(crate) fn refused(&self, status: u16, body: &[u8]) -> ConnectError {
        let body = String::from_utf8_lossy(body);
        // Texts of this gateway, nginx, Go and Apache.
        let names_tls = ["port of TLS", "HTTPS", "SSL"].iter().any(|word| body.contains(word));
        match self.tls {
            None if status == 400 && names_tls => ConnectError::TlsPort { server: self.to_string() },
            _ => ConnectError::Status(status),
        }
    }

    /// Returns the error of a connection on which something else than HTTP arrives.
    pub(crate) fn not_http(&self) -> ConnectError {
        let problem = "does not answer as an HTTP server";
        ConnectError::NotHttp { server: self.to_string(), problem, tls: self.tls.is_some() }
    }

    /// Returns the error of a connection that the server closes without an answer.
    pub(crate) fn unanswered(&self) -> ConnectError {
        ConnectError::NotHttp { server: self.to_string(), problem: UNANSWERED, tls: self.tls.is_some() }
    }

    /// Returns the value of a `Host` header.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the value of an `Origin` header, as pages of this server send it.
    pub(crate) fn origin(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }

    /// Returns the value of an `Authorization` header, if every upgrade has one.
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.authorization.as_ref().and_then(|value| value.to_str().ok())
    }

    /// Returns the path on the server of a client's path.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

impl ConnectError {
    /// Returns the HTTP status if it is that of a server, or of a proxy in front of it, that grants no
    /// connection to this client or at this time, whatever the client speaks.
    pub(crate) fn refusal(&self) -> Option<u16> {
        match self {
            ConnectError::Status(status @ (401 | 403 | 407 | 429 | 500 | 502..=504)) => Some(*status),
            _ => None,
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Target {
            host: address.ip().to_string(),
            authority: address.to_string(),
            port: address.port(),
            tls: None,
            base: String::new(),
            authorization: None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority, self.base)
    }
}

/// The URL, without the token.
impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

impl AsyncRead for DialedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            DialedStream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            DialedStream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for DialedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            DialedStream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            DialedStream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            DialedStream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            DialedStream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            DialedStream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            DialedStream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_split_into_its_parts() {
        for (url, host, port, path, shown) in [
            ("ws://localhost", "localhost", 80, "/k", "ws://localhost"),
            ("http://h:8000/", "h", 8000, "/k", "ws://h:8000"),
            ("ws://[::1]:8000/a/b/", "::1", 8000, "/a/b/k", "ws://[::1]:8000/a/b"),
            ("ws://[::1]", "::1", 80, "/k", "ws://[::1]"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, port), "{url}");
            assert_eq!((target.path("/k"), target.to_string()), (path.to_owned(), shown.to_owned()));
        }
    }

    #[test]
    fn other_urls_are_rejected() {
        for wrong in [
            "",
            "h:8000",
            "ftp://h",
            "ws://",
            "ws://h:x",
            "ws://h:",
            "ws://h:70000",
            "ws://:80",
            "ws://u@h",
            "ws://h?x",
            "ws://h#x",
            "ws:// h",
        ] {
            assert!(matches!(Target::parse(wrong), Err(ConnectError::Url(_))), "{wrong}");
        }
    }

    #[tokio::test]
    async fn refused_connection_names_server_and_cause() {
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let target = Target::parse(&format!("ws://127.0.0.1:{port}")).unwrap();
        let error = error_chain(&target.dial().await.err().unwrap());
        let refused = "connection refused: no program listens there";
        assert_eq!(error, format!("cannot connect to ws://127.0.0.1:{port}: {refused}"));
    }
}
