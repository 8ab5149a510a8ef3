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
            Command::Connect(attach) => self.attach(peer, handle, attach, rng, deliver),
            Command::BecomeMember => self.settle(peer, handle, deliver),
            Command::TryAnother => self.try_another(peer, handle, rng, deliver),
            Command::RevertAssumption => self.forget(peer, deliver),
            Command::Unlink => self.unbind(peer),
            Command::ReplyOnBehalf { link, signal, origin } => {
                self.answer(peer, link, signal, origin, deliver)
            }
            Command::Relay { to, signal, origin } => {
                // It makes nobody idle that the end of a link does not.
                return self.relay(peer, handle, to, signal, origin, deliver);
            }
        }
        self.drop_if_idle(peer);
    }

    /// The peer is gone: its membership and its links end, and whoever was at their other ends hears of it, and
    /// whether it went in a `clean` way.
    pub fn leave(&mut self, peer: PeerId, clean: bool, deliver: &mut impl EventSink<H>) {
        self.detach(peer, clean, deliver);
    }

    /// Whether the peer is at an end of a link.
    pub fn has_end(&self, peer: PeerId, link: LinkId) -> bool {
        self.links.get(link).is_some_and(|link| link.member == peer || link.joiner == peer)
    }

    /// Takes the peer's membership back, and leaves its links alone (an opener that opens another key).
    pub fn resign(&mut self, peer: PeerId) {
        self.demote(peer);
        self.drop_if_idle(peer);
    }

    fn open(&mut self, peer: PeerId, handle: &H, how: Open, deliver: &mut impl EventSink<H>) {
        if how.exclusive && !self.members.none_proven() {
            return deliver(handle, Event::Refused(Reason::KeyTaken));
        }
        let first = self.members.none_proven();
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
        let found = match how.pick {
            MemberChoice::Oldest => self.members.oldest(),
            MemberChoice::Random => self.members.random(rng),
        };
        match (found, how.alone) {
            (Some(member), _) => self.bind(peer, handle, member, how.rejoin, rng, deliver),
            (None, WhenEmpty::Refuse) => deliver(handle, Event::Refused(Reason::KeyUnknown)),
            (None, WhenEmpty::BecomeMember | WhenEmpty::BecomeTentativeMember) => {
                self.promote(peer, handle, AdmittedBy::Settled, false);
                if how.alone == WhenEmpty::BecomeTentativeMember
                    && let Some(place) = self.peers.get(peer).and_then(|peer| peer.place)
                {
                    self.members.doubt(place);
                }
                deliver(handle, Event::Admitted { first: true });
            }
        }
    }

    /// The rules of sigver 19 and 20 (measured on 19.0.0 to 20.1.0), extended to members without an id.
    fn attach(
        &mut self,
        peer: PeerId,
        handle: &H,
        attach: Connect,
        rng: &mut fastrand::Rng,
        deliver: &mut impl EventSink<H>,
    ) {
        let Connect { claim, known, favored, admitted_first } = attach;
        let was_member = self.is_member(peer);
        let first = self.members.is_empty();
        if first || self.none_to_be_had(peer) {
            self.promote(peer, handle, AdmittedBy::Attached(claim), favored);
            return deliver(handle, Event::Admitted { first });
        }
        if self.members.len() == 1 && was_member {
            if self.peers.get(peer).is_some_and(|peer| peer.way.claim().is_none()) {
                self.promote(peer, handle, AdmittedBy::Attached(claim), favored);
            }
            return deliver(handle, Event::Admitted { first: false });
        }
        if self.knows_any(peer, &known) {
            self.promote(peer, handle, AdmittedBy::Attached(claim), favored);
            return deliver(handle, Event::Admitted { first: false });
        }
        if let Some(blocker) = self.sole_member_tried_by(peer, AdmittedBy::Attached(claim)) {
            self.promote(peer, handle, AdmittedBy::Attached(claim), favored);
            return self.replace(blocker, peer, handle, admitted_first, deliver);
        }
        self.demote(peer);
        self.bind_to_untried(peer, handle, rng, deliver);
    }

    fn settle(&mut self, peer: PeerId, handle: &H, deliver: &mut impl EventSink<H>) {
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
        if first || self.none_to_be_had(peer) {
            self.promote(peer, handle, AdmittedBy::Settled, false);
            return deliver(handle, Event::Admitted { first });
        }
        if let Some(blocker) = self.sole_member_tried_by(peer, AdmittedBy::Settled) {
            if blocker != peer {
                self.promote(peer, handle, AdmittedBy::Settled, false);
            }
            return self.replace(blocker, peer, handle, false, deliver);
        }
        self.bind_to_untried(peer, handle, rng, deliver);
    }

    fn forget(&mut self, peer: PeerId, deliver: &mut impl EventSink<H>) {
        let Some(entry) = self.peers.get_mut(peer) else {
            return;
        };
        entry.tried = Vec::new();
        if let Some(link) = entry.uplink.take() {
            self.end(link, peer, false, deliver);
        }
    }

    fn unbind(&mut self, peer: PeerId) {
        if let Some(link) = self.peers.get_mut(peer).and_then(|peer| peer.uplink.take()) {
            self.remove_link(link);
        }
    }

    /// The peer itself has not said anything: that proves nothing, and ends nothing.
    fn answer(
        &mut self,
        peer: PeerId,
        id: LinkId,
        signal: LinkMessage,
        origin: SenderTag,
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
            deliver(&receiver.handle, Event::Relayed { link: id, side, signal, origin });
        }
    }

    fn relay(
        &mut self,
        peer: PeerId,
        handle: &H,
        to: Recipient,
        signal: LinkMessage,
        origin: SenderTag,
        deliver: &mut impl EventSink<H>,
    ) {
        let uplink = self.peers.get(peer).and_then(|peer| peer.uplink);
        let own = |id: LinkId| self.links.get(id).is_some_and(|link| link.member == peer).then_some(id);
        let (id, from, otherwise) = match to {
            Recipient::Joiner(id) => (own(id), Side::Member, Reason::UnknownRecipient),
            Recipient::Member => (uplink, Side::Joiner, Reason::NotJoined),
            Recipient::JoinerOrMember(id) => match own(id) {
                Some(id) => (Some(id), Side::Member, Reason::UnknownRecipient),
                // A member that names a joiner which is gone does not mean the member it once joined through. That
                // one is 0 or, in sigver 19, 1 to those it admitted; joiners may write what they like (measured).
                None if self.is_member(peer) && id.0 > 1 && uplink != Some(id) => {
                    (None, Side::Member, Reason::UnknownRecipient)
                }
                None => (uplink, Side::Joiner, Reason::NotJoined),
            },
        };
        let Some((id, link)) = id.and_then(|id| Some((id, self.links.get_mut(id)?))) else {
            let reason = if from == Side::Joiner && self.peers.contains(peer) && uplink.is_some() {
                Reason::RecipientGone
            } else {
                otherwise
            };
            return deliver(handle, Event::Undeliverable { to, reason });
        };
        let (sending, receiver, side) = match from {
            Side::Joiner => (&mut link.upward, link.member, Side::Member),
            Side::Member => (&mut link.downward, link.joiner, Side::Joiner),
        };
        if from == Side::Member
            && self.members.any_unproven()
            && let Some(place) = self.peers.get(peer).and_then(|peer| peer.place)
        {
            self.members.prove(place);
        }
        if !*sending {
            return deliver(handle, Event::Undeliverable { to, reason: Reason::RecipientGone });
        }
        let mut over = false;
        match signal {
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
            (link.upward, link.downward) = (false, false);
        }
        let dead = !link.upward && !link.downward;
        if let Some(receiver) = self.peers.get(receiver) {
            deliver(&receiver.handle, Event::Relayed { link: id, side, signal, origin });
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
    fn knows_any(&self, peer: PeerId, known: &[NetId]) -> bool {
        if known.iter().any(|id| self.claims.contains(*id)) {
            return true;
        }
        let bound_to =
            self.peers.get(peer).and_then(|peer| peer.uplink).and_then(|link| self.links.get(link));
        !known.is_empty()
            && bound_to
                .and_then(|link| self.peers.get(link.member))
                .is_some_and(|member| member.place.is_some() && member.way.claim().is_none())
    }

    /// Whether only members are here that are not known to take themselves for such, and the peer has tried them.
    fn none_to_be_had(&self, peer: PeerId) -> bool {
        let tried = self.peers.get(peer).map_or(&[] as &[_], |peer| &peer.tried);
        self.members.none_proven() && self.members.untried(tried).is_none()
    }

    /// The only member, if the peer has tried it: nobody gets in through it. A member that came in another way than
    /// `peer` would is left in peace: that the two do not understand one another is no fault of either.
    fn sole_member_tried_by(&self, peer: PeerId, way: AdmittedBy) -> Option<PeerId> {
        let (member, identity) = self.members.oldest()?;
        let tried = self.peers.get(peer)?.tried.contains(&identity);
        let alike = std::mem::discriminant(&self.peers.get(member)?.way) == std::mem::discriminant(&way);
        (self.members.len() == 1 && tried && alike).then_some(member)
    }

    /// Makes the peer a member, or gives a member its new claim.
    fn promote(&mut self, peer: PeerId, handle: &H, way: AdmittedBy, favored: bool) {
        let entry = self.peers.get_or_insert_with(peer, || PeerEntry::new(handle.clone()));
        let claim = way.claim();
        let identity = claim.map_or(Identity::Connection(peer), Identity::Claimed);
        match entry.place {
            Some(place) => {
                self.members.prove(place);
                self.members.rename(place, identity, favored);
            }
            None => entry.place = Some(self.members.add(peer, identity, favored)),
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

    fn bind_to_untried(
        &mut self,
        peer: PeerId,
        handle: &H,
        rng: &mut fastrand::Rng,
        deliver: &mut impl EventSink<H>,
    ) {
        let tried = self.peers.get(peer).map_or(&[] as &[_], |peer| &peer.tried);
        let member = match self.members.untried(tried) {
            Some(member) => member,
            None => {
                // All were tried: begin anew.
                if let Some(entry) = self.peers.get_mut(peer) {
                    entry.tried.clear();
                }
                let Some(member) = self.members.untried(&[]) else {
                    return;
                };
                member
            }
        };
        self.bind(peer, handle, member, RejoinPolicy::Replace, rng, deliver);
    }

    /// Puts `blocker` out. The peer at `handle` hears that it was admitted in its place, unless it is the blocker.
    fn replace(
        &mut self,
        blocker: PeerId,
        peer: PeerId,
        handle: &H,
        admitted_first: bool,
        deliver: &mut impl EventSink<H>,
    ) {
        let Some(victim) = self.peers.get(blocker).map(|peer| peer.handle.clone()) else { return };
        if admitted_first {
            deliver(handle, Event::Admitted { first: false });
        }
        self.detach(blocker, false, deliver);
        deliver(&victim, Event::Evicted(Reason::Replaced));
        if !admitted_first && blocker != peer {
            deliver(handle, Event::Admitted { first: false });
        }
    }

    fn detach(&mut self, peer: PeerId, clean: bool, deliver: &mut impl EventSink<H>) {
        self.demote(peer);
        let Some(entry) = self.peers.remove(peer) else {
            return;
        };
        for link in entry.links.keys() {
            self.end(link, peer, clean, deliver);
        }
    }

    /// A peer that is neither a member nor at an end of a link has no business here.
    fn drop_if_idle(&mut self, peer: PeerId) {
        if self
            .peers
            .get(peer)
            .is_some_and(|peer| peer.place.is_none() && peer.links.is_empty() && peer.uplink.is_none())
        {
            self.peers.remove(peer);
        }
    }
}
