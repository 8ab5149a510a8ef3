//! User messages from one client to one other: what was sent to the stand-in of the receiver leaves from the
//! stand-in of the sender, at no more than the rates of the sender and of the room.

use std::collections::BTreeMap;
use std::time::Instant;

use super::pipe_queues::{PipeKey, cost};
use super::{BridgedRoom, BridgedRoomLimits};
use crate::protocol::mesh::presence::{MeshMember, StandInRole};
use crate::protocol::mesh::user_message::{ChunkError, ChunkWriter, MessageChunk};
use crate::protocol::token_bucket::TokenBucket;

/// Number of senders above which those that send nothing are forgotten.
const MAX_IDLE_SENDERS: usize = 64;

/// Bytes that were carried for each sender and in the room.
#[derive(Debug, Default)]
pub(super) struct Rates {
    room: Option<TokenBucket>,
    senders: BTreeMap<MeshMember, TokenBucket>,
    /// The pipe that carried last: the next one in order is the next to carry.
    last: Option<PipeKey>,
    /// Time at which a pipe that waits for its turn may carry.
    resume_at: Option<Instant>,
    /// Pipes wait for the rate of the room.
    is_room_behind: bool,
}

impl Rates {
    /// Returns the time at which the sender may send more, if that is not now.
    fn ready_at(&self, sender: MeshMember, now: Instant) -> Option<Instant> {
        let sender = self.senders.get(&sender);
        self.room.iter().chain(sender).filter_map(|bucket| bucket.ready_at(now)).max()
    }

    fn take(&mut self, sender: MeshMember, bytes: usize, limits: &BridgedRoomLimits, now: Instant) {
        let full = TokenBucket::full(now);
        self.room.get_or_insert(full).take(bytes, limits.room_rate, now);
        if self.senders.len() >= MAX_IDLE_SENDERS {
            self.senders.retain(|_, bucket| !bucket.is_full(now));
        }
        self.senders.entry(sender).or_insert(full).take(bytes, limits.member_rate, now);
    }

    fn resume_at(&mut self, at: Instant) {
        self.resume_at = Some(self.resume_at.map_or(at, |known| known.min(at)));
    }

    /// Returns the time at which [`BridgedRoom::flush_pipes`] has more to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.resume_at
    }
}

