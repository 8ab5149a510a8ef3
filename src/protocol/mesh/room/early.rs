//! User messages for stand-ins that are not members yet. netflux 1.1 counts a joiner as a member, and sends
//! to it, as soon as the channel is open. If what presents the client itself was lost, the join fails, and
//! the client is called again: what it sent meanwhile comes to the next stand-in for the same member.

use std::time::Instant;

use super::pipe_queues::cost;
use super::{BridgedRoom, MeshPeer};
use crate::protocol::mesh::presence::StandInRole;
use crate::protocol::mesh::user_message::MessageChunk;

/// Messages from a client to a stand-in that has not joined.
#[derive(Debug)]
pub(super) struct EarlyMessages {
    /// Alias of the client.
    target: u32,
    chunks: Vec<MessageChunk>,
    bytes: usize,
}

impl BridgedRoom {
    /// Takes a chunk from the client that a stand-in called. Too many end the join.
    pub(super) fn take_early(&mut self, number: u32, chunk: MessageChunk) {
        let Some(key) = self.presence.stand_in(number) else { return };
        let Some((_, target)) = self.calls.get(&number).copied() else { return };
        let early = self.early.remove(&key).filter(|early| early.target == target);
        let mut early = early.unwrap_or_else(|| EarlyMessages { target, chunks: Vec::new(), bytes: 0 });
        early.bytes = early.bytes.saturating_add(cost(&chunk));
        early.chunks.push(chunk);
        if early.bytes <= self.limits.max_waiting {
            self.early.insert(key, early);
            return;
        }
        self.counts.cut = self.counts.cut.saturating_add(1);
        if let Some(peer) = self.peers.get_mut(number) {
            peer.fail();
        }
    }

    /// Keeps what waits from the client that a stand-in called, whose join failed.
    pub(super) fn keep_early(&mut self, number: u32) {
        let Some(member) = self.peers.get(number).and_then(MeshPeer::entry_member) else { return };
        let Some(pipe) = self.pipes.remove((number, member)) else { return };
        for chunk in pipe.into_waiting() {
            self.take_early(number, chunk);
        }
    }

    /// Carries what the client that a stand-in called had sent before, once it has presented itself.
    pub(super) fn release_early(&mut self, number: u32, now: Instant) {
        if self.early.is_empty() {
            return;
        }
        let Some(member) = self.peers.get(number).and_then(MeshPeer::entry_member) else { return };
        let Some((group, role)) = self.presence.stand_in(number) else { return };
        let Some((_, target)) = self.calls.get(&number).copied() else { return };
        for role in [StandInRole::Provisional, role] {
            let early = self.early.remove(&(group, role)).filter(|early| early.target == target);
            for chunk in early.into_iter().flat_map(|early| early.chunks) {
                self.take_chunk((number, member), chunk, now);
            }
        }
    }

    /// Forgets what cannot be carried any more, as its sender or its receiver is not in the room.
    pub(super) fn forget_early(&mut self) {
        let presence = &self.presence;
        self.early.retain(|(group, role), early| {
            let is_there = match role {
                StandInRole::For(receiver) => presence.is_known(*receiver),
                StandInRole::Provisional | StandInRole::Placeholder => true,
            };
            is_there && presence.is_callable(*group, early.target)
        });
    }

    /// Drops what most stand-ins that have not joined wait for. Returns false if nothing waits.
    pub(super) fn shed_early(&mut self) -> bool {
        let most = self.early.iter().max_by_key(|(_, early)| early.bytes).map(|(key, _)| *key);
        if most.is_some_and(|key| self.early.remove(&key).is_some()) {
            self.counts.cut = self.counts.cut.saturating_add(1);
            return true;
        }
        false
    }

    /// Returns the number of bytes that wait for stand-ins which have not joined.
    pub(super) fn early_bytes(&self) -> usize {
        self.early.values().map(|early| early.bytes).fold(0, usize::saturating_add)
    }
}
