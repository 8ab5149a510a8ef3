//! The rooms of one connection. Dropping the value is how a peer leaves: on every path, and once.

use std::sync::Arc;
use std::time::Instant;

use super::pressure::{Deliveries, Pressure, PressureCause, Reading};
use super::rate::ReadRate;
use super::room_cell::{RoomCell, RoomState};
use super::waiting::Waiting;
use super::{Hub, Outbox};
use crate::protocol::model::{
    Command, LinkId, LinkMessage, Open, PeerId, Reason, Recipient, RoomKey, RoomRole, SenderTag,
};
use crate::protocol::room::Room;
use crate::server::auth::Grant;
use crate::server::telemetry::LimitKind;
use crate::server::{clock, scratch};

/// The rooms of one connection.
#[derive(Debug)]
pub struct Membership {
    pub(super) hub: Arc<Hub>,
    peer: PeerId,
    pub(super) outbox: Outbox,
    /// The room in which it became a member last.
    pub(super) member_of: Option<Arc<RoomCell>>,
    /// The room it joined last. The same as `member_of` in the dialects whose key is the path.
    pub(super) joined: Option<Arc<RoomCell>>,
    /// Parts that most connections have none of.
    pub(super) uncommon: Option<Box<Uncommon>>,
}

/// Most bytes that are on their way from a client: what the kernels on both sides hold of a connection.
const MAX_IN_FLIGHT: usize = 32 << 20;

/// The uncommon state of a connection.
#[derive(Debug, Default)]
pub(super) struct Uncommon {
    /// Rooms replaced by others as the rooms of the connection, in which it may still be a member or an
    /// endpoint of links.
    pub(super) previous: Vec<Arc<RoomCell>>,
    /// Present while the peer sends more than is received.
    pressure: Option<Pressure>,
    /// Bytes that may still be on their way to a peer that did not read, and has left by now. They are read
    /// at full speed: behind them are the heartbeats of the peer.
    in_flight: usize,
    /// Present if the rate of connections is limited.
    rate: Option<ReadRate>,
    /// The rights of the client; `None` if all have all. The time at which they expire.
    grant: Option<(Box<Grant>, Option<Instant>)>,
    /// Present while a room at another node has not answered, or it is not known which node has it.
    pub(super) waiting: Option<Box<Waiting>>,
}

/// The outcome of a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Applied {
    pub(super) role: RoomRole,
    pub(super) room_is_empty: bool,
}

impl Membership {
    pub(super) fn new(hub: Arc<Hub>, peer: PeerId, outbox: Outbox) -> Self {
        let rate = ReadRate::new(hub.limits.rates(), clock::now());
        let uncommon = rate.map(|rate| Box::new(Uncommon { rate: Some(rate), ..Uncommon::default() }));
        Membership { hub, peer, outbox, member_of: None, joined: None, uncommon }
    }

    /// Restricts the connection to the rights of its client.
    #[must_use]
    pub(in crate::server) fn with_grant(mut self, grant: Option<Box<Grant>>) -> Self {
        if let Some(grant) = grant {
            let expires_at = grant.expires_at();
            self.uncommon.get_or_insert_default().grant = Some((grant, expires_at));
        }
        self
    }

    /// Returns true if the client's rights are not for this room.
    fn is_forbidden(&self, key: &RoomKey) -> bool {
        let grant = self.uncommon.as_ref().and_then(|uncommon| uncommon.grant.as_ref());
        grant.is_some_and(|(grant, _)| !grant.allows(key.as_str()))
    }

