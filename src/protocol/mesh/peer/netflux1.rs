//! netflux 0.10.8 to 1.0. The members offer; a joiner asks each member over the new channel if it is one.

use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};

use super::entry::Admission;
use super::json_era::{self, JsonEraFrame, SERVICE, USER, json_frame};
use super::requests::ChannelRequest;
use super::{ChannelFrame, DescriptionKind, GroupProtocol, MeshChannel, MeshPeer, Neighbor, Progress};
use crate::protocol::mesh::user_message::{ChunkedMessage, MessageChunk};

/// Messages of netflux 0.10.8 to 1.0.
pub(super) struct Netflux1Protocol;

const INITIALIZATION: u8 = 3;
const PING: u8 = 4;
const PONG: u8 = 5;

const WEB_RTC: u64 = 0;
const BUILDER: u64 = 2;
const MESH: u64 = 3;

const SHOULD_ADD_JOINER: u64 = 1;
const CONNECT_TO: u64 = 2;
const PEER_JOINED: u64 = 3;
const TICK: u64 = 4;
const TOCK: u64 = 5;

fn service(sender: u32, recipient: u32, service: u64, data: Value) -> Bytes {
    json_frame(SERVICE, sender, recipient, &json!({"serviceId": service, "data": data}))
}

/// Asks a member for a channel. netflux 0.10.8 needs all of these fields; netflux 1.0 reads the connectors
/// only.
fn channel_request(joiner: u32, member: u32) -> Bytes {
    let data = json!({"connectors": [0], "sender": joiner, "botUrl": "", "oneMsg": true});
    service(joiner, member, BUILDER, data)
}

impl Netflux1Protocol {
    fn welcome(peer: &mut MeshPeer, channel: MeshChannel) -> Option<()> {
        let Admission { id, members, joining } = peer.admit(channel)?;
        let init = json!({"manager": MESH, "wcId": peer.network});
        peer.push_frame(channel, json_frame(INITIALIZATION, peer.id, id, &init));
        // Clients that are still joining may be members before the newcomer asks them for a channel.
        let announcement = service(peer.id, 0, MESH, json!({"code": SHOULD_ADD_JOINER, "jpId": id}));
        let linked: Vec<MeshChannel> = peer.members().map(|(_, channel)| channel).collect();
        for known in linked.into_iter().chain(joining.iter().map(|(_, channel)| *channel)) {
            peer.push_frame(known, announcement.clone());
        }
        let joining = joining.into_iter().map(|(id, _)| id);
        let peers: Vec<u32> = members.into_iter().chain(joining).collect();
        peer.push_frame(channel, service(peer.id, id, MESH, json!({"code": CONNECT_TO, "peers": peers})));
        Some(())
    }

    fn mesh(peer: &mut MeshPeer, via: MeshChannel, sender: u32, data: &Value, now: Instant) -> Option<()> {
        match json_era::number(data, "/code")? {
            CONNECT_TO => {
                peer.entry.filter(|entry| entry.channel == via)?;
                for member in peer.await_members(&json_era::ids(data, "/peers", "")) {
                    peer.request(&Neighbor { member, channel: via, owner: peer.id }, now);
                }
                peer.complete_if_connected();
            }
            PEER_JOINED => peer.link(via),
            SHOULD_ADD_JOINER => peer.expect_joiner(json_era::id(data, "/jpId")?, now),
            TICK => {
                let is_joining = peer.progress != Progress::Member;
                let data = json!({"code": TOCK, "isJoining": is_joining});
                peer.push_frame(via, service(peer.id, sender, MESH, data));
            }
            TOCK => {
                let member = peer.channel(via)?.member?;
                if peer.was_introduced_to(member) {
                    if peer.is_announced {
                        let frame = service(peer.id, member, MESH, json!({"code": PEER_JOINED}));
                        peer.push_frame(via, frame);
                    }
                    peer.link(via);
                }
                peer.connected_or_given_up(member);
            }
            _ => {}
        }
        Some(())
    }

    fn service(peer: &mut MeshPeer, via: MeshChannel, frame: &JsonEraFrame, now: Instant) -> Option<()> {
        let json = frame.json()?;
        let data = json.pointer("/data")?;
        match json_era::number(&json, "/serviceId")? {
            MESH => Self::mesh(peer, via, frame.sender, data, now)?,
            BUILDER if data.get("connectors").is_some() => peer.offer_to(frame.sender, via, now),
            WEB_RTC => {
                let sdp = |pointer| json_era::text(data, pointer).map(str::to_owned);
                peer.take_description(frame.sender, via, sdp("/offer/sdp"), sdp("/answer/sdp"), now);
            }
            _ => {}
        }
        Some(())
    }

