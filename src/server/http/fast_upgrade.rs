//! The upgrade to a WebSocket without hyper, for the request that nearly every connection begins with. The
//! response is that of [`respond`](super::upgrade::respond).
//!
//! Invariant: any request that is accepted here must be accepted identically by hyper. Everything else is
//! left to hyper: other requests, and requests that the first read does not contain as a whole.

#[cfg(any(test, fuzzing))]
pub(crate) mod hyper_check;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::receive_charge::ReceiveCharge;
use super::signaller_admission::match_path;
use super::sse::SseRoute;
use super::{Routes, UpgradeTarget, upgrade};
use crate::server::memory::BudgetExhausted;
use crate::server::scratch;
use crate::server::telemetry::{LimitKind, Telemetry};
use crate::server::turn::{Turn, resume_later};

/// Length of the first read, in bytes. The request of a browser takes up to 1 KiB.
const FIRST_READ_LEN: usize = 4 * 1024;

/// Most headers of a request that is accepted here.
const MAX_HEADERS: usize = 32;

/// Result of the first read.
#[derive(Debug)]
pub(super) enum FirstRead {
    /// A request for a WebSocket in a room, the response that grants it, and the bytes behind the request.
    Upgrade { response: Vec<u8>, prefetched: Bytes, target: UpgradeTarget },
    /// Anything else.
    Other(Bytes),
}

/// Reads once, and accepts the request if possible.
pub(super) fn poll_first_read<S: AsyncRead + Unpin>(
    stream: &mut S,
    routes: &Routes,
    context: &mut Context<'_>,
) -> Poll<io::Result<FirstRead>> {
    scratch::with(|scratch| {
        let mut buffer = scratch.first_read.borrow_mut();
        buffer.resize(FIRST_READ_LEN, 0);
        let mut buffer = ReadBuf::new(&mut buffer);
        ready!(Pin::new(stream).poll_read(context, &mut buffer))?;
        let bytes = buffer.filled();
        if let Some(first) = try_upgrade(bytes, routes) {
            return Poll::Ready(Ok(first));
        }
        let bytes = with_escaped_target(bytes);
        Poll::Ready(Ok(try_upgrade(&bytes, routes).unwrap_or(FirstRead::Other(bytes))))
    })
}

/// Returns the bytes with the characters of the request line escaped that the Node.js servers take as they
/// are, and hyper refuses.
fn with_escaped_target(bytes: &[u8]) -> Bytes {
    let line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (line, rest) = bytes.split_at(line);
    if !line.iter().any(|byte| matches!(byte, b'<' | b'>' | b'`')) {
        return Bytes::copy_from_slice(bytes);
    }
    let mut escaped = Vec::with_capacity(bytes.len().saturating_add(16));
    for byte in line {
        match byte {
            b'<' => escaped.extend_from_slice(b"%3C"),
            b'>' => escaped.extend_from_slice(b"%3E"),
            b'`' => escaped.extend_from_slice(b"%60"),
            byte => escaped.push(*byte),
        }
    }
    escaped.extend_from_slice(rest);
    escaped.into()
}

/// Accepts the request if it is a whole, valid request for a WebSocket in a room.
fn try_upgrade(bytes: &[u8], routes: &Routes) -> Option<FirstRead> {
    if routes.access.is_some() {
        return None;
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes).ok()? else { return None };
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    if headers.contains_key(header::CONTENT_LENGTH)
        || headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get_all(header::HOST).iter().nth(1).is_some()
    {
        return None;
    }
    let mut request = Request::new(());
    *request.method_mut() = head.method?.parse().ok()?;
    *request.uri_mut() = head.path?.parse::<Uri>().ok()?;
    *request.headers_mut() = headers;
    if !routes.websockets || !upgrade::is_upgrade(&request) {
        return None;
    }
    let path = request.uri().path();
    if routes.signaller.as_ref().is_some_and(|signaller| !matches!(match_path(signaller, path), Ok(None))) {
        return None;
    }
    if routes
        .events
        .as_ref()
        .is_some_and(|events| !matches!(events.route(&request), SseRoute::NotAnEventStream))
    {
        return None;
    }
    let (response, upgrade) = upgrade::respond(&request);
    let upgrade = upgrade.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS)?;
    Some(FirstRead::Upgrade {
        response: upgrade::encode(&response),
        prefetched: Bytes::copy_from_slice(&bytes[length..]),
        target: UpgradeTarget::Room(upgrade),
    })
}

/// Frames that the requests of one read are counted as.
const FRAMES_PER_READ: usize = 24;

/// A stream whose first bytes were read already, and are read again.
#[derive(Debug)]
pub(super) struct Rewind<S> {
    pub(super) prefetched: Bytes,
    pub(super) stream: S,
    /// Hyper works as long as it can read.
    turn: Turn,
    charge: ReceiveCharge,
    telemetry: Arc<Telemetry>,
}