    /// Returns the id of the connection.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Returns the queue that receives the connection's events.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Applies a command in the room `key`, and stays in it. Opening a room ends the membership in the one
    /// opened before, unless the command keeps other rooms. Without an effect if a limit is reached, which is
    /// a refusal.
    pub fn enter(&mut self, key: &RoomKey, command: Command) {
        if self.is_forbidden(key) {
            return self.refuse(Reason::KeyForbidden);
        }
        if self.is_waiting() {
            return self.defer(Some(key.clone()), command);
        }
        let keep_other_rooms = matches!(command, Command::Open(Open { keep_other_rooms: true, .. }));
        let mut deliveries = self.deliveries();
        let (cell, applied) = loop {
            let found = match self.hub.directory.get() {
                None => self.hub.room(key).map(Some),
                Some(directory) => self.locate(&**directory, key),
            };
            let cell = match found {
                Ok(Some(cell)) => cell,
                Ok(None) => {
                    drop(deliveries);
                    return self.wait_for_place(key.clone(), command);
                }
                Err(reason) => {
                    drop(deliveries);
                    return self.refuse(reason);
                }
            };
            let entry = self.entry(&cell, &command);
            let mut state = cell.state.lock();
            let room = match &mut *state {
                RoomState::Here(room) => room,
                RoomState::Removed { .. } => continue,
                RoomState::Elsewhere(_) => {
                    drop((state, deliveries));
                    return self.enter_elsewhere(cell, command, keep_other_rooms);
                }
            };
            if let Some(reason) = room.refusal(self.peer, &command, self.hub.limits.room()) {
                drop((state, deliveries));
                return self.refuse(reason);
            }
            let joined = entry.and_then(|entry| self.join_entry(room, &command, &entry, &mut deliveries));
            let applied = joined.unwrap_or_else(|| self.apply(room, command, &mut deliveries));
            self.hub.report_members(&cell.key, room);
            drop(state);
            break (cell, applied);
        };
        let pressure = deliveries.finish();
        self.put_pressure(pressure);
        self.track(cell, applied, keep_other_rooms);
    }

    fn apply(&self, room: &mut Room<Outbox>, command: Command, deliveries: &mut Deliveries<'_>) -> Applied {
        let mut deliver = |outbox: &Outbox, event| deliveries.deliver(outbox, event);
        let role = scratch::with(|scratch| {
            let rng = &mut scratch.rng.borrow_mut();
            room.apply(self.peer, &self.outbox, command, rng, &mut deliver)
        });
        Applied { role, room_is_empty: role == RoomRole::None && room.is_empty() }
    }

    /// Records the room under the role that the peer has in it now.
    pub(super) fn track(&mut self, cell: Arc<RoomCell>, applied: Applied, keep_other_rooms: bool) {
        let current = match applied.role {
            RoomRole::None if applied.room_is_empty => return self.hub.remove_if_empty(&cell),
            RoomRole::None => return,
            RoomRole::Member => &mut self.member_of,
            RoomRole::Joiner => &mut self.joined,
        };
        let replaced = current.replace(Arc::clone(&cell));
        let Some(replaced) = replaced.filter(|replaced| !Arc::ptr_eq(replaced, &cell)) else { return };
        if applied.role == RoomRole::Member && !keep_other_rooms {
            let mut state = replaced.state.lock();
            state.drop_membership(self.peer);
            if let Some(room) = state.local() {
                self.hub.report_members(&replaced.key, room);
            }
        }
        self.add_previous(replaced);
    }

    fn add_previous(&mut self, replaced: Arc<RoomCell>) {
        let is_current =
            [&self.member_of, &self.joined].into_iter().flatten().any(|cell| Arc::ptr_eq(cell, &replaced));
        if is_current {
            return;
        }
        let previous = &mut self.uncommon.get_or_insert_default().previous;
        previous.retain(|cell| !Arc::ptr_eq(cell, &replaced));
        previous.push(replaced);
        if previous.len() > self.hub.limits.max_previous() {
            let oldest = previous.remove(0);
            self.leave_room(&oldest, false);
            self.hub.telemetry.count_limit(LimitKind::RoomsPerConnection);
        }
    }

