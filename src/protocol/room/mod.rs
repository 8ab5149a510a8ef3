//! One room as a plain state machine: commands in, events out.
//!
//! Membership is decided here, links are managed in `links`, payloads are forwarded in `relay`.

mod bridged;
mod claimed_ids;
mod entry;
mod limits;
mod link_table;
mod links;
mod member;
mod member_list;
mod members;
mod relay;
mod small_map;
#[cfg(test)]
mod tests;
mod tried;

use crate::protocol::model::{
    Command, Connect, Event, Join, LinkId, MemberChoice, NetId, Open, PeerId, Reason, RejoinPolicy, RoomRole,
    WhenEmpty,
};
use entry::{AdmittedBy, PeerEntry};
pub(crate) use limits::RoomLimits;
use link_table::LinkTable;
use members::Members;
use small_map::SmallMap;
use tried::TriedMembers;

/// Number of joins whose members a joiner still receives from, the latest included. sigver 5 has no limit.
const MAX_RECEIVED_JOINS: usize = 64;

/// One room. `H` is a handle by which the caller reaches a peer; the room stores it and passes it to the
/// sink.
#[derive(Debug)]
pub(crate) struct Room<H> {
    peers: SmallMap<PeerId, PeerEntry<H>>,
    members: Members,
    links: LinkTable,
}

/// The receiver of a room's events. It is called once per event, in the order in which they must arrive.
pub(crate) trait EventSink<H>: FnMut(&H, Event) {}
impl<H, F: FnMut(&H, Event)> EventSink<H> for F {}

/// The peer whose command is applied, and the means to apply it.
struct Caller<'a, H, D> {
    peer: PeerId,
    handle: &'a H,
    rng: &'a mut fastrand::Rng,
    deliver: &'a mut D,
}

impl<H, D: EventSink<H>> Caller<'_, H, D> {
    fn reply(&mut self, event: Event) {
        (self.deliver)(self.handle, event);
    }
}

impl<H> Default for Room<H> {
    fn default() -> Self {
        Room { peers: SmallMap::default(), members: Members::default(), links: LinkTable::default() }
    }
}

