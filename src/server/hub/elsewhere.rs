//! Rooms at other nodes, as one connection uses them: waiting for their answers and for their places.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::directory::PLACE_TIMEOUT;
use super::membership::{Applied, Membership};
use super::outbox::PushResult;
use super::pressure::{Pressure, PressureCause};
use super::room_cell::RoomCell;
use super::waiting::Waiting;
use super::{Directory, Hold, Location, Outbox};
use crate::protocol::model::{Command, Event, Reason, RoomKey, RoomRole};
use crate::server::clock;
use crate::server::memory::MemoryBudget;

/// Most times that a room is located again because it was not where it should be.
const MAX_MISPLACED: u8 = 3;

fn is_misplaced(cell: &Arc<RoomCell>) -> bool {
    cell.state.lock().remote().is_some_and(|remote| remote.is_misplaced())
}

impl Membership {
    /// Returns true if a room has not answered yet, or its place is not known.
    pub(super) fn is_waiting(&self) -> bool {
        self.uncommon.as_ref().is_some_and(|uncommon| uncommon.waiting.is_some())
    }

    /// Puts a command off until the wait is over.
    #[cold]
    pub(super) fn defer(&mut self, key: Option<RoomKey>, command: Command) {
        if let Some(waiting) = self.uncommon.as_mut().and_then(|uncommon| uncommon.waiting.as_mut()) {
            waiting.defer(key, command);
        }
    }

    /// Returns the room `key` of a cluster, or `None` if its place is not known yet.
    #[cold]
    pub(super) fn locate(
        &self,
        directory: &dyn Directory,
        key: &RoomKey,
    ) -> Result<Option<Arc<RoomCell>>, Reason> {
        let known = self.cells().find(|cell| cell.key == *key && cell.state.lock().remote().is_some());
        if let Some(cell) = known {
            return Ok(Some(Arc::clone(cell)));
        }
        let hub = &*self.hub;
        // Locked until the room is created: else it could be removed, and its claim released, in between.
        let mut shard = hub.shard(key).lock();
        match directory.locate(key, &self.outbox) {
            Location::Here => hub.room_in(&mut shard, key).map(Some),
            // The connection is at a third node: two hops are the most.
            Location::Elsewhere(_) if self.outbox.is_remote() => Err(Reason::Moved),
            Location::Elsewhere(remote) => Ok(Some(RoomCell::elsewhere(key.clone(), remote))),
            Location::Unknown => Ok(None),
            Location::Unavailable(reason) => Err(reason),
        }
    }

    fn cells(&self) -> impl Iterator<Item = &Arc<RoomCell>> {
        let previous = self.uncommon.iter().flat_map(|uncommon| &uncommon.previous);
        self.member_of.iter().chain(&self.joined).chain(previous)
    }

    /// Returns true if the connection is in a room of this node, in a cluster. Such a room is closed as a
    /// whole when the node ends.
    pub(in crate::server) fn closes_with_room(&self) -> bool {
        let is_here = |cell: &Arc<RoomCell>| cell.state.lock().local().is_some();
        self.hub.directory.get().is_some() && self.cells().any(is_here)
    }

    /// Waits until the place of the room `key` is known.
    #[cold]
    pub(super) fn wait_for_place(&mut self, key: RoomKey, command: Command) {
        let timeout = self.hub.directory.get().map_or(PLACE_TIMEOUT, |directory| directory.place_timeout());
        let mut waiting = Waiting::new(None, timeout);
        waiting.defer(Some(key), command);
        self.uncommon.get_or_insert_default().waiting = Some(Box::new(waiting));
    }

    /// Enters a room at another node.
    #[cold]
    pub(super) fn enter_elsewhere(&mut self, cell: Arc<RoomCell>, command: Command, keep_other_rooms: bool) {
        let entry = command.clone();
        if let Some(remote) = cell.state.lock().remote() {
            remote.enter(&cell.key, command);
        }
        self.wait_for_answer(cell, Some(entry), keep_other_rooms);
    }

    /// Sends a command that may change the role of the peer to a room at another node.
    #[cold]
    pub(super) fn command_elsewhere(&mut self, cell: Arc<RoomCell>, command: Command) {
        if let Some(remote) = cell.state.lock().remote() {
            remote.command(command, true);
        }
        self.wait_for_answer(cell, None, false);
    }

    fn wait_for_answer(&mut self, cell: Arc<RoomCell>, entry: Option<Command>, keep_other_rooms: bool) {
        let waiting = Waiting { entry, ..Waiting::new(Some((cell, keep_other_rooms)), PLACE_TIMEOUT) };
        self.uncommon.get_or_insert_default().waiting = Some(Box::new(waiting));
        // The answer may be there already.
        self.finish_wait();
    }

    /// Continues after the outbox was notified: with the commands that were put off, if what they waited for
    /// is there, and with the holds of rooms at other nodes.
    pub(in crate::server) fn resume(&mut self) {
        if self.uncommon.is_none() {
            return;
        }
        self.take_holds();
        self.finish_wait();
    }