    /// Applies a command in the room it concerns, among those entered. Returns false, without an effect, if
    /// there is none.
    pub fn command(&mut self, command: Command) -> bool {
        if self.is_waiting() {
            self.defer(None, command);
            return true;
        }
        match command {
            Command::Relay { to, message, sender } => self.relay(to, message, sender),
            Command::ReplyOnBehalf { link, .. } => {
                let Some(cell) = self.room_of_link(link) else { return false };
                let mut deliveries = self.deliveries();
                // Changes no role.
                match &mut *cell.state.lock() {
                    RoomState::Here(room) => {
                        self.apply(room, command, &mut deliveries);
                    }
                    RoomState::Removed { .. } => {}
                    RoomState::Elsewhere(remote) => remote.command(command, false),
                }
                let pressure = deliveries.finish();
                self.put_pressure(pressure);
                true
            }
            Command::Open(_)
            | Command::Join(_)
            | Command::Connect(_)
            | Command::BecomeMember
            | Command::TryAnother
            | Command::RevertAssumption
            | Command::Unlink => self.change_role(command),
        }
    }

    /// Forwards a message. Without an effect, if the peer is no longer in the room. Apart from
    /// [`command`](Self::command), as nearly all commands are this one, which needs little of it.
    fn relay(&mut self, to: Recipient, message: LinkMessage, sender: SenderTag) -> bool {
        let cell = match to {
            Recipient::Joiner(link) => self.room_of_link(link),
            Recipient::Member | Recipient::JoinerOrMember(_) => self.current_room(),
        };
        let Some(cell) = cell else {
            self.put_pressure(Some(Box::new(Pressure::new(PressureCause::NoReceiver))));
            return false;
        };
        let mut deliveries = self.deliveries();
        {
            let mut state = cell.state.lock();
            // First, as most rooms are here.
            if let Some(room) = state.local() {
                let mut deliver = |outbox: &Outbox, event| deliveries.deliver(outbox, event);
                room.relay(self.peer, &self.outbox, to, message, sender, &mut deliver);
            } else if let Some(remote) = state.remote() {
                remote.command(Command::Relay { to, message, sender }, false);
            }
        }
        let pressure = deliveries.finish();
        self.put_pressure(pressure);
        true
    }

    fn change_role(&mut self, command: Command) -> bool {
        let Some(cell) = self.current_room().map(Arc::clone) else { return false };
        let mut deliveries = self.deliveries();
        let applied = {
            let mut state = cell.state.lock();
            if let RoomState::Elsewhere(_) = &*state {
                drop((state, deliveries));
                self.command_elsewhere(cell, command);
                return true;
            }
            let refusal =
                state.local().and_then(|room| room.refusal(self.peer, &command, self.hub.limits.room()));
            if let Some(reason) = refusal.or_else(|| {
                let directory = self.hub.directory.get()?;
                (!directory.may_decide(&cell.key)).then_some(Reason::Moved)
            }) {
                drop((state, deliveries));
                self.refuse(reason);
                return true;
            }
            match state.local() {
                Some(room) if room.role(self.peer) != RoomRole::None => {
                    let applied = self.apply(room, command, &mut deliveries);
                    self.hub.report_members(&cell.key, room);
                    applied
                }
                // Without an effect, as the peer is no longer in the room.
                room => {
                    Applied { role: RoomRole::None, room_is_empty: room.is_none_or(|room| room.is_empty()) }
                }
            }
        };
        let pressure = deliveries.finish();
        self.put_pressure(pressure);
        self.track(cell, applied, false);
        true
    }

    /// Returns the room joined last, or else the one in which the peer became a member last.
    fn current_room(&self) -> Option<&Arc<RoomCell>> {
        self.joined.as_ref().or(self.member_of.as_ref())
    }

