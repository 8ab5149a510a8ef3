//! The peers of the bridge in rooms: each is there for one negotiation. It joins through a client, or takes
//! the place of a member for a joiner that found none.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::link::{BridgeLink, BridgeQueues, PeerEvent, peer_protocol};
use crate::protocol::dialect::{ReceivedSignal, SessionDescription, receive_signal};
use crate::protocol::mesh::{BridgeCall, BridgeMessage, MAX_BRIDGE_MESSAGE, MeshGroup, RoomNumber};
use crate::protocol::model::{Command, Event, LinkId, LinkMessage, Recipient, RoomKey, SenderTag};
use crate::server::clock;
use crate::server::hub::{Hub, Membership};

/// Longest time of a negotiation, after which its peer leaves.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest session description that is forwarded: the rest of the message needs less than this.
const MAX_DESCRIPTION: usize = MAX_BRIDGE_MESSAGE - 256;

/// The peers of the bridge that is connected.
#[derive(Debug)]
pub(super) struct BridgePeers {
    hub: Arc<Hub>,
    link: Arc<BridgeLink>,
    queues: Arc<BridgeQueues>,
    peers: HashMap<BridgeCall, BridgePeer>,
    /// Negotiations in the order of their deadlines, also those that are over.
    deadlines: VecDeque<(Instant, BridgeCall)>,
}

#[derive(Debug)]
struct BridgePeer {
    membership: Membership,
    group: MeshGroup,
    /// Key of the room, of a peer to which a joiner is linked.
    key: Option<RoomKey>,
    /// The joiner that is linked to the peer.
    joiner: Option<LinkId>,
    /// Each side has sent its session description.
    is_complete: bool,
    /// The bridge knows of the negotiation.
    is_known: bool,
}

/// A message that a bridge must not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unexpected message")]
pub(super) struct UnexpectedMessage;

impl BridgePeers {
    pub(super) fn new(hub: &Arc<Hub>, link: &Arc<BridgeLink>, queues: &Arc<BridgeQueues>) -> Self {
        BridgePeers {
            hub: Arc::clone(hub),
            link: Arc::clone(link),
            queues: Arc::clone(queues),
            peers: HashMap::new(),
            deadlines: VecDeque::new(),
        }
    }

