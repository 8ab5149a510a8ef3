//! Messages of a client of netflux 1.1 that counts a stand-in as a member, while what presents the client was
//! lost. The bytes of the client are written by hand.

use super::*;
use crate::protocol::mesh::protobuf::Fields;
use MeshGroup::Netflux2;

const CLIENT: u32 = 500_000;
/// Alias of the client.
const TARGET: u32 = 99;

fn frame(recipient: u32, is_service: u32, content: Fields) -> ChannelFrame {
    let frame = Fields::new().number(1, CLIENT).number(2, recipient).number(3, is_service);
    ChannelFrame::Binary(frame.message(4, content).into_bytes())
}

fn user(recipient: u32, text: &[u8]) -> ChannelFrame {
    let length = u32::try_from(text.len()).unwrap();
    frame(recipient, 0, Fields::new().number(1, length).number(2, 0).bytes(3, text))
}

fn service(recipient: u32, service: u32, message: Fields) -> ChannelFrame {
    frame(recipient, 1, Fields::new().number(1, service).message(2, message))
}

impl Harness {
    fn stranger_arrives(&mut self) {
        self.room.arrived(Netflux2, TARGET, self.now);
        self.run();
    }

    /// The client answers all calls. Returns the channels.
    fn answer(&mut self) -> Vec<MeshChannel> {
        let calls = std::mem::take(&mut self.strangers);
        for channel in &calls {
            self.room.answered(*channel, "answer".into(), self.now);
            self.room.opened(*channel, self.now);
        }
        self.run();
        calls
    }

    fn stranger_sends(&mut self, channel: MeshChannel, frame: ChannelFrame) {
        self.room.received(channel, frame, self.now);
        self.run();
    }

    /// The client presents itself, and gives the stand-in its id.
    fn present(&mut self, channel: MeshChannel, id: u32) {
        let init = Fields::new().number(1, 3).number(2, 7).number(3, id);
        self.stranger_sends(channel, service(1, 100, Fields::new().message(1, init)));
        self.stranger_sends(channel, service(id, 3, Fields::new().number(4, 1)));
    }
}

#[test]
fn messages_to_a_stand_in_that_could_not_join_come_to_the_next() {
    let mut harness = Harness::new();
    let receivers = [harness.opener(Netflux0), harness.opener(Netflux1)];
    harness.stranger_arrives();
    let channels = harness.answer();
    assert_eq!(channels.len(), 2);
    for (channel, id) in channels.into_iter().zip(600_001..) {
        harness.stranger_sends(channel, user(0, b"all"));
        harness.stranger_sends(channel, user(id, b"one"));
    }
    harness.pass(Duration::from_secs(6));
    let channels = harness.answer();
    assert_eq!(channels.len(), 2);
    for (channel, id) in channels.into_iter().zip(700_001..) {
        harness.present(channel, id);
        harness.stranger_sends(channel, user(0, b"later"));
    }
    for receiver in receivers {
        let expected = [(true, true, &b"all"[..]), (true, false, b"one"), (true, true, b"later")];
        assert_eq!(
            harness.inbox(receiver),
            expected.map(|(is_text, all, data)| (is_text, all, data.to_vec()))
        );
    }
    assert_eq!((harness.room.waiting_bytes(), harness.room.counts().messages), (0, 6));
}

#[test]
fn messages_to_a_stand_in_of_nobody_yet_come_to_the_first_member() {
    let mut harness = Harness::new();
    let receiver = harness.opener(Netflux1);
    harness.stranger_arrives();
    let channels = harness.answer();
    assert_eq!((channels.len(), harness.seen()), (1, vec![0]));
    harness.stranger_sends(channels[0], user(0, b"all"));
    harness.pass(Duration::from_secs(6));
    let channels = harness.answer();
    assert_eq!(channels.len(), 1);
    harness.present(channels[0], 700_001);
    assert_eq!(harness.inbox(receiver), [(true, true, b"all".to_vec())]);
}

#[test]
fn message_that_waits_is_carried_when_the_join_fails_after_the_client_presented_itself() {
    let mut harness = Harness::new();
    let receiver = harness.opener(Netflux1);
    harness.stranger_arrives();
    let channels = harness.answer();
    let init = Fields::new().number(1, 3).number(2, 7).number(3, 600_001);
    harness.stranger_sends(channels[0], service(1, 100, Fields::new().message(1, init)));
    harness.stranger_sends(channels[0], user(0, b"all"));
    harness.pass(Duration::from_secs(30));
    let channels = harness.answer();
    harness.present(channels[0], 700_001);
    assert_eq!(harness.inbox(receiver), [(true, true, b"all".to_vec())]);
}

#[test]
fn messages_to_a_stand_in_that_could_not_join_are_bounded() {
    let limits = BridgedRoomLimits { max_waiting: 1_000, ..Default::default() };
    let mut harness = Harness::new();
    harness.room = BridgedRoom::new(limits, 7);
    let receiver = harness.opener(Netflux1);
    harness.stranger_arrives();
    let channels = harness.answer();
    harness.stranger_sends(channels[0], user(0, &[b'a'; 900]));
    assert_eq!(harness.room.waiting_bytes(), 964);
    harness.stranger_sends(channels[0], user(0, b"too much"));
    assert_eq!((harness.room.waiting_bytes(), harness.room.counts().cut), (0, 1));
    harness.pass(Duration::from_secs(6));
    let channels = harness.answer();
    harness.present(channels[0], 700_001);
    harness.stranger_sends(channels[0], user(0, b"later"));
    assert_eq!(harness.inbox(receiver), [(true, true, b"later".to_vec())]);
}

#[test]
fn messages_that_wait_for_a_join_are_forgotten_with_their_receiver_and_where_too_much_waits() {
    let mut harness = Harness::new();
    let receivers = [harness.opener(Netflux0), harness.opener(Netflux1)];
    harness.stranger_arrives();
    for channel in harness.answer() {
        harness.stranger_sends(channel, user(0, b"all"));
    }
    assert_eq!(harness.room.waiting_bytes(), 2 * (64 + 3));
    harness.leave(receivers[0]);
    assert_eq!(harness.room.waiting_bytes(), 64 + 3);
    harness.room.shed(harness.now);
    assert_eq!((harness.room.waiting_bytes(), harness.room.counts().cut), (0, 1));
}
