//! Chunks that wait in the pipes of a room. Most pipes are empty, and are not looked at.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::protocol::mesh::user_message::{ChunkWriter, MessageChunk};

/// The stand-in to which a client sends, and the client.
pub(super) type PipeKey = (u32, u32);

/// Bytes that a chunk counts apart from its data.
const CHUNK_OVERHEAD: usize = 64;

pub(super) fn cost(chunk: &MessageChunk) -> usize {
    chunk.data.len().saturating_add(CHUNK_OVERHEAD)
}

/// Messages on their way in one direction of a pair.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    writer: Option<ChunkWriter>,
    waiting: VecDeque<MessageChunk>,
    waiting_bytes: usize,
}

impl Pipe {
    /// Returns what was not carried.
    pub(super) fn into_waiting(self) -> VecDeque<MessageChunk> {
        self.waiting
    }
}

/// The pipes of a room.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pipes: BTreeMap<PipeKey, Pipe>,
    /// Pipes in which something waits.
    waiting: BTreeSet<PipeKey>,
    waiting_bytes: usize,
}

impl Pipes {
    /// Returns the number of bytes that wait.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn is_waiting(&self, key: PipeKey) -> bool {
        self.waiting.contains(&key)
    }

    /// Returns the pipes in which something waits, in order.
    pub(super) fn waiting(&self) -> Vec<PipeKey> {
        self.waiting.iter().copied().collect()
    }

    /// Returns those of them that are of one stand-in.
    pub(super) fn waiting_of(&self, stand_in: u32) -> impl Iterator<Item = PipeKey> {
        self.waiting.range((stand_in, 0)..=(stand_in, u32::MAX)).copied()
    }

    /// Returns the number of bytes that wait in a pipe.
    pub(super) fn waiting_bytes_of(&self, key: PipeKey) -> usize {
        self.pipes.get(&key).map_or(0, |pipe| pipe.waiting_bytes)
    }

    /// Returns the pipe in which most bytes wait, if any do.
    pub(super) fn fullest(&self) -> Option<PipeKey> {
        self.waiting.iter().copied().max_by_key(|key| self.waiting_bytes_of(*key))
    }

    /// Has a chunk wait.
    pub(super) fn push(&mut self, key: PipeKey, chunk: MessageChunk) {
        let (pipe, cost) = (self.pipes.entry(key).or_default(), cost(&chunk));
        self.waiting_bytes = self.waiting_bytes.saturating_add(cost);
        pipe.waiting_bytes = pipe.waiting_bytes.saturating_add(cost);
        pipe.waiting.push_back(chunk);
        self.waiting.insert(key);
    }

    /// Returns the next chunk of a pipe, with the writer of the pipe.
    pub(super) fn pop(&mut self, key: PipeKey) -> Option<(MessageChunk, &mut Option<ChunkWriter>)> {
        let pipe = self.pipes.get_mut(&key)?;
        let chunk = pipe.waiting.pop_front()?;
        let cost = cost(&chunk);
        self.waiting_bytes = self.waiting_bytes.saturating_sub(cost);
        pipe.waiting_bytes = pipe.waiting_bytes.saturating_sub(cost);
        if pipe.waiting.is_empty() {
            self.waiting.remove(&key);
        }
        Some((chunk, &mut pipe.writer))
    }

    /// Removes a pipe, with what waits in it.
    pub(super) fn remove(&mut self, key: PipeKey) -> Option<Pipe> {
        let pipe = self.pipes.remove(&key)?;
        self.waiting.remove(&key);
        self.waiting_bytes = self.waiting_bytes.saturating_sub(pipe.waiting_bytes);
        Some(pipe)
    }

    /// Removes the pipes for which `is_kept` returns false.
    pub(super) fn retain(&mut self, is_kept: impl Fn(PipeKey) -> bool) {
        let (waiting, waiting_bytes) = (&mut self.waiting, &mut self.waiting_bytes);
        self.pipes.retain(|key, pipe| {
            let is_kept = is_kept(*key);
            if !is_kept {
                waiting.remove(key);
                *waiting_bytes = waiting_bytes.saturating_sub(pipe.waiting_bytes);
            }
            is_kept
        });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn chunk(length: usize) -> MessageChunk {
        let (total, data) = (length as u32, Bytes::from(vec![0; length]));
        MessageChunk { message: 0, is_text: false, is_broadcast: true, total, offset: 0, data }
    }

    proptest! {
        #[test]
        fn counts_are_those_of_all_pipes(
            steps in prop::collection::vec((0u8..8, 0u32..3, 0u32..3, 0usize..100), 0..80),
        ) {
            let mut pipes = Pipes::default();
            for (step, stand_in, member, length) in steps {
                let key = (stand_in, member);
                match step {
                    0..4 => pipes.push(key, chunk(length)),
                    4..6 => {
                        let was_waiting = pipes.is_waiting(key);
                        prop_assert_eq!(pipes.pop(key).is_some(), was_waiting);
                    }
                    6 => {
                        pipes.remove(key);
                    }
                    _ => pipes.retain(|(other, _)| other != stand_in),
                }
                let waits = |pipe: &&Pipe| !pipe.waiting.is_empty();
                let bytes: usize = pipes.pipes.values().flat_map(|pipe| &pipe.waiting).map(cost).sum();
                prop_assert_eq!(pipes.waiting_bytes(), bytes);
                let of_pipes: usize = pipes.waiting().into_iter().map(|key| pipes.waiting_bytes_of(key)).sum();
                prop_assert_eq!(of_pipes, bytes);
                prop_assert_eq!(pipes.waiting().len(), pipes.pipes.values().filter(waits).count());
                let most = pipes.pipes.values().map(|pipe| pipe.waiting_bytes).max().unwrap_or_default();
                prop_assert_eq!(pipes.fullest().map_or(0, |key| pipes.waiting_bytes_of(key)), most);
            }
        }
    }
}