impl<H: Clone> Room<H> {
    /// Returns true if no peer is left, so that the room can be removed.
    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Returns the peers in the room: members and joiners.
    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.peers.keys()
    }

    /// Returns the joiner and the member of each link.
    pub(crate) fn links(&self) -> impl Iterator<Item = (PeerId, PeerId)> {
        self.links.iter().map(|link| (link.joiner, link.member))
    }

    /// Returns what the peer is in the room.
    pub(crate) fn role(&self, peer: PeerId) -> RoomRole {
        role_of(self.peers.get(peer))
    }

    /// Returns true if the peer is an endpoint of the link.
    pub(crate) fn is_endpoint_of(&self, peer: PeerId, link: LinkId) -> bool {
        self.links.get(link).is_some_and(|link| link.side_of(peer).is_some())
    }

    /// Applies a command of `peer` and returns its role after that. `handle` is stored if the peer is in the
    /// room then. Events are delivered in the order in which each receiver must see them.
    pub(crate) fn apply(
        &mut self,
        peer: PeerId,
        handle: &H,
        command: Command,
        rng: &mut fastrand::Rng,
        deliver: &mut impl EventSink<H>,
    ) -> RoomRole {
        let caller = &mut Caller { peer, handle, rng, deliver };
        match command {
            Command::Open(open) => self.open(caller, open),
            Command::Join(join) => self.join(caller, join),
            Command::Connect(connect) => self.connect(caller, connect),
            Command::BecomeMember => self.become_member(caller),
            Command::TryAnother => self.try_another(caller),
            Command::RevertAssumption => self.revert_assumption(caller),
            Command::Unlink => self.unlink(peer),
            Command::ReplyOnBehalf { link, message, sender } => {
                self.reply_on_behalf(caller, link, message, sender);
            }
            // Removes the peer itself if it is unreferenced then.
            Command::Relay { to, message, sender } => {
                return self.relay(peer, handle, to, message, sender, deliver);
            }
        }
        self.remove_if_unreferenced(peer)
    }

    /// Removes the peer: its membership and its links end, and the other endpoints receive an event, with
    /// whether it disconnected by a `normal_closure`.
    pub(crate) fn leave(&mut self, peer: PeerId, normal_closure: bool, deliver: &mut impl EventSink<H>) {
        self.demote(peer);
        let Some(entry) = self.peers.remove(peer) else {
            return;
        };
        for link in entry.links() {
            self.end_link(link, peer, normal_closure, deliver);
        }
    }

    /// Evicts every peer, so that the room is empty.
    pub(crate) fn close(&mut self, reason: &Reason, deliver: &mut impl EventSink<H>) {
        let peers = std::mem::take(&mut self.peers);
        self.members = Members::default();
        self.links.clear();
        for entry in peers.values() {
            deliver(&entry.handle, Event::Evicted(reason.clone()));
        }
    }

    /// Returns true if clients of different generations were linked.
    pub(crate) fn is_mixed(&self) -> bool {
        self.links.is_mixed()
    }

    /// Marks the room as one that connects clients of different generations. Returns true if it was not
    /// marked before.
    pub(crate) fn mark_mixed(&mut self) -> bool {
        self.links.mark_mixed()
    }

    /// Ends the peer's membership, but not its links (of an opener that opens another key).
    pub(crate) fn drop_membership(&mut self, peer: PeerId) {
        self.demote(peer);
        self.remove_if_unreferenced(peer);
    }

    fn open(&mut self, caller: &mut Caller<'_, H, impl EventSink<H>>, open: Open) {
        let first = self.members.all_tentative();
        if open.exclusive && !first {
            return caller.reply(Event::Refused(Reason::KeyTaken));
        }
        self.promote(caller, AdmittedBy::Open, false);
        caller.reply(Event::Admitted { first });
    }

    fn join(&mut self, caller: &mut Caller<'_, H, impl EventSink<H>>, join: Join) {
        let found = match join.choice {
            MemberChoice::Oldest => self.members.oldest(),
            MemberChoice::Random => self.members.random(caller.rng),
        };
        match (found, join.when_empty) {
            (Some(member), _) => self.link(caller, member, join.rejoin),
            (None, WhenEmpty::Refuse) => caller.reply(Event::Refused(Reason::KeyUnknown)),
            (None, WhenEmpty::BecomeMember | WhenEmpty::BecomeTentativeMember) => {
                self.promote(caller, AdmittedBy::Join, false);
                if join.when_empty == WhenEmpty::BecomeTentativeMember {
                    self.members.mark_tentative();
                }
                caller.reply(Event::Admitted { first: true });
            }
        }
    }

    /// Applies the rules of sigver 19 and 20 (measured on 19.0.0 to 20.1.0), extended to members without a
    /// net id.
    fn connect(&mut self, caller: &mut Caller<'_, H, impl EventSink<H>>, connect: Connect) {
        let Connect { net_id, connected_to, preferred, admit_before_unlink } = connect;
        let admitted_by = AdmittedBy::Connect(net_id);
        let first = self.members.is_empty();
        if first || self.no_usable_member(caller.peer) {
            self.promote(caller, admitted_by, preferred);
            return caller.reply(Event::Admitted { first });
        }
        if self.members.len() == 1 && self.is_member(caller.peer) {
            if self.peers.get(caller.peer).is_some_and(|entry| entry.admitted_by.net_id().is_none()) {
                self.promote(caller, admitted_by, preferred);
            }
            return caller.reply(Event::Admitted { first: false });
        }
        if self.is_connected_to_any(caller.peer, &connected_to) {
            self.promote(caller, admitted_by, preferred);
            return caller.reply(Event::Admitted { first: false });
        }
        if let Some(blocker) = self.exhausted_sole_member(caller.peer, admitted_by) {
            self.promote(caller, admitted_by, preferred);
            return self.evict_and_admit(caller, blocker, admit_before_unlink);
        }
        self.demote(caller.peer);
        self.link_to_untried(caller);
    }

    fn become_member(&mut self, caller: &mut Caller<'_, H, impl EventSink<H>>) {
        let already = self.is_member(caller.peer);
        if !already {
            self.promote(caller, AdmittedBy::Join, false);
        }
        caller.reply(Event::BecameMember { already });
    }

    /// Applies the rules of sigver 18 (measured on 18.0.0).
    fn try_another(&mut self, caller: &mut Caller<'_, H, impl EventSink<H>>) {
        let first = self.members.is_empty();
        if first || self.no_usable_member(caller.peer) {
            self.promote(caller, AdmittedBy::Join, false);
            return caller.reply(Event::Admitted { first });
        }
        if let Some(blocker) = self.exhausted_sole_member(caller.peer, AdmittedBy::Join) {
            if blocker != caller.peer {
                self.promote(caller, AdmittedBy::Join, false);
            }
            return self.evict_and_admit(caller, blocker, false);
        }
        self.link_to_untried(caller);
    }

    fn revert_assumption(&mut self, caller: &mut Caller<'_, H, impl EventSink<H>>) {
        let Some(entry) = self.peers.get_mut(caller.peer) else {
            return;
        };
        entry.forget_tried();
        if let Some(link) = entry.joined_via.take() {
            self.end_link(link, caller.peer, false, caller.deliver);
        }
    }

    fn unlink(&mut self, peer: PeerId) {
        if let Some(link) = self.peers.get_mut(peer).and_then(|entry| entry.joined_via.take()) {
            self.remove_link(link);
        }
    }

    fn is_member(&self, peer: PeerId) -> bool {
        self.peers.get(peer).is_some_and(|entry| entry.place.is_some())
    }

    /// Returns true if a member has one of the net ids. A joiner whose member has no net id cannot list it,
    /// so that any non-empty list is accepted from it.
    fn is_connected_to_any(&self, peer: PeerId, connected_to: &[NetId]) -> bool {
        if connected_to.iter().any(|id| self.members.has_net_id(*id)) {
            return true;
        }
        let joined_via = self.peers.get(peer).and_then(|entry| entry.joined_via);
        let member = joined_via.and_then(|link| self.links.get(link)).map(|link| link.member);
        !connected_to.is_empty()
            && member
                .and_then(|member| self.peers.get(member))
                .is_some_and(|member| member.place.is_some() && member.admitted_by.net_id().is_none())
    }

    /// Returns true if all members are tentative, and the peer has tried them.
    fn no_usable_member(&self, peer: PeerId) -> bool {
        let has_tried = |member| self.peers.get(peer).is_some_and(|entry| entry.has_tried(member));
        self.members.all_tentative() && self.members.oldest().is_none_or(has_tried)
    }

    /// Returns the only member, if the peer has tried it in vain. Members admitted by a different command
    /// than `admitted_by` are never evicted: failure to connect is then a protocol mismatch, not a blocking
    /// member.
    fn exhausted_sole_member(&self, peer: PeerId, admitted_by: AdmittedBy) -> Option<PeerId> {
        let member = self.members.oldest().filter(|_| self.members.len() == 1)?;
        let tried = self.peers.get(peer)?.has_tried(member);
        let alike = std::mem::discriminant(&self.peers.get(member.peer)?.admitted_by)
            == std::mem::discriminant(&admitted_by);
        (tried && alike).then_some(member.peer)
    }

    /// Makes the caller a member, or updates the net id of a member.
    fn promote(
        &mut self,
        caller: &Caller<'_, H, impl EventSink<H>>,
        admitted_by: AdmittedBy,
        preferred: bool,
    ) {
        let peer = caller.peer;
        let entry = self.peers.get_or_insert_with(peer, || PeerEntry::new(caller.handle.clone()));
        let net_id = admitted_by.net_id();
        match entry.place {
            Some(place) => {
                self.members.confirm(place);
                self.members.update_net_id(place, net_id, preferred);
            }
            None => entry.place = Some(self.members.add(peer, net_id, preferred)),
        }
        if net_id.is_some() {
            // sigver 18 continues where it was, sigver 19 and 20 start over (measured).
            entry.forget_tried();
        }
        entry.admitted_by = admitted_by;
    }

    fn demote(&mut self, peer: PeerId) {
        let Some(entry) = self.peers.get_mut(peer) else {
            return;
        };
        if let Some(place) = entry.place.take() {
            self.members.remove(place);
        }
        entry.admitted_by = AdmittedBy::default();
    }

    /// Links the caller to a member that it has not tried; to the first again if it has tried all.
    fn link_to_untried(&mut self, caller: &mut Caller<'_, H, impl EventSink<H>>) {
        let linked = self.peers.get_mut(caller.peer).and_then(|entry| entry.linked.as_mut());
        let mut none = TriedMembers::default();
        let tried = linked.map_or(&mut none, |linked| &mut linked.tried);
        let untried = self.members.next_untried(tried).or_else(|| {
            *tried = TriedMembers::default();
            self.members.next_untried(tried)
        });
        if let Some(member) = untried {
            self.link(caller, member, RejoinPolicy::Replace);
        }
    }

    /// Evicts `blocker` and admits the caller in its place, unless it is the blocker.
    fn evict_and_admit(
        &mut self,
        caller: &mut Caller<'_, H, impl EventSink<H>>,
        blocker: PeerId,
        admit_before_unlink: bool,
    ) {
        let Some(evicted) = self.peers.get(blocker).map(|entry| entry.handle.clone()) else { return };
        if admit_before_unlink {
            caller.reply(Event::Admitted { first: false });
        }
        self.leave(blocker, false, caller.deliver);
        (caller.deliver)(&evicted, Event::Evicted(Reason::Replaced));
        if !admit_before_unlink && blocker != caller.peer {
            caller.reply(Event::Admitted { first: false });
        }
    }

    /// Removes a peer that is neither a member nor an endpoint of a link. Returns the peer's role.
    fn remove_if_unreferenced(&mut self, peer: PeerId) -> RoomRole {
        match self.peers.get(peer) {
            None => RoomRole::None,
            Some(PeerEntry { place: Some(_), .. }) => RoomRole::Member,
            Some(entry) if entry.is_unlinked() && entry.joined_via.is_none() => {
                self.peers.remove(peer);
                RoomRole::None
            }
            Some(_) => RoomRole::Joiner,
        }
    }
}

fn role_of<H>(entry: Option<&PeerEntry<H>>) -> RoomRole {
    match entry {
        None => RoomRole::None,
        Some(PeerEntry { place: None, .. }) => RoomRole::Joiner,
        Some(PeerEntry { place: Some(_), .. }) => RoomRole::Member,
    }
}
