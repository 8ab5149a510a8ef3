//! netflux 4. The first frame presents the member through which a peer joins; a joiner asks the others, who
//! offer. Heartbeats go over every channel.

use std::time::Instant;

use bytes::Bytes;

use super::{ChannelFrame, DescriptionKind, GroupProtocol, MAX_LISTED, MeshChannel, MeshPeer};
use crate::protocol::mesh::protobuf::{Fields, ReadFields};
use crate::protocol::mesh::user_message::{ChunkedMessage, MessageChunk};

/// Messages of netflux 4.
pub(super) struct Netflux4Protocol;

const HEARTBEAT: u32 = 0;
const BUILDER: u32 = 74;
const USER: u32 = 743;
const WEB_RTC: u32 = 7431;

fn head(sender: u32, recipient: u32, service: u32) -> Fields {
    Fields::new().number(1, sender).number(2, recipient).number(3, service)
}

fn service_frame(sender: u32, recipient: u32, service: u32, content: Fields) -> Bytes {
    head(sender, recipient, service).message(4, content).into_bytes()
}

impl Netflux4Protocol {
    /// Reads the first frame of the member through which this peer joins.
    fn initialize(peer: &mut MeshPeer, via: MeshChannel, frame: &ReadFields, now: Instant) -> Option<()> {
        let ping = frame.message(1)?;
        let member = ping.number(3);
        peer.enter(via, member, now)?;
        peer.network = ping.number(2);
        peer.push_frame(via, Fields::new().number(2, peer.id).into_bytes());
        for stranger in peer.await_members(&ping.numbers(4, MAX_LISTED)) {
            let request = Fields::new().number(1, peer.id).packed(2, &[member]);
            peer.push_frame(
                via,
                service_frame(peer.id, stranger, BUILDER, Fields::new().message(2, request)),
            );
        }
        peer.complete_if_connected();
        Some(())
    }

    fn builder(peer: &mut MeshPeer, via: MeshChannel, sender: u32, service: &ReadFields, now: Instant) {
        if service.has(2) {
            peer.add_distant(sender, now);
            peer.push_frame(via, service_frame(peer.id, sender, BUILDER, Fields::new().number(3, 1)));
        }
        if service.number(3) == 1 {
            // This peer can do WebRTC and no WebSocket, and has tried neither.
            let own =
                Fields::new().number(3, peer.network).number(4, 1).number(5, 0).number(6, 1).number(7, 0);
            let negotiation = Fields::new().message(1, Fields::new().message(1, own));
            peer.push_frame(via, service_frame(peer.id, sender, BUILDER, negotiation));
        }
        if service.has(1) && !peer.awaited.contains(&sender) {
            peer.offer_to(sender, via, now);
        }
    }
}

impl GroupProtocol for Netflux4Protocol {
    fn label(&self, peer: &MeshPeer, by_signaling: bool) -> String {
        // The type is the receiver's role: 1 lets a joiner in, 0 connects inside the mesh.
        format!("{{\"id\":{},\"type\":{}}}", peer.id, u8::from(by_signaling))
    }

    fn received(
        &self,
        peer: &mut MeshPeer,
        via: MeshChannel,
        frame: ChannelFrame,
        now: Instant,
    ) -> Option<()> {
        let ChannelFrame::Binary(bytes) = frame else { return None };
        let fields = ReadFields::read(&bytes)?;
        if peer.channel(via).is_some_and(|known| known.member.is_none()) {
            return Self::initialize(peer, via, &fields, now);
        }
        let (sender, recipient) = (fields.number(1), fields.number(2));
        if recipient != 0 && recipient != peer.id {
            peer.forward(via, recipient, bytes);
            return None;
        }
        let content = || ReadFields::read(&fields.bytes(4)?);
        match fields.number(3) {
            USER => {
                let chunk = MessageChunk::decode(peer.group, &fields.bytes(4)?, recipient == 0)?;
                peer.report_from(sender, via, chunk, now);
            }
            BUILDER => Self::builder(peer, via, sender, &content()?, now),
            WEB_RTC => {
                let content = content()?;
                peer.take_description(sender, via, content.text(1), content.text(2), now);
            }
            _ => {}
        }
        Some(())
    }

    fn describe(&self, peer: &mut MeshPeer, via: MeshChannel, member: u32, kind: DescriptionKind, sdp: &str) {
        let field = match kind {
            DescriptionKind::Offer => 1,
            DescriptionKind::Answer => 2,
        };
        let description = Fields::new().bytes(field, sdp.as_bytes());
        peer.push_frame(via, service_frame(peer.id, member, WEB_RTC, description));
        // An empty message is the last candidate. The candidates are in the description.
        peer.push_frame(via, service_frame(peer.id, member, WEB_RTC, Fields::new()));
    }

    fn completed(&self, peer: &mut MeshPeer) {
        if peer.entry.is_some() {
            peer.become_member();
        }
    }

    fn heartbeat(&self, peer: &MeshPeer, member: u32) -> Option<Bytes> {
        Some(head(peer.id, member, HEARTBEAT).into_bytes())
    }

    fn user_frame(&self, peer: &MeshPeer, recipient: u32, message: &ChunkedMessage) -> Bytes {
        head(peer.id, recipient, USER).bytes(4, message).into_bytes()
    }
}
