//! A minimal WebSocket client connection: a stream, and the received part of a frame.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};

use super::error::Error;
use super::frame::{Frame, bounds, each_whole};
use super::with_timeout;
use crate::tools::dial::{DialedStream, Target};

/// Timeout of the upgrade.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest response head, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Size of the read buffer, in bytes.
const SCRATCH_SIZE: usize = 64 * 1024;

thread_local! {
    /// Read buffer shared by all connections of a thread, so that waiting connections have none.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A WebSocket connection.
pub(crate) struct WsConnection {
    stream: DialedStream,
    /// Received bytes that are not parsed yet.
    rest: Vec<u8>,
}

impl WsConnection {
    /// Connects and upgrades on `path`.
    pub(crate) async fn open(target: &Target, path: &str) -> Result<WsConnection, Error> {
        let mut stream = target.dial().await?;
        let token = target.authorization().map(|value| format!("Authorization: {value}\r\n"));
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nOrigin: {}\r\n{}Connection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            target.path(path),
            target.authority(),
            target.origin(),
            token.unwrap_or_default(),
        );
        with_timeout(UPGRADE_TIMEOUT, "upgrade response", async {
            stream.write_all(request.as_bytes()).await.map_err(Error::broken)?;
            stream.flush().await.map_err(Error::broken)?;
            let mut rest = Vec::new();
            loop {
                if stream.read_buf(&mut rest).await.map_err(Error::broken)? == 0 || rest.len() > MAX_HEAD {
                    let error = if rest.is_empty() { target.unanswered() } else { target.not_http() };
                    return Err(error.into());
                }
                if let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
                    let code = status(&rest);
                    rest.drain(..end + 4);
                    rest.shrink_to_fit();
                    return match code {
                        Some(101) => Ok(WsConnection { stream, rest }),
                        Some(code) => Err(target.refused(code, &rest).into()),
                        None => Err(target.not_http().into()),
                    };
                }
            }
        })
        .await
    }

    /// Writes `bytes`.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.stream.write_all(bytes).await.map_err(Error::broken)?;
        self.stream.flush().await.map_err(Error::broken)
    }

    /// Writes `bytes`. While the server does not take them, reads and passes each whole frame to `each`: a
    /// server need not read from a client that does not.
    pub(crate) async fn write_while_reading(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Frame<'_>),
    ) -> Result<(), Error> {
        let mut left = bytes;
        poll_fn(|context| {
            loop {
                let stream = Pin::new(&mut self.stream);
                let written = match left {
                    [] => stream.poll_flush(context).map_ok(|()| 0),
                    _ => stream.poll_write(context, left),
                };
                match written.map_err(Error::broken)? {
                    Poll::Ready(_) if left.is_empty() => return Poll::Ready(Ok(())),
                    Poll::Ready(0) => return Poll::Ready(Err(Error::broken(ErrorKind::WriteZero.into()))),
                    Poll::Ready(count) => left = &left[count..],
                    Poll::Pending => {
                        let read =
                            SCRATCH.with_borrow_mut(|scratch| self.poll_read(context, scratch, &mut each));
                        ready!(read)?;
                    }
                }
            }
        })
        .await
    }

    /// Reads once, and passes each whole frame to `each`. Cancel safe.
    pub(crate) async fn read(&mut self, mut each: impl FnMut(Frame<'_>)) -> Result<(), Error> {
        poll_fn(|context| SCRATCH.with_borrow_mut(|scratch| self.poll_read(context, scratch, &mut each)))
            .await
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        scratch: &mut Vec<u8>,
        each: &mut impl FnMut(Frame<'_>),
    ) -> Poll<Result<(), Error>> {
        // Bytes that arrived with the response head are parsed first.
        if bounds(&self.rest).is_some() {
            let used = each_whole(&self.rest, each);
            self.rest.drain(..used);
            return Poll::Ready(Ok(()));
        }
        scratch.resize(SCRATCH_SIZE, 0);
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)).map_err(Error::broken)?;
        let fresh = buffer.filled();
        if fresh.is_empty() {
            return Poll::Ready(Err(Error::Closed("closed without a close frame".to_owned())));
        }
        if self.rest.is_empty() {
            let used = each_whole(fresh, each);
            if used < fresh.len() {
                self.rest.extend_from_slice(&fresh[used..]);
            }
        } else {
            self.rest.extend_from_slice(fresh);
            let used = each_whole(&self.rest, each);
            self.rest.drain(..used);
            if self.rest.is_empty() {
                self.rest = Vec::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until the server has closed the connection: the side that closes first keeps its port in
    /// TIME_WAIT.
    pub(crate) async fn drain(mut self) {
        while self.read(|_| {}).await.is_ok() {}
    }
}

/// Returns the status code of an HTTP response.
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    std::str::from_utf8(rest.get(2..5)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_code_is_parsed() {
        assert_eq!(status(b"HTTP/1.1 101 Switching Protocols\r\n"), Some(101));
        assert_eq!(status(b"HTTP/1.0 503\r\n"), Some(503));
        assert_eq!(status(b"SSH-2.0-x"), None);
        assert_eq!(status(b"HTTP/1.1"), None);
    }
}
