//! Buffers that belong to nobody: each thread keeps a few, and a connection has one only while bytes are in it.
//!
//! An idle connection so holds none (1.5 kB less each than with those of the library, at 1 KiB for reading), a busy one finds
//! one of full size that is still in the processor's cache, and that no read has to fill with zeros. They are boxed with
//! their marks, so that where there is none a connection has room for a pointer only (0.1 kB less for both).

use std::cell::RefCell;
use std::thread::LocalKey;

/// The length of a buffer for reading, in bytes: what one read takes at most, and what a connection holds at most of
/// what it was sent and has not looked at yet. Of its memory, only what was ever read into is the system's loss. (A
/// content of 64 KiB takes one read, and half the time that it took with three of 32 KiB.)
pub(super) const READ: usize = 128 * 1024;

/// The largest buffer for writing that is kept, in bytes. Larger ones come from the system and go back to it with each
/// message, page by page.
const MAX_WRITE: usize = 256 * 1024;

/// How many buffers of either kind a thread keeps. More than one is in use only while peers do not take what they
/// are sent.
const KEPT: usize = 4;

/// Bytes, of which those from `from` to `to` have been read and not looked at yet.
#[derive(Debug)]
pub(super) struct ReadBuffer {
    pub(super) bytes: Vec<u8>,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// Bytes, of which those from `from` on have been queued and not sent yet.
#[derive(Debug, Default)]
pub(super) struct WriteBuffer {
    pub(super) bytes: Vec<u8>,
    pub(super) from: usize,
}

impl WriteBuffer {
    /// How many bytes are to be sent.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.from
    }
}

type Pool<T> = RefCell<Vec<T>>;

thread_local! {
    static READING: Pool<Box<ReadBuffer>> = const { RefCell::new(Vec::new()) };
    static WRITING: Pool<Box<WriteBuffer>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`READ`] bytes, whatever they are, of which none is to be looked at.
pub(super) fn take_reading() -> Box<ReadBuffer> {
    let kept = READING.with_borrow_mut(Vec::pop);
    kept.unwrap_or_else(|| Box::new(ReadBuffer { bytes: vec![0; READ], from: 0, to: 0 }))
}

/// Takes a buffer for reading back.
pub(super) fn give_reading(mut buffer: Box<ReadBuffer>) {
    if buffer.bytes.len() == READ {
        (buffer.from, buffer.to) = (0, 0);
        give(&READING, buffer);
    }
}

/// An empty buffer with room for much.
pub(super) fn take_writing() -> Box<WriteBuffer> {
    WRITING.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Takes a buffer for writing back.
pub(super) fn give_writing(mut buffer: Box<WriteBuffer>) {
    if (1..=MAX_WRITE).contains(&buffer.bytes.capacity()) {
        buffer.bytes.clear();
        buffer.from = 0;
        give(&WRITING, buffer);
    }
}

fn give<T>(pool: &'static LocalKey<Pool<T>>, buffer: T) {
    pool.with_borrow_mut(|pool| {
        if pool.len() < KEPT {
            pool.push(buffer);
        }
    });
}
