//! netflux 0.10.3. Both ends of a channel send the text `ok` before anything else. No member is
//! announced to a joiner, which connects to the members that its entry lists; the members offer.

use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};

use super::entry::Admission;
use super::json_era::{self, JsonEraFrame, SERVICE, USER, json_frame};
use super::requests::ChannelRequest;
use super::{ChannelFrame, DescriptionKind, GroupProtocol, MeshChannel, MeshPeer, Neighbor, Progress};
use crate::protocol::mesh::user_message::{ChunkedMessage, MessageChunk};

/// Messages of netflux 0.10.3.
pub(super) struct Netflux0Protocol;

const LEAVE: u8 = 3;
const JOIN_INIT: u8 = 4;
const JOIN_NEW_MEMBER: u8 = 5;
const JOIN_FINISH: u8 = 7;
const JOINED: u8 = 8;
const INIT_OK: u8 = 10;
const PING: u8 = 11;
const PONG: u8 = 12;

const OK: Bytes = Bytes::from_static(b"ok");
const MESH: &str = "FullyConnectedService";
const BUILDER: &str = "ChannelBuilderService";
const WEB_RTC: &str = "WebRTCService";

fn service(sender: u32, recipient: u32, name: &str, data: Value) -> Bytes {
    json_frame(SERVICE, sender, recipient, &json!({"serviceName": name, "data": data}))
}

impl Netflux0Protocol {
    /// Purpose of the channel, from the joiner to a member. Sent over the entry's channel, it makes the
    /// joiner known to a client that was no member yet when the entry announced the joiner.
    fn present(peer: &mut MeshPeer, channel: MeshChannel, member: u32) {
        let intermediary = peer.entry.map_or(peer.introducer, |entry| entry.member);
        let data = json!({"code": 3, "jpId": peer.id, "intermediaryId": intermediary, "toBeAdded": true});
        let frame = service(peer.id, member, MESH, data);
        peer.push_frame(channel, frame);
    }

    fn handshake_done(peer: &mut MeshPeer, channel: MeshChannel) -> Option<()> {
        peer.push_frame(channel, json_frame(INIT_OK, peer.id, 0, &json!({})));
        let known = *peer.channel(channel)?;
        match (known.via, known.member) {
            (None, None) if known.admitted_as.is_some() => Self::welcome(peer, channel)?,
            (Some(_), Some(member)) if matches!(peer.progress, Progress::Joining { .. }) => {
                Self::present(peer, channel, member);
                peer.connected_or_given_up(member);
            }
            (Some(_), Some(member)) if peer.was_introduced_to(member) => {
                Self::present(peer, channel, member);
                if peer.is_announced {
                    peer.push_frame(channel, json_frame(JOINED, peer.id, 0, &json!({})));
                }
                peer.link(channel);
                peer.connected_or_given_up(member);
            }
            _ => {}
        }
        Some(())
    }

    fn welcome(peer: &mut MeshPeer, channel: MeshChannel) -> Option<()> {
        let Admission { id, members, joining } = peer.admit(channel)?;
        // Clients that are still joining may be members before the newcomer asks them for a channel.
        let announcement = json_frame(JOIN_NEW_MEMBER, peer.id, 0, &json!({"newId": id}));
        let linked: Vec<MeshChannel> = peer.members().map(|(_, channel)| channel).collect();
        for known in linked.into_iter().chain(joining.iter().map(|(_, channel)| *channel)) {
            peer.push_frame(known, announcement.clone());
        }
        let init = json!({"manager": MESH, "wcId": peer.network});
        peer.push_frame(channel, json_frame(JOIN_INIT, peer.id, id, &init));
        let ids: Vec<u32> = std::iter::once(peer.id).chain(members).collect();
        let joining: Vec<Value> =
            joining.iter().map(|(id, _)| json!({"jpId": id, "intermediaryId": peer.id})).collect();
        let data = json!({"code": 1, "jpId": id, "sender": peer.id, "peerIds": ids, "joiningPeers": joining});
        peer.push_frame(channel, service(peer.id, id, MESH, data));
        Some(())
    }

    fn mesh(peer: &mut MeshPeer, via: MeshChannel, data: &Value, now: Instant) -> Option<()> {
        match json_era::number(data, "/code")? {
            1 => {
                let entry = peer.entry.filter(|entry| entry.channel == via)?;
                Self::present(peer, via, entry.member);
                let joining = json_era::ids(data, "/joiningPeers", "/jpId");
                let members = json_era::ids(data, "/peerIds", "");
                for member in peer.await_members(&[members, joining.clone()].concat()) {
                    if joining.contains(&member) {
                        Self::present(peer, via, member);
                    }
                    peer.request(&Neighbor { member, channel: via, owner: peer.id }, now);
                }
                peer.complete_if_connected();
            }
            2 => peer.push_frame(via, json_frame(JOIN_FINISH, peer.id, 0, &json!({}))),
            _ => {}
        }
        Some(())
    }

