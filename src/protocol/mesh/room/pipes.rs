//! User messages from one client to one other: what was sent to the stand-in of the receiver leaves from the
//! stand-in of the sender.

use std::collections::VecDeque;

use super::{BridgedRoom, MeshPeer};
use crate::protocol::mesh::presence::{MeshMember, StandInRole};
use crate::protocol::mesh::user_message::{ChunkError, ChunkWriter, MessageChunk};

/// The stand-in to which a client sends, and the client.
pub(super) type PipeKey = (u32, u32);

/// Messages on their way in one direction of a pair.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    writer: Option<ChunkWriter>,
    waiting: VecDeque<MessageChunk>,
    waiting_bytes: usize,
}

/// Bytes that a chunk counts apart from its data.
const CHUNK_OVERHEAD: usize = 64;

fn cost(chunk: &MessageChunk) -> usize {
    chunk.data.len().saturating_add(CHUNK_OVERHEAD)
}

impl BridgedRoom {
    /// Takes a chunk that a client sent to a stand-in.
    pub(super) fn take_chunk(&mut self, key: PipeKey, chunk: MessageChunk) {
        let pipe = self.pipes.entry(key).or_default();
        pipe.waiting_bytes = pipe.waiting_bytes.saturating_add(cost(&chunk));
        pipe.waiting.push_back(chunk);
        self.flush_pipe(key);
        let is_full = self.pipes.get(&key).is_some_and(|pipe| pipe.waiting_bytes > self.limits.max_waiting);
        if is_full {
            self.cut(key);
        }
    }

    /// Cuts a pair whose second half does not come up, so that no message is lost without a trace.
    fn cut(&mut self, (stand_in, member): PipeKey) {
        self.pipes.remove(&(stand_in, member));
        self.counts.cut = self.counts.cut.saturating_add(1);
        if let Some(peer) = self.peers.get_mut(&stand_in) {
            peer.disconnect(member);
        }
    }

    pub(super) fn flush_pipes(&mut self) {
        let waiting: Vec<PipeKey> =
            self.pipes.iter().filter(|(_, pipe)| !pipe.waiting.is_empty()).map(|(key, _)| *key).collect();
        for key in waiting {
            self.flush_pipe(key);
        }
    }

    /// Returns the receiver of a pipe, and the stand-in from which its messages leave.
    fn other_end(&self, (stand_in, member): PipeKey) -> Option<(MeshMember, u32)> {
        let (group, role) = self.presence.stand_in(stand_in)?;
        let StandInRole::For(receiver) = role else { return None };
        let from = self.presence.stand_in_for(receiver.group, MeshMember { group, id: member })?;
        let peer = self.peers.get(&from)?;
        peer.members().any(|(id, _)| id == receiver.id).then_some((receiver, from))
    }

    fn flush_pipe(&mut self, key: PipeKey) {
        let Some((receiver, from)) = self.other_end(key) else { return };
        let Some(pipe) = self.pipes.get_mut(&key) else { return };
        let (first, max) = (self.rng.u16(..), self.limits.max_message);
        let writer = pipe.writer.get_or_insert_with(|| ChunkWriter::new(receiver.group, max, first));
        let mut written = Vec::new();
        while let Some(chunk) = pipe.waiting.pop_front() {
            pipe.waiting_bytes = pipe.waiting_bytes.saturating_sub(cost(&chunk));
            written.clear();
            match writer.push(&chunk, &mut written) {
                Ok(()) => {
                    let end = u32::try_from(chunk.data.len()).unwrap_or(u32::MAX);
                    if chunk.offset.saturating_add(end) == chunk.total {
                        self.counts.messages = self.counts.messages.saturating_add(1);
                        self.counts.bytes = self.counts.bytes.saturating_add(chunk.total.into());
                    }
                }
                Err(ChunkError::Dropped) => {}
                Err(ChunkError::TooLong | ChunkError::TooManyOpen | ChunkError::OutOfOrder) => {
                    self.counts.dropped = self.counts.dropped.saturating_add(1);
                }
            }
            let peer: Option<&mut MeshPeer> = self.peers.get_mut(&from);
            let Some(peer) = peer else { return };
            for part in &written {
                peer.send(receiver.id, chunk.is_broadcast, part);
            }
        }
    }
}
