//! Messages that clients of netflux 4 send through a member, as they have no channel to the stand-in yet. The
//! bytes of the clients are written by hand.

use super::*;
use crate::protocol::mesh::protobuf::{Fields, ReadFields};
use MeshGroup::Netflux4;

const MEMBER: u32 = 0x9000_0001;
const SENDER: u32 = 0x9000_0002;
/// Alias of the member.
const TARGET: u32 = 99;
const BUILDER: u32 = 74;
const USER: u32 = 743;
const WEB_RTC: u32 = 7431;

/// A room with a client of netflux 0.10 and a member of netflux 4, which has let a stand-in in.
struct Relay {
    harness: Harness,
    receiver: usize,
    way_in: MeshChannel,
    stand_in: u32,
}

/// The member lets the next stand-in in. Returns the channel, and the id of the stand-in.
fn let_in(harness: &mut Harness, others: &[u32]) -> (MeshChannel, u32) {
    let way_in = harness.strangers.remove(0);
    harness.room.answered(way_in, "answer".into(), harness.now);
    harness.room.opened(way_in, harness.now);
    let members = [&[MEMBER], others].concat();
    let ping = Fields::new().number(1, 0).number(2, 5).number(3, MEMBER).packed(4, &members);
    let frame = Fields::new().message(1, ping).into_bytes();
    harness.room.received(way_in, ChannelFrame::Binary(frame), harness.now);
    let sent = harness.room.take_actions();
    let pong = sent.iter().find_map(|action| match action {
        BridgeAction::Send { frame: ChannelFrame::Binary(frame), .. } => ReadFields::read(frame),
        _ => None,
    });
    let stand_in = pong.unwrap().number(2);
    for action in sent {
        harness.perform(action);
    }
    harness.run();
    (way_in, stand_in)
}

impl Relay {
    /// `others` are the members that the stand-in does not know.
    fn new(limits: BridgedRoomLimits, others: &[u32]) -> Self {
        let mut harness = Harness::new();
        harness.room = BridgedRoom::new(limits, 7);
        let receiver = harness.opener(Netflux0);
        harness.room.arrived(Netflux4, TARGET, harness.now);
        harness.run();
        let (way_in, stand_in) = let_in(&mut harness, others);
        Relay { harness, receiver, way_in, stand_in }
    }

    /// A frame of `sender` arrives over the channel of the member.
    fn relay(&mut self, sender: u32, service: u32, content: Fields) {
        self.receive(self.way_in, sender, service, content);
    }

    fn receive(&mut self, channel: MeshChannel, sender: u32, service: u32, content: Fields) {
        let head = Fields::new().number(1, sender).number(2, self.stand_in).number(3, service);
        let frame = ChannelFrame::Binary(head.message(4, content).into_bytes());
        self.harness.room.received(channel, frame, self.harness.now);
        self.harness.run();
    }

    fn send(&mut self, sender: u32, text: &[u8]) {
        self.send_over(self.way_in, sender, text);
    }

    fn send_over(&mut self, channel: MeshChannel, sender: u32, text: &[u8]) {
        let length = u32::try_from(text.len()).unwrap();
        self.receive(channel, sender, USER, Fields::new().number(1, length).number(2, 0).bytes(3, text));
    }

    /// The stand-in offers a channel to `sender`, which is returned.
    fn offer_to(&mut self, sender: u32) -> MeshChannel {
        self.ask_for_channel(sender);
        self.relay(sender, BUILDER, Fields::new().message(1, Fields::new()));
        let offered = *self.harness.offers.last().unwrap();
        let End::Room(channel) = offered else { panic!("{offered:?}") };
        channel
    }

    fn open(&mut self, channel: MeshChannel) {
        self.harness.room.opened(channel, self.harness.now);
        self.harness.run();
    }

    fn ask_for_channel(&mut self, sender: u32) {
        let request = Fields::new().number(1, sender).packed(2, &[MEMBER]);
        self.relay(sender, BUILDER, Fields::new().message(2, request));
    }

    /// Returns the texts that the receiver has, by the members from which it has them.
    fn received(&mut self) -> Vec<Vec<Vec<u8>>> {
        let inbox = std::mem::take(&mut self.harness.clients[self.receiver].inbox);
        let texts = |messages: Vec<Message>| messages.into_iter().map(|(_, _, text)| text).collect();
        inbox.into_values().filter(|messages| !messages.is_empty()).map(texts).collect()
    }

    fn pass_with_heartbeat(&mut self, seconds: u64) {
        self.harness.now += Duration::from_secs(seconds);
        self.relay(MEMBER, 0, Fields::new());
        self.harness.room.tick(self.harness.now);
        self.harness.run();
    }

    fn waiting(&self) -> usize {
        self.harness.room.waiting_bytes()
    }
}