    fn service(peer: &mut MeshPeer, via: MeshChannel, frame: &JsonEraFrame, now: Instant) -> Option<()> {
        let json = frame.json()?;
        let data = json.pointer("/data")?;
        match json_era::text(&json, "/serviceName")? {
            MESH => Self::mesh(peer, via, data, now)?,
            BUILDER => peer.offer_to(json_era::id(data, "/sender")?, via, now),
            WEB_RTC => {
                let sender = json_era::id(data, "/sender")?;
                let sdp = |pointer| json_era::text(data, pointer).map(str::to_owned);
                peer.take_description(sender, via, sdp("/offer/sdp"), sdp("/answer/sdp"), now);
            }
            _ => {}
        }
        Some(())
    }
}

impl GroupProtocol for Netflux0Protocol {
    fn label(&self, _peer: &MeshPeer, _by_signaling: bool) -> String {
        "null".to_owned()
    }

    fn opened(&self, peer: &mut MeshPeer, channel: MeshChannel) {
        peer.actions.push(super::PeerAction::Send {
            channel,
            frame: ChannelFrame::Text(OK),
            is_urgent: false,
        });
    }

    fn received(
        &self,
        peer: &mut MeshPeer,
        via: MeshChannel,
        frame: ChannelFrame,
        now: Instant,
    ) -> Option<()> {
        let bytes = match frame {
            ChannelFrame::Text(text) if text == OK => return Self::handshake_done(peer, via),
            ChannelFrame::Text(_) => return None,
            ChannelFrame::Binary(bytes) => bytes,
        };
        let frame = JsonEraFrame::read(&bytes)?;
        match frame.code {
            USER => peer.report(via, MessageChunk::decode(peer.group, &frame.rest, false)?),
            SERVICE if frame.recipient != peer.id => {
                let forwarded = JsonEraFrame { sender: peer.id, ..frame };
                let (recipient, rest) = (forwarded.recipient, forwarded.json()?);
                peer.forward(via, recipient, json_frame(SERVICE, peer.id, recipient, &rest));
            }
            SERVICE => Self::service(peer, via, &frame, now)?,
            JOIN_INIT => {
                peer.enter(via, frame.sender, now)?;
                peer.id = frame.recipient;
                peer.network = json_era::id(&frame.json()?, "/wcId")?;
            }
            LEAVE => {
                let member = peer.channel(via)?.member;
                peer.close(via);
                peer.actions.extend(member.map(|member| super::PeerAction::Departed { member }));
            }
            JOIN_NEW_MEMBER => peer.expect_joiner(json_era::id(&frame.json()?, "/newId")?, now),
            JOIN_FINISH => {
                peer.entry.filter(|entry| entry.channel == via)?;
                self.announce_joined(peer);
            }
            JOINED => peer.link(via),
            PING => peer.push_frame(via, json_frame(PONG, peer.id, frame.sender, &json!({}))),
            _ => {}
        }
        Some(())
    }

    fn describe(&self, peer: &mut MeshPeer, via: MeshChannel, member: u32, kind: DescriptionKind, sdp: &str) {
        let data = match kind {
            DescriptionKind::Offer => json!({"sender": peer.id, "offer": {"type": "offer", "sdp": sdp}}),
            DescriptionKind::Answer => json!({"sender": peer.id, "answer": {"type": "answer", "sdp": sdp}}),
        };
        peer.push_frame(via, service(peer.id, member, WEB_RTC, data));
    }

    fn completed(&self, peer: &mut MeshPeer) {
        match peer.entry {
            // The entry answers that the join is finished.
            Some(entry) => {
                let data = json!({"code": 2, "id": peer.id, "failed": []});
                peer.push_frame(entry.channel, service(peer.id, entry.member, MESH, data));
            }
            None if peer.introducer != 0 || peer.channels.is_empty() => self.announce_joined(peer),
            None => {}
        }
    }

    fn user_frame(&self, peer: &MeshPeer, recipient: u32, message: &ChunkedMessage) -> Bytes {
        json_era::user_frame(peer.id, recipient, message)
    }

    fn announce_joiner(&self, peer: &mut MeshPeer, neighbor: &Neighbor) {
        let announcement = json_frame(JOIN_NEW_MEMBER, neighbor.owner, 0, &json!({"newId": peer.id}));
        peer.push_frame(neighbor.channel, announcement);
    }

    /// The member reads the sender in the data, since each peer that forwards a frame puts itself in the
    /// header.
    fn request_channel(&self, peer: &mut MeshPeer, request: &ChannelRequest) {
        let data = json!({"connectors": [WEB_RTC], "sender": peer.id, "oneMsg": true});
        peer.push_frame(request.via, service(request.owner, request.member, BUILDER, data));
    }

    fn announce(&self, peer: &mut MeshPeer) {
        for (channel, _) in peer.open_channels() {
            peer.push_frame(channel, json_frame(JOINED, peer.id, 0, &json!({})));
        }
    }

    fn leave(&self, peer: &mut MeshPeer) {
        for (channel, _) in peer.open_channels() {
            peer.push_frame(channel, json_frame(LEAVE, peer.id, 0, &json!({})));
        }
    }
}

impl Netflux0Protocol {
    fn announce_joined(&self, peer: &mut MeshPeer) {
        if peer.is_announced {
            self.announce(peer);
        }
        peer.become_member();
    }
}
