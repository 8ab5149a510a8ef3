//! netflux 2.1 and 3.0. Two peers greet each other through a member; then the one with the larger id asks,
//! and the other offers. Heartbeats go over every channel.

use std::time::Instant;

use bytes::Bytes;

use super::protobuf_era::{ServiceMessage, service_frame, user_frame};
use super::{ChannelFrame, DescriptionKind, GroupProtocol, MAX_LISTED, MeshChannel, MeshPeer};
use crate::protocol::mesh::protobuf::{Fields, ReadFields};
use crate::protocol::mesh::user_message::ChunkedMessage;

/// Messages of netflux 2.1 and 3.0.
pub(super) struct Netflux3Protocol;

const MESH: u32 = 3;
const BUILDER: u32 = 100;
const WEB_CHANNEL: u32 = 200;
const WEB_RTC: u32 = 300;

impl Netflux3Protocol {
    /// Reports to a peer through which members it can answer, and asks for a sign of life.
    fn greet(peer: &mut MeshPeer, via: MeshChannel, stranger: u32) {
        let neighbors: Vec<u32> = match peer.entry {
            Some(entry) if !peer.is_member() => vec![entry.member],
            _ => peer.members().map(|(member, _)| member).collect(),
        };
        let adjacent = Fields::new().message(3, Fields::new().packed(1, &neighbors));
        peer.push_frame(via, service_frame(peer.id, stranger, MESH, adjacent));
        peer.push_frame(via, service_frame(peer.id, stranger, BUILDER, Fields::new().number(4, 1)));
        if !peer.listed.contains(&stranger) && peer.listed.len() < MAX_LISTED {
            peer.listed.push(stranger);
        }
    }

    fn mesh(peer: &mut MeshPeer, via: MeshChannel, sender: u32, service: &ReadFields, now: Instant) {
        if service.has(2) {
            let siblings = peer.siblings.iter().filter(|(_, is_member)| **is_member).map(|(id, _)| *id);
            let others = peer.members().map(|(member, _)| member).chain(siblings);
            let ids: Vec<u32> = std::iter::once(peer.id).chain(others).collect();
            let response = Fields::new().message(1, Fields::new().packed(1, &ids));
            peer.push_frame(via, service_frame(peer.id, sender, MESH, response));
        }
        if service.has(3) && peer.channel_to(sender).is_none() {
            peer.add_distant(sender, now);
            if !peer.listed.contains(&sender) {
                Self::greet(peer, via, sender);
            }
        }
    }

    fn builder(peer: &mut MeshPeer, via: MeshChannel, sender: u32, service: &ReadFields, now: Instant) {
        let is_connected = peer.channel_to(sender).is_some();
        if service.has(4) {
            let pong = Fields::new().number(5, 1);
            peer.push_frame(via, service_frame(peer.id, sender, BUILDER, pong));
        }
        if service.has(5) && !is_connected && sender < peer.id {
            let request = Fields::new().message(1, Fields::new().bytes(1, b"").number(2, 1));
            peer.push_frame(via, service_frame(peer.id, sender, BUILDER, request));
        }
        if service.has(1) {
            peer.offer_to(sender, via, now);
        }
    }

    fn initialize(
        peer: &mut MeshPeer,
        via: MeshChannel,
        sender: u32,
        init: &ReadFields,
        now: Instant,
    ) -> Option<()> {
        peer.enter(via, sender, now)?;
        peer.network = init.number(2);
        peer.push_frame(via, service_frame(peer.id, sender, WEB_CHANNEL, Fields::new().number(2, 1)));
        for member in peer.await_members(&init.numbers(4, MAX_LISTED)) {
            Self::greet(peer, via, member);
        }
        peer.complete_if_connected();
        Some(())
    }
}

impl GroupProtocol for Netflux3Protocol {
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
            WEB_CHANNEL => Self::initialize(peer, via, sender, &service.message(1)?, now)?,
            MESH => Self::mesh(peer, via, sender, &service, now),
            BUILDER => Self::builder(peer, via, sender, &service, now),
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
        peer.push_frame(via, service_frame(peer.id, member, WEB_RTC, head.number(6, 1)));
    }

    fn completed(&self, peer: &mut MeshPeer) {
        if peer.entry.is_some() {
            peer.become_member();
        }
    }

    fn heartbeat(&self, peer: &MeshPeer, member: u32) -> Option<Bytes> {
        Some(service_frame(peer.id, member, MESH, Fields::new().number(5, 1)))
    }

    fn user_frame(&self, peer: &MeshPeer, recipient: u32, message: &ChunkedMessage) -> Bytes {
        user_frame(peer.id, recipient, message)
    }
}