    /// Returns a frame for another, with the fields that netflux 0.10.8 needs in a request and netflux 1.0
    /// leaves out.
    fn completed_request(frame: &JsonEraFrame, bytes: Bytes) -> Bytes {
        match frame.json() {
            Some(json)
                if json_era::number(&json, "/serviceId") == Some(BUILDER)
                    && json.pointer("/data/connectors").is_some()
                    && json.pointer("/data/sender").is_none() =>
            {
                channel_request(frame.sender, frame.recipient)
            }
            _ => bytes,
        }
    }
}

impl GroupProtocol for Netflux1Protocol {
    fn label(&self, _peer: &MeshPeer, _by_signaling: bool) -> String {
        "null".to_owned()
    }

    fn opened(&self, peer: &mut MeshPeer, channel: MeshChannel) {
        let Some(known) = peer.channel(channel).copied() else { return };
        match (known.via, known.member) {
            (None, None) if known.admitted_as.is_some() => {
                Self::welcome(peer, channel);
            }
            (Some(_), Some(member))
                if matches!(peer.progress, Progress::Joining { .. }) || peer.was_introduced_to(member) =>
            {
                peer.push_frame(channel, service(peer.id, member, MESH, json!({"code": TICK})));
            }
            _ => {}
        }
    }

    fn received(
        &self,
        peer: &mut MeshPeer,
        via: MeshChannel,
        frame: ChannelFrame,
        now: Instant,
    ) -> Option<()> {
        let ChannelFrame::Binary(bytes) = frame else { return None };
        let frame = JsonEraFrame::read(&bytes)?;
        match frame.code {
            USER => peer.report(via, MessageChunk::decode(peer.group, &frame.rest, false)?),
            SERVICE if frame.recipient != 0 && frame.recipient != peer.id => {
                peer.forward(via, frame.recipient, Self::completed_request(&frame, bytes));
            }
            SERVICE => Self::service(peer, via, &frame, now)?,
            INITIALIZATION => {
                peer.enter(via, frame.sender, now)?;
                peer.id = frame.recipient;
                peer.network = json_era::id(&frame.json()?, "/wcId")?;
            }
            PING => peer.push_frame(via, json_frame(PONG, peer.id, 0, &json!({}))),
            _ => {}
        }
        Some(())
    }

    fn describe(&self, peer: &mut MeshPeer, via: MeshChannel, member: u32, kind: DescriptionKind, sdp: &str) {
        let data = match kind {
            DescriptionKind::Offer => json!({"offer": {"type": "offer", "sdp": sdp}}),
            DescriptionKind::Answer => json!({"answer": {"type": "answer", "sdp": sdp}}),
        };
        peer.push_frame(via, service(peer.id, member, WEB_RTC, data));
    }

    fn completed(&self, peer: &mut MeshPeer) {
        if peer.entry.is_none() && peer.introducer == 0 && !peer.channels.is_empty() {
            return;
        }
        if peer.is_announced {
            self.announce(peer);
        }
        peer.become_member();
    }

    /// A joiner whose question was lost waits for this answer for ever.
    fn prompt(&self, peer: &mut MeshPeer, channel: MeshChannel, member: u32) {
        let data = json!({"code": TOCK, "isJoining": false});
        peer.push_frame(channel, service(peer.id, member, MESH, data));
    }

    fn announce(&self, peer: &mut MeshPeer) {
        for (channel, member) in peer.open_channels() {
            let frame = service(peer.id, member.unwrap_or(0), MESH, json!({"code": PEER_JOINED}));
            peer.push_frame(channel, frame);
        }
    }

    fn user_frame(&self, peer: &MeshPeer, recipient: u32, message: &ChunkedMessage) -> Bytes {
        json_era::user_frame(peer.id, recipient, message)
    }

    fn announce_joiner(&self, peer: &mut MeshPeer, neighbor: &Neighbor) {
        let data = json!({"code": SHOULD_ADD_JOINER, "jpId": peer.id});
        peer.push_frame(neighbor.channel, service(neighbor.owner, 0, MESH, data));
    }

    fn request_channel(&self, peer: &mut MeshPeer, request: &ChannelRequest) {
        peer.push_frame(request.via, channel_request(peer.id, request.member));
    }
}
