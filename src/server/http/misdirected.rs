//! Connections that speak another protocol than the port: TLS to plain text, plain text to TLS, the PROXY
//! protocol, and HTTP/2. Each gets a response that names the mistake, in plain text: the client, or the proxy
//! in front of it, shows it.

use std::time::Duration;

use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::server::proxy_protocol::has_signature;
use crate::server::refusals::RefusalCause;

/// Longest time for the response to arrive.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Most bytes that are read after the response.
const MAX_REST: u64 = 64 * 1024;

/// First bytes of a TLS handshake.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 3];

/// First line of the preface of HTTP/2 (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// Beginning of the request of `sigver healthcheck`, which is no refusal on a port of TLS: it asks in plain
/// text first.
pub(crate) const HEALTHCHECK_START: [u8; 48] = *b"GET / HTTP/1.1\r\nUser-Agent: sigver-healthcheck\r\n";

/// Returns the cause to refuse a connection that begins with these bytes, after the handshake if the port is
/// one of TLS.
pub(super) fn detect_before_http(bytes: &[u8]) -> Option<RefusalCause> {
    if bytes.starts_with(&TLS_HANDSHAKE) {
        return Some(RefusalCause::TlsOnPlainPort);
    }
    if bytes.starts_with(HTTP2_PREFACE) {
        return Some(RefusalCause::Http2);
    }
    has_signature(bytes).then_some(RefusalCause::ProxyHeader)
}

/// Returns the cause to refuse a connection to a port of TLS that begins with these bytes.
pub(crate) fn detect_on_tls_port(bytes: &[u8]) -> Option<RefusalCause> {
    if has_signature(bytes) {
        return Some(RefusalCause::ProxyHeader);
    }
    // Methods are capital letters in practice, and some clients begin with an empty line.
    let is_text =
        bytes.first().is_some_and(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'\r' | b'\n'));
    is_text.then_some(RefusalCause::HttpOnTlsPort)
}

/// Returns the status of the response to a connection that is refused.
pub(super) const fn status(cause: RefusalCause) -> StatusCode {
    match cause {
        RefusalCause::Http2 => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// Sends a response that states the cause, and ends the connection.
pub(crate) async fn reject<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, cause: RefusalCause) {
    let advice = match cause {
        RefusalCause::TlsOnPlainPort => "use ws:// or http://, or give the server --key and --cert",
        RefusalCause::HttpOnTlsPort => "use wss:// or https://",
        RefusalCause::ProxyHeader => {
            "switch it off in the proxy, or give the server --proxy-protocol and --trusted-proxies"
        }
        RefusalCause::MissingProxyHeader => {
            "connect by way of the proxy, or give it send-proxy-v2 or the like"
        }
        RefusalCause::InvalidProxyHeader => "it is of version 1 or 2",
        RefusalCause::Http2 => "use HTTP/1.1, also from a proxy to the server",
        _ => "",
    };
    // As text, too.
    let status = status(cause);
    let text = format!("{status}: {}; {advice}\n", cause.description());
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{text}",
        text.len()
    );
    let exchange = async {
        stream.write_all(response.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing a socket with unread bytes would reset the connection, and the response with it.
        tokio::io::copy(&mut stream.take(MAX_REST), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(RESPONSE_TIMEOUT, exchange).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_protocols_are_recognised_by_their_first_bytes() {
        let client_hello = [0x16, 3, 1, 2, 0, 1];
        assert_eq!(detect_before_http(&client_hello), Some(RefusalCause::TlsOnPlainPort));
        assert_eq!(detect_on_tls_port(&client_hello), None);
        for proxy in [&b"PROXY TCP4 192.0.2.1"[..], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"] {
            assert_eq!(detect_before_http(proxy), Some(RefusalCause::ProxyHeader));
            assert_eq!(detect_on_tls_port(proxy), Some(RefusalCause::ProxyHeader));
        }
        for http in [&b"GET / HTTP/1.1\r\n"[..], b"\r\nGET /", b"PROPFIND / HTTP/1.1", b"PRI * HTTP/1.1"] {
            assert_eq!(detect_before_http(http), None);
            assert_eq!(detect_on_tls_port(http), Some(RefusalCause::HttpOnTlsPort));
        }
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        assert_eq!(detect_before_http(preface), Some(RefusalCause::Http2));
        assert_eq!(detect_on_tls_port(preface), Some(RefusalCause::HttpOnTlsPort));
        assert_eq!(detect_on_tls_port(&[0x80, 0x2e, 1, 3]), None);
    }
}
