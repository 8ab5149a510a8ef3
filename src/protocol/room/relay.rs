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
    /// delivered. Does nothing for a peer that is not in the room.
    pub(crate) fn relay(
        &mut self,
        peer: PeerId,
        handle: &H,
        to: Recipient,
        message: LinkMessage,
        sender: SenderTag,
        deliver: &mut impl EventSink<H>,
    ) -> RoomRole {
        let Some(entry) = self.peers.get(peer) else { return RoomRole::None };
        let role = role_of(Some(entry));
        let own_link = match to {
            Recipient::Joiner(id) | Recipient::JoinerOrMember(id) => {
                self.links.get_mut(id).filter(|link| link.member == peer).map(|link| (id, link))
            }
            Recipient::Member => None,
        };
        let (route, link) = match own_link {
            Some((id, link)) => (Route { link: id, from: Side::Member }, Some(link)),
            None => match link_to_member(entry, to) {
                Ok(id) => (Route { link: id, from: Side::Joiner }, self.links.get_mut(id)),
                Err(reason) => {
                    deliver(handle, Event::Undeliverable { to, reason });
                    return role;
                }
            },
        };
        // A member that answers a joiner acts as a member.
        if route.from == Side::Member
            && self.members.any_tentative()
            && let Some(place) = entry.place
        {
            self.members.confirm(place);
        }
        let advanced = link.ok_or(LinkError::Closed).and_then(|link| {
            link.advance(route.from, &message)?;
            Ok((link.peer_opposite(route.from), link.is_closed()))
        });
        match advanced {
            Ok((receiver, is_closed)) => {
                self.forward(route, receiver, message, sender, deliver);
                if is_closed {
                    self.remove_link(route.link);
                    return self.role(peer);
                }
            }
            Err(LinkError::Closed) => {
                deliver(handle, Event::Undeliverable { to, reason: Reason::RecipientGone });
            }
            Err(LinkError::Empty) => {
                let Route { link, from } = route;
                deliver(handle, Event::Refused(Reason::EmptyContent { link, from }));
            }
        }
        role
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

/// Returns the link by which the sender joined, if it may name the member at its other end like this.
fn link_to_member<H>(sender: &PeerEntry<H>, to: Recipient) -> Result<LinkId, Reason> {
    match to {
        Recipient::Joiner(_) => return Err(Reason::UnknownRecipient),
        // A member that names a joiner which disconnected does not mean the member that it once joined
        // through. It addresses that one by 0 or, in sigver 19, by 1; joiners may send any id (measured).
        Recipient::JoinerOrMember(id)
            if sender.place.is_some() && id.0 > 1 && sender.joined_via != Some(id) =>
        {
            return Err(Reason::UnknownRecipient);
        }
        Recipient::JoinerOrMember(_) | Recipient::Member => {}
    }
    sender.joined_via.ok_or(Reason::NotJoined)
}
