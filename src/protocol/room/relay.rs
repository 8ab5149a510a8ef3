//! Forwarding of payloads over links.

use super::entry::{LinkError, PeerEntry};
use super::{Caller, EventSink, Room, role_of};
use crate::protocol::model::{
    Event, LinkId, LinkMessage, PeerId, Reason, Recipient, RoomRole, SenderTag, Side,
};

/// The link over which a message is sent, and the sender's end of it.
#[derive(Clone, Copy, Debug)]
struct Route {
    link: LinkId,
    from: Side,
}

impl<H: Clone> Room<H> {
    /// Forwards a message to the other endpoint of a link, or replies with the reason why it cannot be
    /// delivered.
    pub(super) fn relay(
        &mut self,
        caller: &mut Caller<'_, H, impl EventSink<H>>,
        to: Recipient,
        message: LinkMessage,
        sender: SenderTag,
    ) -> RoomRole {
        let entry = self.peers.get(caller.peer);
        let role = role_of(entry);
        let route = match self.resolve_recipient(caller.peer, entry, to) {
            Ok(route) => route,
            Err(reason) => {
                caller.reply(Event::Undeliverable { to, reason });
                return role;
            }
        };
        let (receiver, is_closed) = match self.apply_link_state(caller.peer, route, &message) {
            Ok(applied) => applied,
            Err(LinkError::Closed) => {
                caller.reply(Event::Undeliverable { to, reason: Reason::RecipientGone });
                return role;
            }
            Err(LinkError::Empty) => {
                let Route { link, from } = route;
                caller.reply(Event::Refused(Reason::EmptyContent { link, from }));
                return role;
            }
        };
        self.forward(route, receiver, message, sender, caller.deliver);
        if is_closed {
            self.remove_link(route.link);
            return self.role(caller.peer);
        }
        role
    }

    fn resolve_recipient(
        &self,
        peer: PeerId,
        entry: Option<&PeerEntry<H>>,
        to: Recipient,
    ) -> Result<Route, Reason> {
        let joined_via = entry.and_then(|entry| entry.joined_via);
        let as_member = |id: LinkId| {
            let is_own = self.links.get(id).is_some_and(|link| link.member == peer);
            is_own.then_some(Route { link: id, from: Side::Member }).ok_or(Reason::UnknownRecipient)
        };
        let as_joiner = || joined_via.map(|link| Route { link, from: Side::Joiner }).ok_or(Reason::NotJoined);
        match to {
            Recipient::Joiner(id) => as_member(id),
            Recipient::Member => as_joiner(),
            Recipient::JoinerOrMember(id) => as_member(id).or_else(|reason| {
                // A member that names a joiner which disconnected does not mean the member that it once
                // joined through. It addresses that one by 0 or, in sigver 19, by 1; joiners may send any id
                // (measured).
                let is_member = role_of(entry) == RoomRole::Member;
                if is_member && id.0 > 1 && joined_via != Some(id) { Err(reason) } else { as_joiner() }
            }),
        }
    }

    /// Advances the link by the message. Returns the receiver, and true if the link is closed then.
    fn apply_link_state(
        &mut self,
        peer: PeerId,
        Route { link, from }: Route,
        message: &LinkMessage,
    ) -> Result<(PeerId, bool), LinkError> {
        let link = self.links.get_mut(link).ok_or(LinkError::Closed)?;
        // A member that answers a joiner acts as a member.
        if from == Side::Member
            && self.members.any_tentative()
            && let Some(place) = self.peers.get(peer).and_then(|entry| entry.place)
        {
            self.members.confirm(place);
        }
        link.advance(from, message)?;
        Ok((link.peer_opposite(from), link.is_closed()))
    }

    /// Sends a message in the name of a peer that did not send it, which neither confirms a member nor ends a
    /// direction.
    pub(super) fn reply_on_behalf(
        &mut self,
        caller: &mut Caller<'_, H, impl EventSink<H>>,
        id: LinkId,
        message: LinkMessage,
        sender: SenderTag,
    ) {
        let Some(link) = self.links.get(id) else { return };
        if let Some(from) = link.side_of(caller.peer) {
            let receiver = link.peer_opposite(from);
            self.forward(Route { link: id, from }, receiver, message, sender, caller.deliver);
        }
    }

    /// Delivers a message to the other endpoint of its link.
    fn forward(
        &self,
        Route { link, from }: Route,
        receiver: PeerId,
        message: LinkMessage,
        sender: SenderTag,
        deliver: &mut impl EventSink<H>,
    ) {
        if let Some(receiver) = self.peers.get(receiver) {
            deliver(&receiver.handle, Event::Relayed { link, side: from.opposite(), message, sender });
        }
    }
}
