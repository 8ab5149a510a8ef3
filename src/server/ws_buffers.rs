//! Buffers shared by all WebSockets of a worker thread. A connection holds one only while bytes are in it, so
//! that an idle connection has none, and a busy one gets a buffer of full size that is still in the
//! processor's cache and need not be zeroed. Buffers are boxed with their positions, so that a connection
//! without one stores a pointer only.

use std::cell::RefCell;

/// Length of a read buffer, in bytes: the most that one read takes, and the most that a connection holds
/// undecoded. Pages that were never read into take no memory.
const READ_LEN: usize = 128 * 1024;

/// Largest write buffer that is kept for reuse, in bytes.
const MAX_WRITE_CAPACITY: usize = 256 * 1024;

/// Buffers of each kind that a thread keeps. More than one is in use only while peers do not read.
const MAX_KEPT: usize = 4;

/// Received bytes, of which those from `start` to `end` are not decoded yet.
#[derive(Debug)]
pub(super) struct ReadBuffer {
    pub(super) bytes: Vec<u8>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Queued bytes, of which those from `start` on are not sent yet.
#[derive(Debug, Default)]
pub(super) struct WriteBuffer {
    pub(super) bytes: Vec<u8>,
    pub(super) start: usize,
    /// Some of it was sent lately.
    pub(super) written: bool,
}

type Pool<T> = RefCell<Vec<T>>;

/// Unused buffers of one thread.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    read: Pool<Box<ReadBuffer>>,
    write: Pool<Box<WriteBuffer>>,
}

impl WriteBuffer {
    /// Returns the number of bytes to send.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }
}

impl BufferPool {
    /// Returns a buffer of [`READ_LEN`] arbitrary bytes, none of which are to be decoded.
    pub(super) fn acquire_read(&self) -> Box<ReadBuffer> {
        let kept = self.read.borrow_mut().pop();
        kept.unwrap_or_else(|| Box::new(ReadBuffer { bytes: vec![0; READ_LEN], start: 0, end: 0 }))
    }

    /// Takes back a read buffer.
    pub(super) fn release_read(&self, mut buffer: Box<ReadBuffer>) {
        if buffer.bytes.len() == READ_LEN {
            (buffer.start, buffer.end) = (0, 0);
            keep(&self.read, buffer);
        }
    }

    /// Moves what is left in a read buffer to one of its length, unless it is much: it may stay there for
    /// long.
    pub(super) fn compact(&self, buffer: &mut Box<ReadBuffer>) {
        let left = buffer.start..buffer.end;
        if buffer.bytes.len() == READ_LEN && left.len() < READ_LEN / 4 {
            let bytes = buffer.bytes[left].to_vec();
            let compact = Box::new(ReadBuffer { start: 0, end: bytes.len(), bytes });
            self.release_read(std::mem::replace(buffer, compact));
        }
    }

    /// Returns an empty write buffer.
    pub(super) fn acquire_write(&self) -> Box<WriteBuffer> {
        self.write.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes back a write buffer.
    pub(super) fn release_write(&self, mut buffer: Box<WriteBuffer>) {
        if (1..=MAX_WRITE_CAPACITY).contains(&buffer.bytes.capacity()) {
            buffer.bytes.clear();
            (buffer.start, buffer.written) = (0, false);
            keep(&self.write, buffer);
        }
    }
}

fn keep<T>(pool: &Pool<T>, buffer: T) {
    let mut pool = pool.borrow_mut();
    if pool.len() < MAX_KEPT {
        pool.push(buffer);
    }
}
