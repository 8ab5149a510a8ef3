//! The queue of a link: frames that were encoded when they were pushed, so that one write takes all that is
//! ready.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::task::yield_now;

use super::wire::append;

/// Length from which on connections that send over the link are held, in bytes.
const FULL: usize = 1 << 20;
/// Longest queue, in bytes: the link is cut when it is longer.
const MAX_QUEUE: usize = 64 << 20;
/// Largest buffer that is kept for reuse, in bytes. A queue that is not full fits: a buffer that has to grow
/// for each write is copied and mapped again.
const MAX_SPARE: usize = FULL;

/// The queue of a link.
#[derive(Debug, Default)]
pub(super) struct LinkQueue {
    state: Mutex<QueueState>,
    /// The queue is longer than it should be.
    full: AtomicBool,
}

#[derive(Debug, Default)]
struct QueueState {
    frames: Vec<u8>,
    writer: Option<Waker>,
    /// The link has ended, or is to be cut.
    closed: bool,
}

impl LinkQueue {
    /// Appends a message. Returns the task to wake once no lock is held.
    pub(super) fn push(&self, session: u32, message: &impl Serialize) -> Option<Waker> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        if append(&mut state.frames, session, message).is_err() || state.frames.len() > MAX_QUEUE {
            state.closed = true;
            state.frames = Vec::new();
        }
        if state.frames.len() > FULL {
            self.full.store(true, Ordering::Release);
        }
        state.writer.take()
    }

    /// Appends a message, and wakes the writer.
    pub(super) fn send(&self, session: u32, message: &impl Serialize) {
        if let Some(writer) = self.push(session, message) {
            writer.wake();
        }
    }

    /// Returns the length of what waits, in bytes.
    pub(super) fn len(&self) -> usize {
        self.state.lock().frames.len()
    }

    /// Returns true if connections that send over the link are to be held.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Drops what waits, and all that is pushed from now on.
    pub(super) fn close(&self) {
        let writer = {
            let mut state = self.state.lock();
            state.closed = true;
            state.frames = Vec::new();
            state.writer.take()
        };
        writer.into_iter().for_each(Waker::wake);
        self.full.store(false, Ordering::Release);
    }

    /// Waits until something is pushed, or the queue is closed.
    fn poll_pushed(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.frames.is_empty() && !state.closed {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Takes what was pushed; fails if the queue is closed.
    fn take(&self, taken: &mut Vec<u8>) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "too much waits to be sent"));
        }
        std::mem::swap(&mut state.frames, taken);
        Ok(())
    }

    /// Writes what is pushed, until that fails. Calls `relieved` when the queue was full, and is no longer.
    pub(super) async fn write_to(
        &self,
        mut stream: impl AsyncWrite + Unpin,
        relieved: impl Fn(),
    ) -> io::Result<()> {
        let mut taken = Vec::new();
        loop {
            if self.len() == 0 {
                poll_fn(|context| self.poll_pushed(context)).await;
                // The runtime polls this task before those of other connections that have received
                // something as well: one record and one system call carry what all of them push.
                yield_now().await;
            }
            self.take(&mut taken)?;
            stream.write_all(&taken).await?;
            stream.flush().await?;
            taken.clear();
            if taken.capacity() > MAX_SPARE {
                taken = Vec::new();
            }
            if self.is_full() && self.state.lock().frames.len() < FULL / 4 {
                self.full.store(false, Ordering::Release);
                relieved();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Sends two messages of this length one after the other: the second is in the second of the two buffers.
    async fn send_twice(queue: &LinkQueue, length: usize) {
        for _ in 0..2 {
            queue.send(0, &"k".repeat(length));
            while queue.len() > 0 {
                yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn buffer_of_a_queue_that_is_not_full_is_kept() {
        let queue = Arc::new(LinkQueue::default());
        let writer = Arc::clone(&queue);
        let writer = tokio::spawn(async move { writer.write_to(tokio::io::sink(), || {}).await });
        send_twice(&queue, FULL / 2).await;
        assert!((FULL / 2..=FULL).contains(&queue.state.lock().frames.capacity()));
        send_twice(&queue, 2 * FULL).await;
        assert!(queue.state.lock().frames.capacity() <= FULL);
        writer.abort();
    }
}
