//! Buffers that belong to nobody: each thread keeps a few, and a connection has one only while bytes are in it.
//!
//! An idle connection so holds none (1.5 kB less each than with those of the library, at 1 KiB for reading), a busy one finds
//! one of full size that is still in the processor's cache, and that no read has to fill with zeros.

use std::cell::RefCell;

/// The length of a buffer for reading, in bytes: what one read takes at most, and what a connection holds at most of
/// what it was sent and has not looked at yet.
pub(super) const READ: usize = 32 * 1024;

/// The largest buffer for writing that is kept, in bytes.
const MAX_WRITE: usize = 64 * 1024;

/// How many buffers of either kind a thread keeps. More than one is in use only while peers do not take what they
/// are sent.
const KEPT: usize = 4;

thread_local! {
    static READING: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static WRITING: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`READ`] bytes, whatever they are.
pub(super) fn take_reading() -> Vec<u8> {
    READING.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; READ])
}

/// Takes a buffer for reading back.
pub(super) fn give_reading(buffer: Vec<u8>) {
    if buffer.len() == READ {
        give(&READING, buffer);
    }
}

/// An empty buffer with room for much.
pub(super) fn take_writing() -> Vec<u8> {
    WRITING.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Takes a buffer for writing back.
pub(super) fn give_writing(mut buffer: Vec<u8>) {
    if (1..=MAX_WRITE).contains(&buffer.capacity()) {
        buffer.clear();
        give(&WRITING, buffer);
    }
}

fn give(pool: &'static std::thread::LocalKey<RefCell<Vec<Vec<u8>>>>, buffer: Vec<u8>) {
    pool.with_borrow_mut(|pool| {
        if pool.len() < KEPT {
            pool.push(buffer);
        }
    });
}
