//! The server that is looked at: its URL, and connections to it, over TLS or not. No dialects here.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::http::Uri;

use crate::tools::replay::target::connector;

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server.
#[derive(Clone)]
pub struct Target {
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    /// What comes before a client's own path.
    base: String,
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The URL is none that can be connected to.
    #[error("'{0}' is no URL of a WebSocket server: ws://HOST:PORT or wss://HOST:PORT is expected")]
    Url(String),
    /// The system has no certificates that could be trusted.
    #[error("no certificates to trust: {0}")]
    Certificates(String),
    /// The network, or TLS, says no.
    #[error("cannot connect: {0}")]
    Network(#[from] io::Error),
    /// It takes too long.
    #[error("no answer within {} seconds", PATIENCE.as_secs())]
    Slow,
    /// The server answers, but grants no WebSocket.
    #[error("refused with HTTP {0}")]
    Refused(u16),
    /// What the server answers is no WebSocket.
    #[error("no WebSocket: {0}")]
    Handshake(String),
}

/// A connection, over TLS or not.
pub enum Stream {
    /// Not.
    Plain(TcpStream),
    /// Over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A WebSocket.
pub type Socket = WebSocketStream<Stream>;

impl Target {
    /// The server of a URL. Of `wss://` the certificates that the system trusts are trusted, or those of the file that
    /// `SSL_CERT_FILE` names.
    ///
    /// # Errors
    ///
    /// When it is no such URL.
    pub fn parse(url: &str) -> Result<Self, ConnectError> {
        let wrong = || ConnectError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let (tls, port) = match uri.scheme_str() {
            Some("ws" | "http") => (None, 80),
            Some("wss" | "https") => (Some(connector().map_err(ConnectError::Certificates)?), 443),
            _ => return Err(wrong()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?.to_owned();
        Ok(Target {
            host,
            port: uri.port_u16().unwrap_or(port),
            tls,
            base: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// A connection.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn connect(&self) -> Result<Stream, ConnectError> {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = timeout(PATIENCE, TcpStream::connect((bare, self.port)));
        let stream = stream.await.map_err(|_| ConnectError::Slow)??;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Stream::Plain(stream)) };
        let name = ServerName::try_from(bare.to_owned()).map_err(io::Error::other)?;
        let stream = timeout(PATIENCE, tls.connect(name, stream));
        Ok(Stream::Tls(Box::new(stream.await.map_err(|_| ConnectError::Slow)??)))
    }

    /// A WebSocket on this path, and the answer to its request.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn open(&self, path: &str) -> Result<(Socket, Response), ConnectError> {
        let stream = self.connect().await?;
        let url = format!("{}{path}", self);
        let opening = timeout(PATIENCE, tokio_tungstenite::client_async(url, stream));
        match opening.await.map_err(|_| ConnectError::Slow)? {
            Ok(opened) => Ok(opened),
            Err(WsError::Http(response)) => Err(ConnectError::Refused(response.status().as_u16())),
            Err(error) => Err(ConnectError::Handshake(error.to_string())),
        }
    }

    /// The value of a `Host` header.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The path of the URL, without a `/` at its end.
    pub fn base(&self) -> &str {
        &self.base
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.base)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        assert_eq!(Target::parse("ws://localhost").unwrap().to_string(), "ws://localhost:80");
        assert_eq!(Target::parse("ws://[::1]:8000/").unwrap().to_string(), "ws://[::1]:8000");
        assert_eq!(Target::parse("ws://h:1/signal/").unwrap().to_string(), "ws://h:1/signal");
        for wrong in ["localhost:8000", "ftp://h", "", "ws://"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }
}