#[test]
fn message_of_a_member_to_a_joiner_is_carried_once_the_member_is_connected() {
    let mut relay = Relay::new(BridgedRoomLimits::default(), &[SENDER]);
    relay.send(SENDER, b"early");
    assert_eq!(relay.received(), [] as [Vec<Vec<u8>>; 0]);
    let offer = relay.harness.offer(End::Client(usize::MAX, relay.way_in));
    relay.relay(SENDER, WEB_RTC, Fields::new().bytes(1, offer.as_bytes()));
    let (_, end) = relay.harness.ends.pop().unwrap();
    let End::Room(channel) = end else { panic!("{end:?}") };
    relay.open(channel);
    assert_eq!(relay.harness.clients[relay.receiver].seen.len(), 2);
    relay.send(MEMBER, b"direct");
    let mut received = relay.received();
    received.sort();
    assert_eq!(received, [[b"direct".to_vec()], [b"early".to_vec()]], "from two members");
}

#[test]
fn message_of_a_joiner_is_carried_once_the_joiner_is_connected() {
    let mut relay = Relay::new(BridgedRoomLimits::default(), &[]);
    relay.ask_for_channel(SENDER);
    relay.send(SENDER, b"early");
    let channel = relay.offer_to(SENDER);
    relay.relay(SENDER, WEB_RTC, Fields::new().bytes(2, b"answer"));
    relay.send(SENDER, b"still early");
    relay.open(channel);
    assert_eq!(relay.received(), [[b"early".to_vec(), b"still early".to_vec()]]);
    assert_eq!(relay.waiting(), 0);
}

#[test]
fn messages_of_senders_that_do_not_connect_are_bounded_and_forgotten() {
    let limits = BridgedRoomLimits { max_waiting: 1_000, ..Default::default() };
    let mut relay = Relay::new(limits, &[]);
    relay.send(SENDER, b"it has not asked for a channel");
    assert_eq!(relay.waiting(), 0);
    for sender in SENDER..SENDER + 20 {
        relay.ask_for_channel(sender);
        relay.send(sender, &[b'a'; 100]);
    }
    assert!(relay.waiting() > 800 && relay.waiting() <= 1_000, "{}", relay.waiting());
    assert_eq!(relay.harness.room.counts().cut, 14);
    for seconds in [3; 9] {
        relay.pass_with_heartbeat(seconds);
        assert!(relay.waiting() > 800, "they may connect");
    }
    relay.pass_with_heartbeat(3);
    assert_eq!(relay.waiting(), 0);
    assert_eq!(relay.harness.seen(), [1], "the member is still there");
    assert_eq!(relay.received(), [] as [Vec<Vec<u8>>; 0]);
}

#[test]
fn client_with_a_channel_is_not_cut_for_what_was_relayed_of_others() {
    let limits = BridgedRoomLimits { max_waiting: 1_000, ..Default::default() };
    let mut relay = Relay::new(limits, &[]);
    // The receiver answers no more calls: what the next clients send has to wait.
    relay.harness.deaf.insert(relay.receiver);
    let direct = relay.offer_to(SENDER);
    relay.relay(SENDER, WEB_RTC, Fields::new().bytes(2, b"answer"));
    relay.open(direct);
    for sender in [SENDER + 1, SENDER + 2] {
        let channel = relay.offer_to(sender);
        relay.send(sender, &[b'a'; 900]);
        relay.harness.room.closed(channel, relay.harness.now);
    }
    let before = relay.waiting();
    assert!(before > 1_800, "{before}");
    relay.send_over(direct, SENDER, b"of its own");
    assert_eq!(relay.harness.room.counts().cut, 0);
    assert!(relay.waiting() > before);
    relay.send(SENDER + 3, b"it has not asked for a channel");
    relay.ask_for_channel(SENDER + 3);
    relay.send(SENDER + 3, b"relayed");
    assert_eq!(relay.harness.room.counts().cut, 1, "no more is relayed");
}

#[test]
fn joiner_is_not_cut_for_what_a_member_sends_faster_than_the_rate() {
    let limits = BridgedRoomLimits { max_waiting: 1_000, member_rate: 1_000, ..Default::default() };
    let mut relay = Relay::new(limits, &[]);
    let channel = relay.offer_to(SENDER);
    relay.relay(SENDER, WEB_RTC, Fields::new().bytes(2, b"answer"));
    relay.open(channel);
    relay.harness.joiner(Netflux0, Some(relay.receiver));
    // Its stand-in knows the sender, and has no channel to it yet.
    (relay.way_in, relay.stand_in) = let_in(&mut relay.harness, &[SENDER]);
    for _ in 0..4 {
        relay.send(SENDER, &[b'a'; 900]);
    }
    let before = relay.waiting();
    assert!(before > 1_800, "{before}");
    relay.ask_for_channel(SENDER + 1);
    relay.send(SENDER + 1, b"early");
    assert_eq!(relay.harness.room.counts().cut, 0);
    assert!(relay.waiting() > before);
}
