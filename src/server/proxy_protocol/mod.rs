//! The PROXY protocol: a proxy reports the address of its client in front of everything else. A header is
//! read exactly, so that what follows it stays in the socket for TLS or HTTP.

mod header;

use std::io;
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::net::{TcpStream, UnixStream};

use super::listening::AcceptedStream;
use super::refusals::RefusalCause;
use crate::config::ProxyProtocol;
use header::{HeaderStart, MAX_V1, find_header, parse_header};
pub(super) use header::{ReportedSource, has_signature};

/// Pause before the beginning of a header is looked at again. Nearly every header arrives at once.
const INCOMPLETE_PAUSE: Duration = Duration::from_millis(5);

/// Reads the header of a connection from a trusted proxy. Returns the source that it reports; `None` if there
/// is no header and none is required.
///
/// # Errors
/// The cause to refuse the connection. `Ok(Err(_))` never means that the connection broke.
pub(super) async fn read_header(
    stream: &mut AcceptedStream,
    mode: ProxyProtocol,
) -> io::Result<Result<Option<ReportedSource>, RefusalCause>> {
    let mut start = [0; MAX_V1];
    let length = loop {
        // Before the bytes are looked at, which are all then.
        let is_all = is_read_closed(stream).await?;
        let count = peek(stream, &mut start).await?;
        let bytes = start.get(..count).unwrap_or_default();
        match find_header(bytes) {
            // The end of the connection.
            _ if count == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            HeaderStart::Length(length) => break length,
            HeaderStart::Incomplete if is_all => return Ok(Err(RefusalCause::InvalidProxyHeader)),
            HeaderStart::Incomplete => tokio::time::sleep(INCOMPLETE_PAUSE).await,
            HeaderStart::Invalid => return Ok(Err(RefusalCause::InvalidProxyHeader)),
            HeaderStart::Absent if mode == ProxyProtocol::Required => {
                return Ok(Err(RefusalCause::MissingProxyHeader));
            }
            HeaderStart::Absent => return Ok(Ok(None)),
        }
    };
    // Bounded by `find_header`.
    let mut header = vec![0; length];
    let read = match stream {
        AcceptedStream::Tcp(stream, _) => stream.read_exact(&mut header).await,
        AcceptedStream::Unix(stream) => stream.read_exact(&mut header).await,
    };
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(Err(RefusalCause::InvalidProxyHeader));
        }
        read => read?,
    };
    Ok(parse_header(&header).map(Some).ok_or(RefusalCause::InvalidProxyHeader))
}

/// Waits for bytes, and copies their beginning.
async fn peek(stream: &AcceptedStream, buffer: &mut [u8]) -> io::Result<usize> {
    match stream {
        AcceptedStream::Tcp(stream, _) => TcpStream::peek(stream, buffer).await,
        AcceptedStream::Unix(stream) => peek_unix(stream, buffer).await,
    }
}

/// Waits until a connection is readable. Returns true if the proxy has ended its direction of it.
async fn is_read_closed(stream: &AcceptedStream) -> io::Result<bool> {
    let ready = match stream {
        AcceptedStream::Tcp(stream, _) => stream.ready(Interest::READABLE).await?,
        AcceptedStream::Unix(stream) => stream.ready(Interest::READABLE).await?,
    };
    Ok(ready.is_read_closed())
}

async fn peek_unix(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
    let peek = || {
        let (_, count) = rustix::net::recv(stream, &mut *buffer, RecvFlags::PEEK)?;
        Ok(count)
    };
    stream.async_io(Interest::READABLE, peek).await
}
