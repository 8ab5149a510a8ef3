//! One room as a plain state machine: commands in, events out.
//!
//! Membership and delivery are decided here; how links are made and end is in [`links`].

mod claimed_ids;
mod entry;
mod links;
mod members;
mod small_map;
#[cfg(test)]
mod tests;

use crate::protocol::model::{
    Command, Connect, Event, Join, LinkId, LinkMessage, MemberChoice, NetId, Open, PeerId, Reason, Recipient,
    RejoinPolicy, SenderTag, Side, WhenEmpty,
};
use claimed_ids::ClaimedIds;
use entry::{AdmittedBy, Link, PeerEntry};
use members::{Identity, Members};
use small_map::SmallMap;

/// How many of its earlier joins a joiner still hears the members of (sigver 5 has no limit).
const MAX_JOINS_HEARD: usize = 64;

/// One room. `H` is whatever the caller needs to reach a peer; the room only keeps it.
#[derive(Debug)]
pub struct Room<H> {
    peers: SmallMap<PeerId, PeerEntry<H>>,
    members: Members,
    links: SmallMap<LinkId, Link>,
    claims: ClaimedIds,
}

/// Where a room's events go: one call per event, in the order in which they must arrive.
pub trait EventSink<H>: FnMut(&H, Event) {}
impl<H, F: FnMut(&H, Event)> EventSink<H> for F {}

impl<H> Default for Room<H> {
    fn default() -> Self {
        Room {
            peers: SmallMap::default(),
            members: Members::default(),
            links: SmallMap::default(),
            claims: ClaimedIds::default(),
        }
    }
}

impl<H: Clone> Room<H> {
    /// Whether nobody is left, so that the room can be forgotten.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Whether the peer is in the room, as a member or bound to one.
    pub fn contains(&self, peer: PeerId) -> bool {
        self.peers.contains(peer)
    }