    /// Returns the room in which the peer is an endpoint of the link, or else the one opened last.
    fn room_of_link(&self, link: LinkId) -> Option<&Arc<RoomCell>> {
        let previous = self.uncommon.as_ref().map_or(&[][..], |uncommon| &uncommon.previous);
        let mut found = None;
        // Most connections are in one room, which need not be asked.
        if self.joined.is_some() || !previous.is_empty() {
            let has_link = |cell: &&Arc<RoomCell>| cell.state.lock().is_endpoint_of(self.peer, link);
            let others = self.joined.iter().chain(previous.iter().rev());
            found = self.member_of.iter().chain(others).find(has_link);
        }
        found.or(self.member_of.as_ref())
    }

    /// Marks the room of a link as one that connects clients of different generations. Returns true if it was
    /// not marked before.
    pub fn mark_mixed(&mut self, link: LinkId) -> bool {
        let Some(cell) = self.room_of_link(link).or(self.joined.as_ref()) else { return false };
        cell.state.lock().mark_mixed(link)
    }

    /// Leaves every room. The other endpoints of its links are notified whether the connection ended with a
    /// `normal_closure`.
    pub fn leave(&mut self, normal_closure: bool) {
        let current = [self.member_of.take(), self.joined.take()];
        let previous = self.uncommon.as_mut().map(|uncommon| std::mem::take(&mut uncommon.previous));
        let waiting = self.uncommon.as_mut().and_then(|uncommon| uncommon.waiting.take());
        let asked = waiting.and_then(|waiting| (*waiting).into_asked());
        for cell in current.into_iter().flatten().chain(previous.into_iter().flatten()).chain(asked) {
            self.leave_room(&cell, normal_closure);
        }
    }

    fn leave_room(&self, cell: &Arc<RoomCell>, normal_closure: bool) {
        // Not under pressure by what it leaves behind.
        let mut deliveries = Deliveries::new(&self.outbox, &self.hub.memory, true);
        let is_empty = {
            let mut state = cell.state.lock();
            match &mut *state {
                RoomState::Here(room) => {
                    let mut deliver = |outbox: &Outbox, event| deliveries.deliver(outbox, event);
                    room.leave(self.peer, normal_closure, &mut deliver);
                    self.hub.report_members(&cell.key, room);
                    room.is_empty()
                }
                RoomState::Removed { .. } => false,
                RoomState::Elsewhere(remote) => {
                    remote.leave(normal_closure);
                    false
                }
            }
        };
        drop(deliveries);
        if is_empty {
            self.hub.remove_if_empty(cell);
        }
    }
}