impl BridgedRoom {
    /// Returns the number of bytes that wait in the room.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.pipes.waiting_bytes().saturating_add(self.early_bytes())
    }

    /// Cuts the pair for which most bytes wait, after those that are not connected.
    pub(crate) fn shed(&mut self, now: Instant) {
        if self.shed_early() {
            return;
        }
        if let Some(key) = self.pipes.fullest() {
            self.counts.too_fast = self.counts.too_fast.saturating_add(1);
            self.cut(key);
            self.settle(now);
        }
    }

    /// Takes a chunk that a client sent to a stand-in.
    pub(super) fn take_chunk(&mut self, key: PipeKey, chunk: MessageChunk, now: Instant) {
        self.pipes.push(key, chunk);
        // Otherwise it waits behind the turns of the others.
        if !self.rates.is_room_behind {
            while self.carry_chunk(key, now) {}
        }
        let waiting = self.pipes.waiting_bytes_of(key);
        if waiting == 0 {
            return;
        }
        let BridgedRoomLimits { max_waiting, max_delayed, .. } = self.limits;
        if self.other_end(key).is_none() {
            let counted = if self.is_relayed(key) { self.relayed_bytes(key.0) } else { waiting };
            if counted > max_waiting {
                self.counts.cut = self.counts.cut.saturating_add(1);
                self.cut(key);
            }
            return;
        }
        self.counts.delayed = self.counts.delayed.saturating_add(1);
        if waiting > max_delayed {
            self.counts.too_fast = self.counts.too_fast.saturating_add(1);
            self.cut(key);
        }
    }

    /// Returns true if a stand-in neither has nor sets up a channel to the client of a pipe: other clients
    /// relay what it sends, and can invent it.
    fn is_relayed(&self, (stand_in, member): PipeKey) -> bool {
        self.peers.get(stand_in).is_none_or(|peer| !peer.has_channel_to(member))
    }

    /// Returns the number of bytes that clients relayed to a stand-in and that wait until their senders are
    /// connected. The bound is for all of these together, as each may be invented.
    fn relayed_bytes(&self, stand_in: u32) -> usize {
        let of_stand_in = self.pipes.waiting_of(stand_in);
        let relayed = of_stand_in.filter(|key| self.is_relayed(*key) && self.other_end(*key).is_none());
        relayed.map(|key| self.pipes.waiting_bytes_of(key)).fold(0, usize::saturating_add)
    }

    /// Forgets what clients relayed of senders that have not connected.
    pub(super) fn forget_relayed(&mut self, now: Instant) {
        let peers = &self.peers;
        self.pipes
            .retain(|(stand_in, member)| peers.get(stand_in).is_some_and(|peer| peer.is_near(member, now)));
    }

    /// Cuts a pair for which too much waits, so that no message is lost without a trace.
    fn cut(&mut self, (stand_in, member): PipeKey) {
        self.pipes.remove((stand_in, member));
        if let Some(peer) = self.peers.get_mut(stand_in) {
            peer.disconnect(member);
        }
    }

    /// Carries what waits, as far as both ends are connected and the rates allow it: a chunk of each pair in
    /// turn, so that none of them takes all that the room may send. Returns true if anything was carried.
    pub(super) fn flush_pipes(&mut self, now: Instant) -> bool {
        self.rates.resume_at = None;
        self.rates.is_room_behind = false;
        let mut is_any_carried = false;
        loop {
            if !self.pipes.has_waiting() {
                return is_any_carried;
            }
            if let Some(at) = self.rates.room.and_then(|bucket| bucket.ready_at(now)) {
                self.rates.resume_at(at);
                self.rates.is_room_behind = true;
                return is_any_carried;
            }
            let mut waiting = self.pipes.waiting();
            let first = waiting.partition_point(|key| Some(*key) <= self.rates.last);
            waiting.rotate_left(first);
            let mut is_carried = false;
            for key in waiting {
                is_carried |= self.carry_chunk(key, now);
            }
            if !is_carried {
                return is_any_carried;
            }
            is_any_carried = true;
        }
    }

    /// Returns the sender and the receiver of a pipe, and the stand-in from which its messages leave.
    fn other_end(&self, (stand_in, member): PipeKey) -> Option<(MeshMember, MeshMember, u32)> {
        let (group, role) = self.presence.stand_in(stand_in)?;
        let StandInRole::For(receiver) = role else { return None };
        let sender = MeshMember { group, id: member };
        let from = self.presence.stand_in_for(receiver.group, sender)?;
        let peer = self.peers.get(from)?;
        peer.members().any(|(id, _)| id == receiver.id).then_some((sender, receiver, from))
    }

    /// Carries the next chunk of a pair. Returns false if there is none, or if it has to wait.
    fn carry_chunk(&mut self, key: PipeKey, now: Instant) -> bool {
        if !self.pipes.is_waiting(key) {
            return false;
        }
        let Some((sender, receiver, from)) = self.other_end(key) else { return false };
        if let Some(at) = self.rates.ready_at(sender, now) {
            self.rates.resume_at(at);
            return false;
        }
        let Some((chunk, writer)) = self.pipes.pop(key) else { return false };
        self.rates.last = Some(key);
        self.rates.take(sender, cost(&chunk), &self.limits, now);
        let (first, max) = (self.rng.u16(..), self.limits.max_message);
        let writer = writer.get_or_insert_with(|| ChunkWriter::new(receiver.group, max, first));
        let mut written = Vec::new();
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
        let Some(peer) = self.peers.get_mut(from) else { return true };
        for part in &written {
            peer.send(receiver.id, chunk.is_broadcast, part);
        }
        true
    }
}
