//! Peers that end while they join. A client of netflux 1.0 waits for every joiner that it knows, and has
//! later ones wait as well: the bytes of such clients are written by hand.

use std::time::{Duration, Instant};

use crate::protocol::mesh::group::MeshGroup;
use crate::protocol::mesh::peer::{ChannelFrame, MeshChannel, MeshPeer, Neighbor, PeerAction};

const ENTRY: u32 = 500_000;
const OTHER: u32 = 500_001;
const OWN: u32 = 600_000;

fn frame(code: u8, sender: u32, json: &str) -> Vec<u8> {
    [&[code][..], &sender.to_be_bytes(), &OWN.to_be_bytes(), json.as_bytes()].concat()
}

struct Joiner {
    peer: MeshPeer,
    now: Instant,
}

impl Joiner {
    fn new() -> Self {
        Joiner { peer: MeshPeer::new(MeshGroup::Netflux1, 0, OWN), now: Instant::now() }
    }

    /// Joins by signaling. Returns the channel to the entry, which is open.
    fn way_in(&mut self) -> MeshChannel {
        let channel = self.peer.join(self.now).unwrap();
        self.peer.answered(channel, "answer".into());
        self.peer.opened(channel, self.now);
        self.peer.take_actions();
        channel
    }

    /// The entry gives it an id.
    fn present(&mut self, way_in: MeshChannel) {
        let initialization = frame(3, ENTRY, r#"{"manager":3,"wcId":7}"#);
        self.peer.received(way_in, ChannelFrame::Binary(initialization.into()), self.now);
    }

    /// The entry has it connect to the other member.
    fn connect(&mut self, way_in: MeshChannel) {
        let connect = format!(r#"{{"serviceId":3,"data":{{"code":2,"peers":[{OTHER}]}}}}"#);
        self.peer.received(way_in, ChannelFrame::Binary(frame(2, ENTRY, &connect).into()), self.now);
        self.peer.take_actions();
    }

    /// The other member offers a channel, which opens.
    fn open_other(&mut self, via: MeshChannel) -> MeshChannel {
        let offer = frame(2, OTHER, r#"{"serviceId":0,"data":{"offer":{"type":"offer","sdp":"offer"}}}"#);
        self.peer.forwarded(via, offer.into(), self.now);
        let offered = self.peer.take_actions().into_iter().find_map(|action| match action {
            PeerAction::Answer { channel, .. } => Some(channel),
            _ => None,
        });
        let channel = offered.unwrap();
        self.peer.described(channel, "answer");
        self.peer.opened(channel, self.now);
        self.peer.take_actions();
        channel
    }

    /// Returns the channels over which it announces that it has joined, and those that it closes after that.
    fn ended(&mut self) -> (Vec<MeshChannel>, Vec<MeshChannel>) {
        let (mut announced, mut closed) = (Vec::new(), Vec::new());
        for action in self.peer.take_actions() {
            match action {
                PeerAction::Send { channel, frame: ChannelFrame::Binary(bytes), .. } => {
                    assert_eq!((bytes[0], &bytes[1..5]), (2, &OWN.to_be_bytes()[..]));
                    let json: serde_json::Value = serde_json::from_slice(&bytes[9..]).unwrap();
                    assert_eq!(json, serde_json::json!({"serviceId": 3, "data": {"code": 3}}));
                    assert!(!closed.contains(&channel));
                    announced.push(channel);
                }
                PeerAction::Close { channel } => closed.push(channel),
                PeerAction::Failed => {}
                action => panic!("{action:?}"),
            }
        }
        (announced, closed)
    }
}

#[test]
fn peer_that_leaves_while_it_joins_finishes_the_join_first() {
    let mut joiner = Joiner::new();
    let way_in = joiner.way_in();
    joiner.present(way_in);
    joiner.connect(way_in);
    let other = joiner.open_other(way_in);
    joiner.peer.leave();
    assert_eq!(joiner.ended(), (vec![way_in, other], vec![way_in, other]));
}

#[test]
fn join_that_is_never_completed_is_finished_and_fails() {
    let mut joiner = Joiner::new();
    let way_in = joiner.way_in();
    joiner.present(way_in);
    assert!(joiner.peer.deadline().unwrap() > joiner.now + Duration::from_secs(10));
    joiner.now = joiner.peer.deadline().unwrap();
    joiner.peer.tick(joiner.now);
    assert_eq!(joiner.ended(), (vec![way_in], vec![way_in]));
}

#[test]
fn peer_whose_entry_is_lost_finishes_its_join_for_the_others() {
    let mut joiner = Joiner::new();
    let way_in = joiner.way_in();
    joiner.present(way_in);
    joiner.connect(way_in);
    let other = joiner.open_other(way_in);
    joiner.peer.closed(way_in);
    assert_eq!(joiner.ended(), (vec![other], vec![other]));
}

/// No client can name it.
#[test]
fn peer_without_an_id_has_no_join_to_finish() {
    let mut joiner = Joiner::new();
    let way_in = joiner.way_in();
    joiner.peer.leave();
    joiner.present(way_in);
    assert_eq!(joiner.ended(), (vec![], vec![way_in]));
    let mut joiner = Joiner::new();
    let way_in = joiner.way_in();
    joiner.now = joiner.peer.deadline().unwrap();
    joiner.peer.tick(joiner.now);
    joiner.present(way_in);
    assert_eq!(joiner.ended(), (vec![], vec![way_in]));
}

/// A placeholder is no member, and the clients that know it let no other in.
#[test]
fn introduced_peer_finishes_its_join_unless_it_is_a_placeholder() {
    for is_announced in [true, false] {
        let mut joiner = Joiner::new();
        let line = MeshChannel { peer: 9, number: 0 };
        let neighbors = [OTHER, ENTRY].map(|member| Neighbor { member, channel: line, owner: 700_000 });
        joiner.peer.join_through(&neighbors, 7, is_announced, joiner.now);
        let other = joiner.open_other(line);
        joiner.peer.leave();
        let announced = if is_announced { vec![other] } else { vec![] };
        assert_eq!(joiner.ended(), (announced, vec![other]));
    }
}
