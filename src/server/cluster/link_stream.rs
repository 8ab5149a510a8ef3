//! The stream of a link, which one task reads and writes, and the frames in what is read.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::time::timeout;

use super::wire::{LENGTH, frame_length, split, timed_out};

/// Time without anything from the other node after which a link is cut.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(4);
/// Largest buffer for a frame in parts that is kept for reuse, in bytes.
const MAX_SPARE: usize = 64 * 1024;

/// The stream of a link. Reading and writing share it, as with `tokio::io::split`, which would copy what is
/// read. Never locked twice at once, as both are polled by one task.
pub(super) struct LinkStream<S>(Mutex<S>);

impl<S: AsyncBufRead + Unpin> LinkStream<S> {
    pub(super) fn new(stream: S) -> Self {
        LinkStream(Mutex::new(stream))
    }

    /// Reads frames until the other node ends the link, is silent, or sends an invalid one. `handle` receives
    /// the session and the message of each, and must not use the stream.
    pub(super) async fn read_frames(
        &self,
        max_frame: usize,
        mut handle: impl FnMut(u32, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut frames = FrameReader { max_frame, partial: Vec::new() };
        loop {
            let read = poll_fn(|context| self.poll_frames(context, &mut frames, &mut handle));
            if timeout(SILENCE_TIMEOUT, read).await.unwrap_or_else(|_| Err(timed_out()))? == 0 {
                return Ok(());
            }
        }
    }

    /// Handles the frames in the next piece of the stream. Returns its length, which is 0 at the end.
    fn poll_frames(
        &self,
        context: &mut Context<'_>,
        frames: &mut FrameReader,
        handle: impl FnMut(u32, &[u8]) -> io::Result<()>,
    ) -> Poll<io::Result<usize>> {
        let mut stream = self.0.lock();
        let piece = ready!(Pin::new(&mut *stream).poll_fill_buf(context))?;
        let length = piece.len();
        frames.read(piece, handle)?;
        Pin::new(&mut *stream).consume(length);
        Poll::Ready(Ok(length))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for &LinkStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_shutdown(context)
    }
}

/// The reader of frames from a stream in pieces. Only a frame that is in several of them is copied.
struct FrameReader {
    max_frame: usize,
    /// The beginning of a frame whose end has not arrived.
    partial: Vec<u8>,
}

impl FrameReader {
    /// Handles the frames whose end is in the next piece of the stream.
    fn read(
        &mut self,
        mut piece: &[u8],
        mut handle: impl FnMut(u32, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while !self.partial.is_empty() && !piece.is_empty() {
            let length = frame_length(&self.partial, self.max_frame)?.unwrap_or(LENGTH);
            let missing = length.saturating_sub(self.partial.len());
            let (more, rest) = piece.split_at_checked(missing).unwrap_or((piece, &[]));
            self.partial.extend_from_slice(more);
            piece = rest;
            if let Some((session, message, _)) = split(&self.partial, self.max_frame)? {
                handle(session, message)?;
                self.partial.clear();
                self.partial.shrink_to(MAX_SPARE);
            }
        }
        while let Some((session, message, length)) = split(piece, self.max_frame)? {
            handle(session, message)?;
            piece = piece.get(length..).unwrap_or_default();
        }
        self.partial.extend_from_slice(piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::append;
    use super::*;

    const MAX_FRAME: usize = 200_000;

    fn reader() -> FrameReader {
        FrameReader { max_frame: MAX_FRAME, partial: Vec::new() }
    }

    /// Returns the session and the message of each frame in `bytes`, which arrive in pieces of that size.
    fn read_in_pieces(bytes: &[u8], size: usize) -> Vec<(u32, Vec<u8>)> {
        let (mut frames, mut reader) = (Vec::new(), reader());
        for piece in bytes.chunks(size) {
            let handle = |session, message: &[u8]| {
                frames.push((session, message.to_vec()));
                Ok(())
            };
            reader.read(piece, handle).unwrap();
        }
        assert!(reader.partial.is_empty());
        frames
    }

    #[test]
    fn frames_do_not_depend_on_the_pieces_of_the_stream() {
        let mut bytes = Vec::new();
        for (session, text) in [(1, "a"), (2, ""), (3, &*"c".repeat(100)), (4, "d"), (5, "e")] {
            append(&mut bytes, session, &text).unwrap();
        }
        let whole = read_in_pieces(&bytes, bytes.len());
        let sessions: Vec<_> = whole.iter().map(|(session, _)| *session).collect();
        assert_eq!(sessions, [1, 2, 3, 4, 5]);
        assert_eq!(whole[2].1, ["d".as_bytes(), "c".repeat(100).as_bytes()].concat());
        for size in 1..bytes.len() {
            assert_eq!(read_in_pieces(&bytes, size), whole, "pieces of {size} bytes");
        }
    }

    #[test]
    fn length_in_pieces_is_checked() {
        for invalid in [3_u32, u32::try_from(MAX_FRAME).unwrap() + 1] {
            let (bytes, mut reader) = (invalid.to_le_bytes(), reader());
            reader.read(&bytes[..3], |_, _| Ok(())).unwrap();
            assert!(reader.read(&bytes[3..], |_, _| Ok(())).is_err());
        }
    }

    #[test]
    fn buffer_of_a_long_frame_is_not_kept() {
        let (mut bytes, mut reader) = (Vec::new(), reader());
        append(&mut bytes, 1, &"k".repeat(2 * MAX_SPARE)).unwrap();
        let (begin, end) = bytes.split_at(bytes.len() - 1);
        reader.read(begin, |_, _| Ok(())).unwrap();
        assert!(reader.partial.capacity() > MAX_SPARE);
        reader.read(end, |_, _| Ok(())).unwrap();
        assert!(reader.partial.capacity() <= MAX_SPARE);
    }
}
