//! netflux 1.1.0-beta.7 to 2.0. The members offer; the joiner reports to the entry which members
//! are connected.

use std::time::Instant;

use bytes::Bytes;

use super::protobuf_era::{ServiceMessage, service_frame, user_frame};
use super::{ChannelFrame, DescriptionKind, GroupProtocol, MAX_LISTED, MeshChannel, MeshPeer, Progress};
use crate::protocol::mesh::protobuf::{Fields, ReadFields};
use crate::protocol::mesh::user_message::ChunkedMessage;

/// Messages of netflux 1.1.0-beta.7 to 2.0.
pub(super) struct Netflux2Protocol;

const WEB_RTC: u32 = 0;
const BUILDER: u32 = 2;
const MESH: u32 = 3;
const WEB_CHANNEL: u32 = 100;

impl Netflux2Protocol {
    fn web_channel(
        peer: &mut MeshPeer,
        via: MeshChannel,
        sender: u32,
        service: &ReadFields,
        now: Instant,
    ) -> Option<()> {
        if let Some(init) = service.message(1) {
            peer.enter(via, sender, now)?;
            peer.network = init.number(2);
            peer.id = init.number(3);
        }
        if service.has(2) {
            let pong = Fields::new().number(3, 1);
            peer.push_frame(via, service_frame(peer.id, sender, WEB_CHANNEL, pong));
        }
        Some(())
    }

    fn mesh(&self, peer: &mut MeshPeer, via: MeshChannel, service: &ReadFields, now: Instant) -> Option<()> {
        if service.has(3) {
            peer.expect_joiner(service.number(3), now);
        }
        peer.entry.filter(|entry| entry.channel == via)?;
        if let Some(list) = service.message(1) {
            for member in peer.await_members(&list.numbers(1, MAX_LISTED)) {
                let request = Fields::new().message(1, Fields::new().bytes(1, b"").number(2, 1));
                peer.push_frame(via, service_frame(peer.id, member, BUILDER, request));
            }
            peer.complete_if_connected();
        }
        if service.has(4) {
            peer.become_member();
        }
        Some(())
    }
}

impl GroupProtocol for Netflux2Protocol {
    fn label(&self, peer: &MeshPeer, _by_signaling: bool) -> String {
        peer.id.to_string()
    }

    fn received(
        &self,
        peer: &mut MeshPeer,
        via: MeshChannel,
        frame: ChannelFrame,
        now: Instant,
    ) -> Option<()> {
        let ServiceMessage { sender, number, service } = ServiceMessage::receive(peer, via, frame, now)?;
        match number {
            WEB_CHANNEL => Self::web_channel(peer, via, sender, &service, now)?,
            MESH => self.mesh(peer, via, &service, now)?,
            BUILDER if service.has(1) => peer.offer_to(sender, via, now),
            WEB_RTC => peer.take_description(sender, via, service.text(2), service.text(3), now),
            _ => {}
        }
        Some(())
    }

    fn describe(&self, peer: &mut MeshPeer, via: MeshChannel, member: u32, kind: DescriptionKind, sdp: &str) {
        let (head, field) = match kind {
            DescriptionKind::Offer => (Fields::new().number(1, 1), 2),
            DescriptionKind::Answer => (Fields::new(), 3),
        };
        let description = head.clone().bytes(field, sdp.as_bytes());
        peer.push_frame(via, service_frame(peer.id, member, WEB_RTC, description));
        // An empty candidate is the last. The candidates are in the description.
        let end = head.message(4, Fields::new().bytes(1, b""));
        peer.push_frame(via, service_frame(peer.id, member, WEB_RTC, end));
    }

    /// The entry asks again for members that are missing, so all that were listed are reported.
    fn completed(&self, peer: &mut MeshPeer) {
        let Some(entry) = peer.entry.filter(|_| matches!(peer.progress, Progress::Joining { .. })) else {
            return;
        };
        if peer.listed.is_empty() {
            return;
        }
        let connected: Vec<u32> = std::iter::once(entry.member).chain(peer.listed.iter().copied()).collect();
        let report = Fields::new().message(2, Fields::new().packed(1, &connected));
        peer.push_frame(entry.channel, service_frame(peer.id, entry.member, MESH, report));
    }

    fn user_frame(&self, peer: &MeshPeer, recipient: u32, message: &ChunkedMessage) -> Bytes {
        user_frame(peer.id, recipient, message)
    }
}