    /// Returns when [`on_timeout`](Self::on_timeout) has to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(at, _)| *at)
    }

    /// Ends the negotiations whose time is over.
    pub(super) fn on_timeout(&mut self, now: Instant) {
        while let Some(&(_, call)) = self.deadlines.front().filter(|(at, _)| *at <= now) {
            self.deadlines.pop_front();
            self.end(call);
        }
    }

    /// Handles a message of the bridge.
    ///
    /// # Errors
    /// A bridge does not send it at this time.
    pub(super) fn handle(&mut self, message: BridgeMessage) -> Result<(), UnexpectedMessage> {
        match message {
            BridgeMessage::Call { call, room, group, target, offer } => {
                if call.is_from_client || self.peers.contains_key(&call) {
                    return Err(UnexpectedMessage);
                }
                self.call(call, (room, group, target), offer);
            }
            BridgeMessage::Answer { call, answer } => {
                if !call.is_from_client {
                    return Err(UnexpectedMessage);
                }
                self.answer(call, answer);
            }
            BridgeMessage::End { call } => {
                // The bridge knows that it is over.
                if let Some(peer) = self.remove(call) {
                    peer.leave();
                }
            }
            BridgeMessage::Entry { room, group, is_open } => self.link.set_entry(room, group, is_open),
            BridgeMessage::Figures(figures) => self.link.set_figures(figures),
            BridgeMessage::Hello { .. }
            | BridgeMessage::Arrived { .. }
            | BridgeMessage::Departed { .. }
            | BridgeMessage::Caller { .. } => return Err(UnexpectedMessage),
        }
        Ok(())
    }

    /// Handles the events that were queued.
    pub(super) fn handle_events(&mut self) {
        let (events, was_full) = self.queues.take_events();
        for event in events {
            match event {
                PeerEvent::Added(number, key, group, membership) => {
                    let peer = BridgePeer {
                        membership: *membership,
                        group,
                        key: Some(key),
                        joiner: None,
                        is_complete: false,
                        is_known: false,
                    };
                    self.insert(BridgeCall { is_from_client: true, number }, peer);
                }
                PeerEvent::Event(call, event) => self.on_event(call, event),
                PeerEvent::Overflow(call) => self.end(call),
            }
        }
        if was_full {
            self.peers.values().for_each(|peer| peer.membership.outbox().relieve_remote());
        }
    }

    fn insert(&mut self, call: BridgeCall, peer: BridgePeer) {
        self.peers.insert(call, peer);
        self.deadlines.push_back((clock::now() + CALL_TIMEOUT, call));
    }

    fn remove(&mut self, call: BridgeCall) -> Option<BridgePeer> {
        let peer = self.peers.remove(&call)?;
        let less = |count: usize| Some(count.saturating_sub(1));
        // Cannot fail: there is always a new value.
        let _ = self.queues.calls.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        Some(peer)
    }

    /// Ends a negotiation on both sides.
    fn end(&mut self, call: BridgeCall) {
        let Some(peer) = self.remove(call) else { return };
        if peer.is_known {
            self.link.send(&self.queues, &BridgeMessage::End { call });
        }
        if !peer.is_complete {
            self.link.counts().failed_calls.fetch_add(1, Ordering::Relaxed);
        }
        peer.leave();
    }

    fn call(&mut self, call: BridgeCall, target: (RoomNumber, MeshGroup, u32), offer: String) {
        let refused = |peers: &Self| peers.link.send(&peers.queues, &BridgeMessage::End { call });
        let (room, group, alias) = target;
        let Some((key, member)) = self.link.target(room, group, alias) else { return refused(self) };
        if !self.link.add_call(&self.queues) {
            return refused(self);
        }
        self.link.counts().calls.fetch_add(1, Ordering::Relaxed);
        let mut membership = self.hub.register(self.link.outbox(&self.queues, call));
        let is_linked = membership.join_through(&key, member);
        let mut peer =
            BridgePeer { membership, group, key: None, joiner: None, is_complete: false, is_known: true };
        if is_linked {
            peer.describe(SessionDescription::Offer(offer));
        }
        let is_refused = peer.membership.refusal().is_some();
        self.insert(call, peer);
        if !is_linked || is_refused {
            self.end(call);
        }
    }

    fn answer(&mut self, call: BridgeCall, answer: String) {
        // One that has ended.
        let Some(peer) = self.peers.get_mut(&call) else { return };
        peer.describe(SessionDescription::Answer(answer));
        peer.is_complete = true;
        if peer.membership.refusal().is_some() {
            self.end(call);
        }
    }

    fn on_event(&mut self, call: BridgeCall, event: Event) {
        let Some(peer) = self.peers.get_mut(&call) else { return };
        match event {
            Event::LinkedToJoiner { link } => peer.joiner = Some(link),
            Event::Relayed { link, message, sender, .. } => match receive_signal(message, sender, link) {
                ReceivedSignal::Description(description) => self.on_description(call, description),
                ReceivedSignal::Question(answer) => {
                    peer.membership.command(answer);
                }
                ReceivedSignal::Other => {}
            },
            Event::LinkedToMember { .. } | Event::Admitted { .. } | Event::BecameMember { .. } => {}
            Event::LinkEnded { .. } | Event::Refused(_) | Event::Undeliverable { .. } | Event::Evicted(_) => {
                self.end(call)
            }
        }
    }

    fn on_description(&mut self, call: BridgeCall, description: SessionDescription) {
        let Some(peer) = self.peers.get_mut(&call) else { return };
        let message = match description {
            SessionDescription::Offer(sdp) | SessionDescription::Answer(sdp)
                if sdp.len() > MAX_DESCRIPTION =>
            {
                return self.end(call);
            }
            SessionDescription::Answer(answer) if !call.is_from_client && !peer.is_complete => {
                peer.is_complete = true;
                BridgeMessage::Answer { call, answer }
            }
            SessionDescription::Offer(offer) if call.is_from_client && !peer.is_known => {
                let caller = peer.key.as_ref().and_then(|key| self.link.number_for_caller(key));
                let Some(room) = caller else { return self.end(call) };
                self.link.counts().callers.fetch_add(1, Ordering::Relaxed);
                peer.is_known = true;
                BridgeMessage::Caller { call, room, group: peer.group, offer }
            }
            // A second one.
            SessionDescription::Offer(_) | SessionDescription::Answer(_) => return,
        };
        self.link.send(&self.queues, &message);
    }
}

impl BridgePeer {
    fn recipient(&self) -> Option<Recipient> {
        match self.key {
            None => Some(Recipient::Member),
            Some(_) => self.joiner.map(Recipient::Joiner),
        }
    }

    fn describe(&mut self, description: SessionDescription) {
        let (message, sender) = description.into_message(peer_protocol(self.group));
        self.relay(message, sender);
    }

    fn relay(&mut self, message: LinkMessage, sender: SenderTag) {
        if let Some(to) = self.recipient() {
            self.membership.command(Command::Relay { to, message, sender });
        }
    }

    /// Leaves the room: without an error for the client, if both sides have sent their descriptions.
    fn leave(mut self) {
        if self.is_complete {
            let (_, sender) =
                SessionDescription::Offer(String::new()).into_message(peer_protocol(self.group));
            self.relay(LinkMessage::End, sender);
        }
        self.membership.leave(self.is_complete);
    }
}
