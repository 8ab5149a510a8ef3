//! A WebSocket that costs as little as can be: a stream, and the part of a frame that has come. What is said over it is
//! in `seat`.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};

use super::error::Error;
use super::frame::{Frame, bounds, each_whole};
use super::patiently;
use crate::tools::dial::{ConnectError, DialedStream, Target};

/// How long the answer to the request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// As much as the answer to the request may have.
const MAX_HEAD: usize = 16 * 1024;
/// As much as is read at once.
const SCRATCH_SIZE: usize = 64 * 1024;

thread_local! {
    /// Where everything is read first: one for all links, so that it stays in the processor's cache, and so that a link
    /// which waits has no buffer.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A WebSocket.
pub struct WsConnection {
    stream: DialedStream,
    /// What has come, and was not looked at yet.
    rest: Vec<u8>,
}

impl WsConnection {
    /// A WebSocket on this path.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn open(target: &Target, path: &str) -> Result<WsConnection, Error> {
        let mut stream = target.dial().await?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            target.path(path),
            target.authority(),
        );
        patiently(PATIENCE, "the answer to its request", async {
            stream.write_all(request.as_bytes()).await.map_err(Error::broken)?;
            stream.flush().await.map_err(Error::broken)?;
            let mut rest = Vec::new();
            loop {
                if stream.read_buf(&mut rest).await.map_err(Error::broken)? == 0 || rest.len() > MAX_HEAD {
                    return Err(Error::Closed("closed in place of an answer to its request".to_owned()));
                }
                if let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
                    let code = status(&rest);
                    rest.drain(..end + 4);
                    rest.shrink_to_fit();
                    return match code {
                        Some(101) => Ok(WsConnection { stream, rest }),
                        Some(code) => Err(ConnectError::Status(code).into()),
                        None => Err(ConnectError::Handshake("no answer of HTTP".to_owned()).into()),
                    };
                }
            }
        })
        .await
    }

    /// Writes this.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.stream.write_all(bytes).await.map_err(Error::broken)?;
        self.stream.flush().await.map_err(Error::broken)
    }

    /// Writes this. While the server does not take it, what comes is read, and each whole frame given to `each`: a
    /// server need not read from who does not.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn pass(&mut self, bytes: &[u8], mut each: impl FnMut(Frame<'_>)) -> Result<(), Error> {
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

    /// Reads once, and gives each whole frame to `each`. Nothing is lost if it is dropped while it waits.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn read(&mut self, mut each: impl FnMut(Frame<'_>)) -> Result<(), Error> {
        poll_fn(|context| SCRATCH.with_borrow_mut(|scratch| self.poll_read(context, scratch, &mut each)))
            .await
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        scratch: &mut Vec<u8>,
        each: &mut impl FnMut(Frame<'_>),
    ) -> Poll<Result<(), Error>> {
        // What came with the answer to the request is looked at before anything is waited for.
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
            return Poll::Ready(Err(Error::Closed("closed without a word".to_owned())));
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

    /// Waits until the server has ended the connection: who ends it first is left with its port for a minute, and that
    /// must not be who opens so many.
    pub async fn drain(mut self) {
        while self.read(|_| {}).await.is_ok() {}
    }
}

/// The code of an answer of HTTP.
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    std::str::from_utf8(rest.get(2..5)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read() {
        assert_eq!(status(b"HTTP/1.1 101 Switching Protocols\r\n"), Some(101));
        assert_eq!(status(b"HTTP/1.0 503\r\n"), Some(503));
        assert_eq!(status(b"SSH-2.0-x"), None);
        assert_eq!(status(b"HTTP/1.1"), None);
    }
}
