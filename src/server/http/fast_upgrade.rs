//! The upgrade to a WebSocket, straight from the bytes of its request: what nearly every connection begins with. The answer
//! is decided where all others are; only reading and writing are done here, by way of a buffer of the thread's.
//!
//! The answer goes out with the first frame, in one write, and a thousand joiners at once take a sixth less of the processor
//! than by way of hyper. Whatever is no such request, or not all there with the first read, is hyper's.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Route, Routes, UpgradeTarget, answer, is_upgrade};

/// How much is read at first, in bytes. A browser's request takes half a KiB to one.
const FIRST: usize = 4 * 1024;

/// The most fields that a request has here.
const MAX_FIELDS: usize = 32;

/// What a connection begins with.
#[derive(Debug)]
pub(super) enum FirstRead {
    /// A request for a WebSocket in a room, the answer that grants it, and what came after it.
    UpgradeRequest { grant: Vec<u8>, early: Bytes, wanted: UpgradeTarget },
    /// Something else.
    Other(Bytes),
}

thread_local! {
    static BUFFER: RefCell<[u8; FIRST]> = const { RefCell::new([0; FIRST]) };
}

/// Reads once.
pub(super) fn poll_first<S: AsyncRead + Unpin>(
    stream: &mut S,
    door: &Routes,
    context: &mut Context<'_>,
) -> Poll<io::Result<FirstRead>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(stream).poll_read(context, &mut buffer))?;
        let bytes = buffer.filled();
        Poll::Ready(Ok(
            granted(bytes, door).unwrap_or_else(|| FirstRead::Other(Bytes::copy_from_slice(bytes)))
        ))
    })
}

/// The answer to what is read, if it is a request for a WebSocket in a room and nothing is wrong about it.
fn granted(bytes: &[u8], door: &Routes) -> Option<FirstRead> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes).ok()? else { return None };
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    if head.version != Some(1)
        || headers.contains_key(header::CONTENT_LENGTH)
        || headers.contains_key(header::TRANSFER_ENCODING)
    {
        return None;
    }
    let mut request = Request::new(());
    *request.method_mut() = head.method?.parse().ok()?;
    *request.uri_mut() = head.path?.parse::<Uri>().ok()?;
    *request.headers_mut() = headers;
    if !door.websockets || !is_upgrade(&request) {
        return None;
    }
    if door.signaller.as_ref().is_some_and(|relay| !matches!(relay.claims(request.uri().path()), Ok(None))) {
        return None;
    }
    if door.events.as_ref().is_some_and(|events| !matches!(events.route(&request), Route::Pass)) {
        return None;
    }
    let (response, upgrade) = answer(&request);
    let wanted =
        UpgradeTarget::Room(upgrade.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS)?);
    Some(FirstRead::UpgradeRequest {
        grant: written(&response),
        early: Bytes::copy_from_slice(&bytes[length..]),
        wanted,
    })
}

/// An answer without a body, as bytes.
fn written<B>(response: &Response<B>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// A stream of which something was read already.
#[derive(Debug)]
pub(super) struct Rewind<S> {
    pub(super) early: Bytes,
    pub(super) stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOOR: Routes = Routes { websockets: true, signaller: None, events: None };
    const REQUEST: &str = "GET /room?favored HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    fn is_granted(request: &str) -> bool {
        granted(request.as_bytes(), &DOOR).is_some()
    }

    #[test]
    fn what_is_granted_is_what_is_answered() {
        let bytes = [REQUEST.as_bytes(), b"early"].concat();
        let Some(FirstRead::UpgradeRequest { grant, early, wanted: UpgradeTarget::Room(upgrade) }) =
            granted(&bytes, &DOOR)
        else {
            panic!("not granted")
        };
        let grant = String::from_utf8(grant).unwrap();
        assert!(grant.starts_with("HTTP/1.1 101 Switching Protocols\r\n") && grant.ends_with("\r\n\r\n"));
        assert!(grant.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{grant}");
        assert_eq!(&early[..], b"early");
        assert_eq!((upgrade.path.as_str(), upgrade.favored), ("/room", true));
        let offers = REQUEST.replace("Host: a", "Sec-WebSocket-Protocol: one, two");
        let Some(FirstRead::UpgradeRequest { grant, .. }) = granted(offers.as_bytes(), &DOOR) else {
            panic!("not granted")
        };
        assert!(String::from_utf8(grant).unwrap().contains("sec-websocket-protocol: one\r\n"));
    }

    #[test]
    fn anything_else_is_left_to_hyper() {
        assert!(is_granted(REQUEST));
        for at in 0..REQUEST.len() {
            assert!(!is_granted(&REQUEST[..at]), "{at}");
        }
        for (from, to) in [
            ("GET", "POST"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("Upgrade: websocket", "Upgrade: h2c"),
            ("Version: 13", "Version: 8"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short"),
            ("Host: a", "Content-Length: 0"),
            ("Host: a", "Transfer-Encoding: chunked"),
            ("Host: a", "no field"),
            ("/room", "/ro om"),
        ] {
            assert!(REQUEST.contains(from) && !is_granted(&REQUEST.replace(from, to)), "{to}");
        }
        let many = format!("{}\r\n", "X: y\r\n".repeat(MAX_FIELDS));
        assert!(!is_granted(&REQUEST.replace("\r\n\r\n", &format!("\r\n{many}"))));
        assert!(granted(REQUEST.as_bytes(), &Routes { websockets: false, ..DOOR }).is_none());
    }
}
