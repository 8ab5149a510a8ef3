//! Parts of the crate that only fuzz targets see (`compat-tests/fuzz`). Compiled with `--cfg fuzzing` alone.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "for tests")]

// The bridge itself is in builds with its feature, and a large library with it.
#[path = "bridge/stun.rs"]
mod stun;

use std::time::Instant;

use crate::protocol::frame::{Close, Message, Outgoing};
use crate::protocol::model::{Command, Event, PeerId, RoomRole};
use crate::protocol::room::Room;
use crate::protocol::signaller::PipeLimits;
use crate::protocol::signaller::handle::Endpoint;
use crate::protocol::signaller::pipe::{Disconnect, Pipe, PipeAction, PipeSide};
use crate::server::http::fast_upgrade::hyper_check;
use crate::server::transport::ws::library_check;

pub use crate::server::hub::{Hub, Membership, Outbox};
pub use crate::tools::protobuf;
pub use crate::tools::replay::{compare, script, transcript};

/// A room with its source of randomness.
#[derive(Debug)]
pub struct FuzzedRoom {
    room: Room<PeerId>,
    rng: fastrand::Rng,
}

impl FuzzedRoom {
    pub fn new(seed: u64) -> Self {
        FuzzedRoom { room: Room::default(), rng: fastrand::Rng::with_seed(seed) }
    }

    pub fn apply(&mut self, peer: PeerId, command: Command) -> (RoomRole, Vec<(PeerId, Event)>) {
        let mut events = Vec::new();
        let mut deliver = |to: &PeerId, event| events.push((*to, event));
        let role = self.room.apply(peer, &peer, command, &mut self.rng, &mut deliver);
        (role, events)
    }

    pub fn leave(&mut self, peer: PeerId, normal_closure: bool) -> Vec<(PeerId, Event)> {
        let mut events = Vec::new();
        self.room.leave(peer, normal_closure, &mut |to: &PeerId, event| events.push((*to, event)));
        events
    }

    pub fn drop_membership(&mut self, peer: PeerId) {
        self.room.drop_membership(peer);
    }

    /// Returns the peers in the room, sorted.
    pub fn peers(&self) -> Vec<PeerId> {
        let mut peers: Vec<_> = self.room.peers().collect();
        peers.sort_by_key(|peer| peer.0);
        peers
    }

    /// Returns the joiner and the member of each link, sorted.
    pub fn links(&self) -> Vec<(PeerId, PeerId)> {
        let mut links: Vec<_> = self.room.links().collect();
        links.sort_by_key(|(joiner, member)| (joiner.0, member.0));
        links
    }
}

/// A pipe. True stands for the listener, and false for the connector.
#[derive(Debug)]
pub struct FuzzedPipe(Pipe);

impl FuzzedPipe {
    pub fn listen(limits: &PipeLimits, now: Instant) -> Self {
        FuzzedPipe(Pipe::listen(limits, now))
    }

    pub fn on_connect(&mut self, now: Instant) -> Vec<(bool, Outgoing)> {
        self.act(|pipe, actions| pipe.on_connect(now, actions))
    }

    pub fn on_message(&mut self, from_listener: bool, message: Message) -> Vec<(bool, Outgoing)> {
        self.act(|pipe, actions| pipe.on_message(side(from_listener), message, actions))
    }

    pub fn on_timeout(&mut self, now: Instant) -> Vec<(bool, Outgoing)> {
        self.act(|pipe, actions| pipe.handle_timeout(now, actions))
    }

    pub fn on_shutdown(&mut self) -> Vec<(bool, Outgoing)> {
        self.act(Pipe::on_shutdown)
    }

    pub fn on_disconnect(&mut self, listener: bool, kind: u8) -> Vec<(bool, Outgoing)> {
        let disconnect = match kind >> 5 & 3 {
            0 => Disconnect::Closed(Some(1000)),
            1 => Disconnect::Lost,
            2 => Disconnect::MessageTooBig,
            _ => Disconnect::ProtocolError(Close::new(1002, "")),
        };
        self.act(|pipe, actions| pipe.on_disconnect(side(listener), disconnect, actions))
    }

    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn act(&mut self, act: impl FnOnce(&mut Pipe, &mut Vec<PipeAction>)) -> Vec<(bool, Outgoing)> {
        let mut actions = Vec::new();
        act(&mut self.0, &mut actions);
        actions.into_iter().map(|(side, outgoing)| (side == PipeSide::Listener, outgoing)).collect()
    }
}

fn side(listener: bool) -> PipeSide {
    if listener { PipeSide::Listener } else { PipeSide::Connector }
}

/// Returns the handle in a path of signaller.
pub fn signaller_handle(path: &str) -> Option<String> {
    Endpoint::parse(path).map(|endpoint| endpoint.handle().as_str().to_owned())
}

/// Checks that an upgrade which is granted without hyper is granted identically by hyper. Returns true if it
/// is granted without hyper.
pub fn check_upgrade(bytes: &[u8]) -> bool {
    hyper_check::check_invariant(bytes)
}

/// Checks that the bytes of a WebSocket client have one reaction, whole, in pieces of this length, and in the
/// library tungstenite.
pub fn check_frames(bytes: &[u8], piece: usize) {
    library_check::check_frames(bytes, piece);
}

/// Returns the receiver's username fragment in a STUN binding request.
pub fn stun_username_fragment(packet: &[u8]) -> Option<&str> {
    stun::local_username_fragment(packet)
}