    #[cold]
    fn finish_wait(&mut self) {
        let Some(uncommon) = &mut self.uncommon else { return };
        let Some(mut waiting) = uncommon.waiting.take() else { return };
        if let Some((cell, _)) = waiting.asked.take_if(|(cell, _)| is_misplaced(cell)) {
            return self.enter_again(&cell.key, *waiting);
        }
        let role = waiting
            .asked
            .as_ref()
            .map(|(cell, _)| cell.state.lock().remote().map_or(Some(RoomRole::None), |remote| remote.role()));
        if role == Some(None) {
            uncommon.waiting = Some(waiting);
            return;
        }
        let Waiting { asked, read_from, since, deadline, deferred, misplaced, .. } = *waiting;
        let was_located = asked.is_some();
        if let Some(((cell, keep_other_rooms), role)) = asked.zip(role.flatten()) {
            self.track(cell, Applied { role, room_is_empty: false }, keep_other_rooms);
        }
        // Those behind one that has to wait are put off again.
        self.apply_deferred(deferred);
        let waiting = self.uncommon.as_mut().and_then(|uncommon| uncommon.waiting.as_mut());
        let is_located = waiting.as_ref().is_none_or(|waiting| waiting.asked.is_some());
        if let Some(waiting) = waiting {
            // The place is still unknown: the time goes on.
            if waiting.asked.is_none() {
                (waiting.since, waiting.deadline) = (since, deadline);
                if !was_located {
                    waiting.read_from = read_from;
                }
            }
            if !was_located {
                waiting.misplaced = misplaced;
            }
        }
        if is_located
            && !was_located
            && let Some(directory) = self.hub.directory.get()
        {
            directory.waited(clock::now().saturating_duration_since(since));
        }
    }

    /// Enters a room with the same command once more, as it was not at the node where it should be.
    #[cold]
    fn enter_again(&mut self, key: &RoomKey, earlier: Waiting) {
        let Waiting { entry, misplaced, deadline, deferred, .. } = earlier;
        let Some(command) = entry.filter(|_| misplaced < MAX_MISPLACED) else {
            return self.refuse(Reason::Moved);
        };
        self.member_of.take_if(|cell| is_misplaced(cell));
        self.joined.take_if(|cell| is_misplaced(cell));
        if let Some(uncommon) = &mut self.uncommon {
            uncommon.previous.retain(|cell| !is_misplaced(cell));
        }
        if let Some(directory) = self.hub.directory.get() {
            directory.misplaced(key);
        }
        self.enter(key, command);
        match self.uncommon.as_mut().and_then(|uncommon| uncommon.waiting.as_mut()) {
            Some(waiting) => {
                waiting.deadline = deadline;
                waiting.misplaced = misplaced + 1;
                deferred.into_iter().for_each(|(key, command)| waiting.defer(key, command));
            }
            None => self.apply_deferred(deferred),
        }
    }

    fn apply_deferred(&mut self, deferred: VecDeque<(Option<RoomKey>, Command)>) {
        for (key, command) in deferred {
            match key {
                Some(key) => self.enter(&key, command),
                None => {
                    self.command(command);
                }
            }
        }
    }

    fn take_holds(&mut self) {
        let held = self.cells().find_map(|cell| {
            let hold = cell.state.lock().remote()?.take_hold()?;
            Some((Arc::clone(cell), hold))
        });
        let Some((cell, hold)) = held else { return };
        let cause = match hold {
            Hold::NoReceiver => PressureCause::NoReceiver,
            Hold::Full | Hold::JoinerFull => PressureCause::Elsewhere(cell, hold),
        };
        self.put_pressure(Some(Box::new(Pressure::new(cause))));
    }
}

impl Outbox {
    /// Queues an event of a room at another node. If the queue is full then, `relief` is called, and what it
    /// returns is notified when the queue is not full any more.
    pub(crate) fn deliver(
        &self,
        event: Event,
        memory: &Arc<MemoryBudget>,
        relief: impl FnOnce() -> Option<Outbox>,
    ) {
        let (reader, admission) = self.enqueue(event, memory);
        match admission {
            PushResult::Queued => {}
            PushResult::Full { .. } => {
                let relief = relief();
                if let Some(relief) = relief.filter(|relief| !self.add_waiting(relief)) {
                    relief.notify();
                }
            }
            // The sender cannot be closed from here: it was held back before, and what was on its way is too
            // much for this connection.
            PushResult::Refused(_) => self.overflow(),
        }
        reader.into_iter().for_each(Waker::wake);
    }
}

/// The connections of other nodes, which have the rooms of this one through their links.
impl Membership {
    /// Returns the role in the room of the connection, which is the only one of a session between nodes;
    /// `None` while the connection waits for it.
    pub(crate) fn single_role(&self) -> Option<RoomRole> {
        if self.is_waiting() {
            return None;
        }
        let role = |cell: &Arc<RoomCell>| cell.state.lock().local().map(|room| room.role(self.peer()));
        Some(self.member_of.as_ref().or(self.joined.as_ref()).and_then(role).unwrap_or(RoomRole::None))
    }

    /// Ends the membership in the room of the connection, but not its links.
    pub(crate) fn drop_membership(&mut self) {
        if let Some(cell) = &self.member_of {
            cell.state.lock().drop_membership(self.peer());
        }
    }

    /// Returns the hold on the peer, if there is one that is not over.
    pub(crate) fn hold(&mut self, now: Instant) -> Option<Hold> {
        // Also ends what is over.
        let _ = self.is_paused(now);
        match &self.pressure()?.cause {
            PressureCause::Member(_) | PressureCause::Itself(_) | PressureCause::Elsewhere(_, _) => {
                Some(Hold::Full)
            }
            PressureCause::Joiner(_) => Some(Hold::JoinerFull),
            PressureCause::NoReceiver => Some(Hold::NoReceiver),
            PressureCause::Refused(_) => None,
        }
    }

    /// Has the joiner closed whose full queue is the cause of the hold on the peer.
    pub(crate) fn close_full_joiner(&mut self) {
        if let Some(PressureCause::Joiner(joiner)) = self.pressure().map(|pressure| &pressure.cause) {
            joiner.overflow();
        }
        self.end_pressure();
    }

    /// Returns true if the connection has nothing that most have not: no hold, no wait, one room.
    pub(crate) fn is_common(&self) -> bool {
        self.uncommon.is_none()
    }
}