    /// Who is in the room.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.peers.keys()
    }

    /// How many members there are.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Does what `peer` asks. `handle` is kept if the peer is in the room afterwards. Events are delivered in the
    /// order in which each receiver must see them.
    pub fn apply(
        &mut self,
        peer: PeerId,
        handle: &H,
        command: Command,
        rng: &mut fastrand::Rng,
        deliver: &mut impl EventSink<H>,
    ) {
        match command {
            Command::Open(how) => self.open(peer, handle, how, deliver),
            Command::Join(how) => self.join(peer, handle, how, rng, deliver),
            Command::Connect(connect) => self.connect(peer, handle, connect, rng, deliver),
            Command::BecomeMember => self.become_member(peer, handle, deliver),
            Command::TryAnother => self.try_another(peer, handle, rng, deliver),
            Command::RevertAssumption => self.revert_assumption(peer, deliver),
            Command::Unlink => self.unlink(peer),
            Command::ReplyOnBehalf { link, message, sender } => {
                self.reply_on_behalf(peer, link, message, sender, deliver)
            }
            Command::Relay { to, message, sender } => {
                // It makes nobody idle that the end of a link does not.
                return self.relay(peer, handle, to, message, sender, deliver);
            }
        }
        self.remove_if_unreferenced(peer);
    }

    /// The peer is gone: its membership and its links end, and whoever was at their other ends hears of it, and
    /// whether it went in a `normal_closure` way.
    pub fn leave(&mut self, peer: PeerId, normal_closure: bool, deliver: &mut impl EventSink<H>) {
        self.remove_peer(peer, normal_closure, deliver);
    }

    /// Whether the peer is at an end of a link.
    pub fn is_endpoint_of(&self, peer: PeerId, link: LinkId) -> bool {
        self.links.get(link).is_some_and(|link| link.member == peer || link.joiner == peer)
    }

    /// Takes the peer's membership back, and leaves its links alone (an opener that opens another key).
    pub fn drop_membership(&mut self, peer: PeerId) {
        self.demote(peer);
        self.remove_if_unreferenced(peer);
    }

    fn open(&mut self, peer: PeerId, handle: &H, how: Open, deliver: &mut impl EventSink<H>) {
        if how.exclusive && !self.members.all_tentative() {
            return deliver(handle, Event::Refused(Reason::KeyTaken));
        }
        let first = self.members.all_tentative();
        self.promote(peer, handle, AdmittedBy::Opened, false);
        deliver(handle, Event::Admitted { first });
    }

    fn join(
        &mut self,
        peer: PeerId,
        handle: &H,
        how: Join,
        rng: &mut fastrand::Rng,
        deliver: &mut impl EventSink<H>,
    ) {
        let found = match how.choice {
            MemberChoice::Oldest => self.members.oldest(),
            MemberChoice::Random => self.members.random(rng),
        };
        match (found, how.when_empty) {
            (Some(member), _) => self.link(peer, handle, member, how.rejoin, rng, deliver),
            (None, WhenEmpty::Refuse) => deliver(handle, Event::Refused(Reason::KeyUnknown)),
            (None, WhenEmpty::BecomeMember | WhenEmpty::BecomeTentativeMember) => {
                self.promote(peer, handle, AdmittedBy::Settled, false);
                if how.when_empty == WhenEmpty::BecomeTentativeMember
                    && let Some(place) = self.peers.get(peer).and_then(|peer| peer.place)
                {
                    self.members.mark_tentative(place);
                }
                deliver(handle, Event::Admitted { first: true });
            }
        }
    }

    /// The rules of sigver 19 and 20 (measured on 19.0.0 to 20.1.0), extended to members without an id.
    fn connect(
        &mut self,
        peer: PeerId,
        handle: &H,
        connect: Connect,
        rng: &mut fastrand::Rng,
        deliver: &mut impl EventSink<H>,
    ) {
        let Connect { net_id, connected_to, preferred, admit_before_unlink } = connect;
        let was_member = self.is_member(peer);
        let first = self.members.is_empty();
        if first || self.no_usable_member(peer) {
            self.promote(peer, handle, AdmittedBy::Attached(net_id), preferred);
            return deliver(handle, Event::Admitted { first });
        }
        if self.members.len() == 1 && was_member {
            if self.peers.get(peer).is_some_and(|peer| peer.way.claim().is_none()) {
                self.promote(peer, handle, AdmittedBy::Attached(net_id), preferred);
            }
            return deliver(handle, Event::Admitted { first: false });
        }
        if self.is_connected_to_any(peer, &connected_to) {
            self.promote(peer, handle, AdmittedBy::Attached(net_id), preferred);
            return deliver(handle, Event::Admitted { first: false });
        }
        if let Some(blocker) = self.exhausted_sole_member(peer, AdmittedBy::Attached(net_id)) {
            self.promote(peer, handle, AdmittedBy::Attached(net_id), preferred);
            return self.evict_and_admit(blocker, peer, handle, admit_before_unlink, deliver);
        }
        self.demote(peer);
        self.link_to_untried(peer, handle, rng, deliver);
    }

    fn become_member(&mut self, peer: PeerId, handle: &H, deliver: &mut impl EventSink<H>) {
        let already = self.is_member(peer);
        if !already {
            self.promote(peer, handle, AdmittedBy::Settled, false);
        }
        deliver(handle, Event::BecameMember { already });
    }

    /// The rules of sigver 18 (measured on 18.0.0).
    fn try_another(
        &mut self,
        peer: PeerId,
        handle: &H,
        rng: &mut fastrand::Rng,
        deliver: &mut impl EventSink<H>,
    ) {
        let first = self.members.is_empty();
        if first || self.no_usable_member(peer) {
            self.promote(peer, handle, AdmittedBy::Settled, false);
            return deliver(handle, Event::Admitted { first });
        }
        if let Some(blocker) = self.exhausted_sole_member(peer, AdmittedBy::Settled) {
            if blocker != peer {
                self.promote(peer, handle, AdmittedBy::Settled, false);
            }
            return self.evict_and_admit(blocker, peer, handle, false, deliver);
        }
        self.link_to_untried(peer, handle, rng, deliver);
    }

    fn revert_assumption(&mut self, peer: PeerId, deliver: &mut impl EventSink<H>) {
        let Some(entry) = self.peers.get_mut(peer) else {
            return;
        };
        entry.tried = Vec::new();
        if let Some(link) = entry.joined_via.take() {
            self.end(link, peer, false, deliver);
        }
    }

    fn unlink(&mut self, peer: PeerId) {
        if let Some(link) = self.peers.get_mut(peer).and_then(|peer| peer.joined_via.take()) {
            self.remove_link(link);
        }
    }

    /// The peer itself has not said anything: that proves nothing, and ends nothing.
    fn reply_on_behalf(
        &mut self,
        peer: PeerId,
        id: LinkId,
        message: LinkMessage,
        sender: SenderTag,
        deliver: &mut impl EventSink<H>,
    ) {
        let Some(link) = self.links.get(id) else { return };
        let (receiver, side) = if link.member == peer {
            (link.joiner, Side::Joiner)
        } else if link.joiner == peer {
            (link.member, Side::Member)
        } else {
            return;
        };
        if let Some(receiver) = self.peers.get(receiver) {
            deliver(&receiver.handle, Event::Relayed { link: id, side, message, sender });
        }
    }

    fn relay(
        &mut self,
        peer: PeerId,
        handle: &H,
        to: Recipient,
        message: LinkMessage,
        sender: SenderTag,
        deliver: &mut impl EventSink<H>,
    ) {
        let joined_via = self.peers.get(peer).and_then(|peer| peer.joined_via);
        let own = |id: LinkId| self.links.get(id).is_some_and(|link| link.member == peer).then_some(id);
        let (id, from, otherwise) = match to {
            Recipient::Joiner(id) => (own(id), Side::Member, Reason::UnknownRecipient),
            Recipient::Member => (joined_via, Side::Joiner, Reason::NotJoined),
            Recipient::JoinerOrMember(id) => match own(id) {
                Some(id) => (Some(id), Side::Member, Reason::UnknownRecipient),
                // A member that names a joiner which is gone does not mean the member it once joined through. That
                // one is 0 or, in sigver 19, 1 to those it admitted; joiners may write what they like (measured).
                None if self.is_member(peer) && id.0 > 1 && joined_via != Some(id) => {
                    (None, Side::Member, Reason::UnknownRecipient)
                }
                None => (joined_via, Side::Joiner, Reason::NotJoined),
            },
        };
        let Some((id, link)) = id.and_then(|id| Some((id, self.links.get_mut(id)?))) else {
            let reason = if from == Side::Joiner && self.peers.contains(peer) && joined_via.is_some() {
                Reason::RecipientGone
            } else {
                otherwise
            };
            return deliver(handle, Event::Undeliverable { to, reason });
        };
        let (sending, receiver, side) = match from {
            Side::Joiner => (&mut link.joiner_open, link.member, Side::Member),
            Side::Member => (&mut link.member_open, link.joiner, Side::Joiner),
        };
        if from == Side::Member
            && self.members.any_tentative()
            && let Some(place) = self.peers.get(peer).and_then(|peer| peer.place)
        {
            self.members.confirm(place);
        }
        if !*sending {
            return deliver(handle, Event::Undeliverable { to, reason: Reason::RecipientGone });
        }
        let mut over = false;
        match message {
            LinkMessage::Data { last, .. } => *sending = !last,
            LinkMessage::End => *sending = false,
            LinkMessage::Error { closes_both } => {
                *sending = false;
                over = closes_both;
            }
            LinkMessage::Empty => {
                return deliver(handle, Event::Refused(Reason::EmptyContent { link: id, from }));
            }
        }
        if over {
            (link.joiner_open, link.member_open) = (false, false);
        }
        let dead = !link.joiner_open && !link.member_open;
        if let Some(receiver) = self.peers.get(receiver) {
            deliver(&receiver.handle, Event::Relayed { link: id, side, message, sender });
        }
        if dead {
            self.remove_link(id);
        }
    }

    /// Whether the peer is a member.
    pub fn is_member(&self, peer: PeerId) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.place.is_some())
    }

    /// Whether one of the ids is a member's. A peer bound to a member whose dialect has no ids is believed when it
    /// lists any: it cannot know that member by another name.
    fn is_connected_to_any(&self, peer: PeerId, connected_to: &[NetId]) -> bool {
        if connected_to.iter().any(|id| self.claims.contains(*id)) {
            return true;
        }
        let bound_to =
            self.peers.get(peer).and_then(|peer| peer.joined_via).and_then(|link| self.links.get(link));
        !connected_to.is_empty()
            && bound_to
                .and_then(|link| self.peers.get(link.member))
                .is_some_and(|member| member.place.is_some() && member.way.claim().is_none())
    }

    /// Whether only members are here that are not known to take themselves for such, and the peer has tried them.
    fn no_usable_member(&self, peer: PeerId) -> bool {
        let tried = self.peers.get(peer).map_or(&[] as &[_], |peer| &peer.tried);
        self.members.all_tentative() && self.members.next_untried(tried).is_none()
    }

    /// The only member, if the peer has tried it: nobody gets in through it. A member that came in another way than
    /// `peer` would is left in peace: that the two do not understand one another is no fault of either.
    fn exhausted_sole_member(&self, peer: PeerId, way: AdmittedBy) -> Option<PeerId> {
        let (member, identity) = self.members.oldest()?;
        let tried = self.peers.get(peer)?.tried.contains(&identity);
        let alike = std::mem::discriminant(&self.peers.get(member)?.way) == std::mem::discriminant(&way);
        (self.members.len() == 1 && tried && alike).then_some(member)
    }

    /// Makes the peer a member, or gives a member its new claim.
    fn promote(&mut self, peer: PeerId, handle: &H, way: AdmittedBy, preferred: bool) {
        let entry = self.peers.get_or_insert_with(peer, || PeerEntry::new(handle.clone()));
        let claim = way.claim();
        let identity = claim.map_or(Identity::Connection(peer), Identity::Claimed);
        match entry.place {
            Some(place) => {
                self.members.confirm(place);
                self.members.update_identity(place, identity, preferred);
            }
            None => entry.place = Some(self.members.add(peer, identity, preferred)),
        }
        if claim.is_some() {
            // sigver 18 goes on where it was, sigver 19 and 20 begin anew (measured).
            entry.tried = Vec::new();
        }
        let before = std::mem::replace(&mut entry.way, way);
        self.unclaim(before.claim());
        if let Some(claim) = claim {
            self.claims.add(claim);
        }
    }

    fn demote(&mut self, peer: PeerId) {
        let Some(entry) = self.peers.get_mut(peer) else {
            return;
        };
        if let Some(place) = entry.place.take() {
            self.members.remove(place);
        }
        let before = std::mem::take(&mut entry.way);
        self.unclaim(before.claim());
    }

    fn unclaim(&mut self, claim: Option<NetId>) {
        if let Some(claim) = claim {
            self.claims.remove(claim);
        }
    }

    fn link_to_untried(
        &mut self,
        peer: PeerId,
        handle: &H,
        rng: &mut fastrand::Rng,
        deliver: &mut impl EventSink<H>,
    ) {
        let tried = self.peers.get(peer).map_or(&[] as &[_], |peer| &peer.tried);
        let member = match self.members.next_untried(tried) {
            Some(member) => member,
            None => {
                // All were tried: begin anew.
                if let Some(entry) = self.peers.get_mut(peer) {
                    entry.tried.clear();
                }
                let Some(member) = self.members.next_untried(&[]) else {
                    return;
                };
                member
            }
        };
        self.link(peer, handle, member, RejoinPolicy::Replace, rng, deliver);
    }

    /// Puts `blocker` out. The peer at `handle` hears that it was admitted in its place, unless it is the blocker.
    fn evict_and_admit(
        &mut self,
        blocker: PeerId,
        peer: PeerId,
        handle: &H,
        admit_before_unlink: bool,
        deliver: &mut impl EventSink<H>,
    ) {
        let Some(victim) = self.peers.get(blocker).map(|peer| peer.handle.clone()) else { return };
        if admit_before_unlink {
            deliver(handle, Event::Admitted { first: false });
        }
        self.remove_peer(blocker, false, deliver);
        deliver(&victim, Event::Evicted(Reason::Replaced));
        if !admit_before_unlink && blocker != peer {
            deliver(handle, Event::Admitted { first: false });
        }
    }

    fn remove_peer(&mut self, peer: PeerId, normal_closure: bool, deliver: &mut impl EventSink<H>) {
        self.demote(peer);
        let Some(entry) = self.peers.remove(peer) else {
            return;
        };
        for link in entry.links.keys() {
            self.end(link, peer, normal_closure, deliver);
        }
    }

    /// A peer that is neither a member nor at an end of a link has no business here.
    fn remove_if_unreferenced(&mut self, peer: PeerId) {
        if self
            .peers
            .get(peer)
            .is_some_and(|peer| peer.place.is_none() && peer.links.is_empty() && peer.joined_via.is_none())
        {
            self.peers.remove(peer);
        }
    }
}