impl<S> Rewind<S> {
    /// Returns a stream of which `prefetched` was read, and charges for what it holds. If there is no memory
    /// for that, the stream is given back.
    pub(super) fn new(prefetched: Bytes, stream: S, routes: &Routes) -> Result<Self, S> {
        match ReceiveCharge::new(routes.admission.memory(), prefetched.len()) {
            Ok(charge) => {
                let telemetry = Arc::clone(&routes.telemetry);
                Ok(Rewind { prefetched, stream, turn: Turn::default(), charge, telemetry })
            }
            Err(BudgetExhausted) => Err(stream),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefetched.is_empty() {
            if self.turn.is_over() {
                self.turn = Turn::default();
                resume_later(context);
                return Poll::Pending;
            }
            let before = buffer.filled().len();
            let read = Pin::new(&mut self.stream).poll_read(context, buffer);
            match read.is_ready() {
                // Many requests, or a part of a body.
                true => {
                    let length = buffer.filled().len() - before;
                    self.turn.spend(FRAMES_PER_READ, length);
                    if self.charge.on_received(length).is_err() {
                        self.telemetry.count_limit(LimitKind::Memory);
                        return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
                    }
                }
                false => self.turn = Turn::default(),
            }
            return read;
        }
        let length = self.prefetched.len().min(buffer.remaining());
        buffer.put_slice(&self.prefetched.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.charge.on_response();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.charge.on_response();
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
    use proptest::prelude::*;

    use super::hyper_check::{by_fast_path, check_invariant, routes};
    use super::*;

    const REQUEST: &str = "GET /room?favored HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
                           Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    #[test]
    fn accepted_request_is_answered_like_any_other() {
        let bytes = [REQUEST.as_bytes(), b"prefetched"].concat();
        let (response, upgrade, prefetched) = by_fast_path(&bytes).unwrap();
        assert_eq!(response[0], "HTTP/1.1 101 Switching Protocols");
        assert!(response.contains(&"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned()));
        assert_eq!(&prefetched[..], b"prefetched");
        assert_eq!((upgrade.path.as_str(), upgrade.favored), ("/room", true));
        assert!(check_invariant(&bytes));
        let old = REQUEST.replace("HTTP/1.1", "HTTP/1.0").replace("Version: 13", "Version: 8");
        assert_eq!(by_fast_path(old.as_bytes()).unwrap().0, response);
        assert!(check_invariant(old.as_bytes()));
        let offers = REQUEST.replace("Host: a", "Sec-WebSocket-Protocol: one, two");
        assert!(
            by_fast_path(offers.as_bytes()).unwrap().0.contains(&"sec-websocket-protocol: one".to_owned())
        );
    }

    #[test]
    fn other_requests_are_left_to_hyper() {
        assert!(by_fast_path(REQUEST.as_bytes()).is_some());
        for at in 0..REQUEST.len() {
            assert!(by_fast_path(&REQUEST.as_bytes()[..at]).is_none(), "{at}");
        }
        for (from, to) in [
            ("GET", "POST"),
            ("HTTP/1.1", "HTTP/0.9"),
            ("Upgrade: websocket", "Upgrade: h2c"),
            ("Version: 13", "Version: 12"),
            ("Host: a", "Host: a\r\nHost: a"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short"),
            ("Host: a", "Content-Length: 0"),
            ("Host: a", "Transfer-Encoding: chunked"),
            ("Host: a", "no field"),
            ("/room", "/ro om"),
        ] {
            let changed = REQUEST.replace(from, to);
            assert!(REQUEST.contains(from) && by_fast_path(changed.as_bytes()).is_none(), "{to}");
        }
        let many = format!("{}\r\n", "X: y\r\n".repeat(MAX_HEADERS));
        assert!(by_fast_path(REQUEST.replace("\r\n\r\n", &format!("\r\n{many}")).as_bytes()).is_none());
        assert!(try_upgrade(REQUEST.as_bytes(), &Routes { websockets: false, ..routes() }).is_none());
    }

    /// Returns requests that are valid or nearly so.
    fn requests() -> impl Strategy<Value = Vec<u8>> {
        let target = prop::sample::select(vec![
            "/room",
            "/",
            "/a/b%20c?favored",
            "/r?x=1&favored=",
            "/%zz",
            "/\u{e9}",
            "http://host/room",
            "*",
            "room",
            "//x",
            "/a#b",
        ]);
        let header = prop::sample::select(vec![
            "Host: a",
            "hOsT:b",
            "X: \t y ",
            "X:",
            "Sec-WebSocket-Protocol: a,b",
            "Sec-WebSocket-Protocol: , c",
            "Connection: upgrade",
            "Upgrade: WebSocket, h2c",
            "Expect: 100-continue",
            "X: \u{e9}",
            "X : y",
            " folded",
            "Sec-WebSocket-Version: 13",
            "Cookie: a=b; c=d",
            "Origin: null",
        ]);
        let line_end = prop_oneof![20 => Just("\r\n"), 1 => Just("\n")];
        let change = prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()));
        let extra = prop::collection::vec(any::<u8>(), 0..8);
        let headers = prop::collection::vec(header, 0..4);
        let version = prop_oneof![3 => Just("HTTP/1.1"), 1 => Just("HTTP/1.0")];
        (target, version, headers, line_end, change, extra).prop_map(
            |(target, version, headers, line_end, change, extra)| {
                let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
                let request = REQUEST.replace("/room?favored", target).replace("Host: a\r\n", &headers);
                let request = request.replace("HTTP/1.1", version);
                let mut bytes = request.replace("\r\n", line_end).into_bytes();
                if let Some((at, byte)) = change {
                    *at.get_mut(&mut bytes[..]) = byte;
                }
                bytes.extend(extra);
                bytes
            },
        )
    }

    #[test]
    fn requests_accepted_here_are_accepted_identically_by_hyper() {
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(2000));
        let accepted = std::cell::Cell::new(0);
        let checked = runner.run(&requests(), |bytes| {
            accepted.set(accepted.get() + usize::from(check_invariant(&bytes)));
            Ok(())
        });
        checked.unwrap();
        assert!(accepted.get() > 200, "only {} requests are accepted", accepted.get());
    }
}