/// Back-pressure: see `Pressure`.
impl Membership {
    fn deliveries(&self) -> Deliveries<'_> {
        Deliveries::new(&self.outbox, &self.hub.memory, self.pressure().is_some())
    }

    pub(super) fn pressure(&self) -> Option<&Pressure> {
        self.uncommon.as_ref()?.pressure.as_ref()
    }

    pub(super) fn put_pressure(&mut self, pressure: Option<Box<Pressure>>) {
        if let Some(pressure) = pressure {
            self.press(*pressure);
        }
    }

    #[cold]
    fn press(&mut self, pressure: Pressure) {
        let in_flight = self.uncommon.as_ref().is_some_and(|uncommon| uncommon.in_flight > 0);
        if in_flight && matches!(pressure.cause, PressureCause::NoReceiver) {
            return;
        }
        if self.pressure().is_none() || matches!(pressure.cause, PressureCause::Refused(_)) {
            self.end_pressure();
            self.uncommon.get_or_insert_default().pressure = Some(pressure);
        }
    }

    pub(super) fn end_pressure(&mut self) {
        let pressure = self.uncommon.as_mut().and_then(|uncommon| uncommon.pressure.take());
        if let Some(pressure) = pressure {
            if let (
                PressureCause::Member(_) | PressureCause::Joiner(_) | PressureCause::Elsewhere(..),
                Some(uncommon),
            ) = (&pressure.cause, &mut self.uncommon)
            {
                uncommon.in_flight = MAX_IN_FLIGHT;
            }
            pressure.end(&self.outbox);
        }
    }

    pub(super) fn refuse(&mut self, reason: Reason) {
        self.put_pressure(Some(Box::new(Pressure::new(PressureCause::Refused(reason)))));
    }

    /// Counts a message of the peer.
    pub(in crate::server) fn count_message(&mut self, bytes: usize, now: Instant) {
        let Some(uncommon) = &mut self.uncommon else { return };
        uncommon.in_flight = uncommon.in_flight.saturating_sub(bytes.max(1));
        if let Some(pressure) = &mut uncommon.pressure {
            pressure.spend(bytes);
        }
        if let Some(rate) = &mut uncommon.rate {
            rate.take(bytes, now);
        }
    }

    /// Counts a ping or a pong of the peer.
    pub(in crate::server) fn count_control_frame(&mut self, now: Instant) {
        if let Some(rate) = self.uncommon.as_mut().and_then(|uncommon| uncommon.rate.as_mut()) {
            rate.take(0, now);
        }
    }

    /// Returns true if nothing of the peer must be received now. Its outbox is notified when that changes, or
    /// the deadline passes.
    pub(in crate::server) fn is_paused(&mut self, now: Instant) -> bool {
        let Some(uncommon) = &mut self.uncommon else { return false };
        let count = || self.hub.telemetry.count_limit(LimitKind::MessageRate);
        let over_rate = uncommon.rate.as_mut().is_some_and(|rate| rate.is_paused(now, count));
        let over_rate = over_rate || uncommon.waiting.as_ref().is_some_and(|waiting| waiting.is_paused(now));
        let Some(pressure) = &mut uncommon.pressure else { return over_rate };
        match pressure.poll(now) {
            Reading::Free => {
                self.end_pressure();
                over_rate
            }
            Reading::Allowance => over_rate,
            Reading::Paused => true,
        }
    }

    /// Returns when [`on_timeout`](Self::on_timeout) has to be called.
    pub(in crate::server) fn deadline(&self) -> Option<Instant> {
        let Uncommon { pressure, rate, waiting, grant, .. } = &**self.uncommon.as_ref()?;
        let pressure = pressure.as_ref().and_then(Pressure::deadline);
        let rate = rate.as_ref().and_then(ReadRate::deadline);
        let waiting = waiting.as_ref().map(|waiting| waiting.deadline());
        let grant = grant.as_ref().and_then(|(_, expires_at)| *expires_at);
        pressure.into_iter().chain(rate).chain(waiting).chain(grant).min()
    }

    /// Handles what is due at `now`.
    pub(in crate::server) fn on_timeout(&mut self, now: Instant) {
        let Some(uncommon) = &mut self.uncommon else { return };
        if let Some(rate) = &mut uncommon.rate {
            rate.on_timeout(now);
        }
        let has_expired = uncommon.grant.as_ref().is_some_and(|(_, at)| at.is_some_and(|at| at <= now));
        let is_lost = uncommon.waiting.as_mut().is_some_and(|waiting| waiting.on_timeout(now));
        if uncommon.pressure.as_ref().is_some_and(|pressure| pressure.on_timeout(now)) {
            self.end_pressure();
        }
        if has_expired {
            self.refuse(Reason::TokenExpired);
        }
        if is_lost {
            self.refuse(Reason::Unreachable);
        }
    }

    /// Returns the reason for which the connection has to be closed, if a message of it
    /// was dropped or a limit is reached.
    pub(in crate::server) fn refusal(&self) -> Option<&Reason> {
        match &self.pressure()?.cause {
            PressureCause::Refused(reason) => Some(reason),
            PressureCause::Member(_)
            | PressureCause::Joiner(_)
            | PressureCause::Itself(_)
            | PressureCause::Elsewhere(..)
            | PressureCause::NoReceiver => None,
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.leave(false);
        self.end_pressure();
        self.outbox.close();
    }
}
