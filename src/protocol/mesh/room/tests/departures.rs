//! Members that leave while their stand-ins join a client of netflux 1.0, and joins that fail. The bytes of
//! the client are written by hand.

use super::*;

const CLIENT: u32 = 500_000;
const STAND_IN: u32 = 600_001;
/// Alias of the client.
const TARGET: u32 = 99;

fn frame(code: u8, recipient: u32, json: &str) -> ChannelFrame {
    let mut bytes = vec![code];
    bytes.extend_from_slice(&CLIENT.to_be_bytes());
    bytes.extend_from_slice(&recipient.to_be_bytes());
    bytes.extend_from_slice(json.as_bytes());
    ChannelFrame::Binary(bytes.into())
}

fn is_peer_joined(frame: &ChannelFrame) -> bool {
    let ChannelFrame::Binary(bytes) = frame else { return false };
    let sender = bytes.get(1..5).map(|id| u32::from_be_bytes(id.try_into().unwrap()));
    let json = std::str::from_utf8(&bytes[9..]).unwrap();
    sender == Some(STAND_IN) && json.contains(r#""serviceId":3"#) && json.contains(r#""code":3"#)
}

impl Harness {
    /// A member arrives, and the client answers the call of its stand-in. Returns the member and the channel.
    fn joining_stand_in(&mut self) -> (usize, MeshChannel) {
        let member = self.opener(Netflux0);
        self.room.arrived(Netflux1, TARGET, self.now);
        self.run();
        let channel = self.strangers.pop().unwrap();
        self.room.answered(channel, "answer".into(), self.now);
        self.run();
        (member, channel)
    }

    /// The client lets the stand-in in.
    fn present_to(&mut self, channel: MeshChannel) {
        self.room.opened(channel, self.now);
        self.room.received(channel, frame(3, STAND_IN, r#"{"manager":3,"wcId":7}"#), self.now);
        self.run();
    }
}

#[test]
fn stand_in_of_a_member_that_left_finishes_its_join_and_leaves() {
    let mut harness = Harness::new();
    let (member, channel) = harness.joining_stand_in();
    // The channel may be open for the client already.
    harness.leave(member);
    harness.present_to(channel);
    assert_eq!((harness.unsent.len(), &harness.closed[..]), (0, &[][..]));
    let connect = r#"{"serviceId":3,"data":{"code":2,"peers":[]}}"#;
    harness.room.received(channel, frame(2, STAND_IN, connect), harness.now);
    harness.run();
    assert!(matches!(&harness.unsent[..], [(to, frame)] if *to == channel && is_peer_joined(frame)));
    assert_eq!(harness.closed, [channel]);
}

#[test]
fn stand_in_of_a_member_that_left_does_not_wait_for_the_client_for_ever() {
    let mut harness = Harness::new();
    let (member, channel) = harness.joining_stand_in();
    harness.present_to(channel);
    harness.leave(member);
    assert_eq!((harness.unsent.len(), &harness.closed[..]), (0, &[][..]));
    harness.pass(Duration::from_secs(5));
    assert!(matches!(&harness.unsent[..], [(to, frame)] if *to == channel && is_peer_joined(frame)));
    assert_eq!(harness.closed, [channel]);
}

#[test]
fn stand_in_whose_join_fails_is_awaited_by_no_client() {
    let mut harness = Harness::new();
    let (_, channel) = harness.joining_stand_in();
    harness.present_to(channel);
    harness.pass(Duration::from_secs(19));
    assert_eq!((harness.unsent.len(), &harness.closed[..]), (0, &[][..]));
    harness.pass(Duration::from_secs(2));
    assert!(matches!(&harness.unsent[..], [(to, frame)] if *to == channel && is_peer_joined(frame)));
    assert_eq!(harness.closed, [channel]);
}

#[test]
fn stand_in_that_has_no_id_yet_fails_without_a_message() {
    let mut harness = Harness::new();
    let (_, channel) = harness.joining_stand_in();
    harness.room.opened(channel, harness.now);
    harness.pass(Duration::from_secs(4));
    harness.present_to(channel);
    assert_eq!((harness.unsent.len(), &harness.closed[..1]), (0, &[channel][..]));
}
