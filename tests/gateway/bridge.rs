//! Rooms that a bridge joins, with a bridge that is played by the test.

use std::path::PathBuf;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::{Value, json};
use sigver::StatusQuery;
use sigver::config::{AdminSocketPath, RoomPolicy};
use sigver::protocol::mesh::{BRIDGE_MESSAGE_VERSION, BridgeCall, BridgeMessage, MeshGroup};
use sigver::tools::protobuf::{delimited, number};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::common::ws::{Got, Ws};
use crate::common::{TestGateway, eventually, soon};

const SDP: &str = "v=0\r\na=offer\r\n";
const ANSWER: &str = "v=0\r\na=answer\r\n";

/// A path for the socket, which the gateway removes.
fn socket(test: &str) -> PathBuf {
    std::env::temp_dir().join(format!("sigver-bridge-test-{test}-{}.sock", std::process::id()))
}

async fn gateway(protocol: &str, test: &str) -> TestGateway {
    TestGateway::configured(|config| {
        config.protocol = protocol.parse().unwrap();
        config.bridge.socket = AdminSocketPath::At(socket(test));
    })
    .await
}

/// A bridge that the test plays.
struct PlayedBridge {
    stream: UnixStream,
    received: BytesMut,
}

impl PlayedBridge {
    async fn connect(test: &str, instance: u32) -> Self {
        Self::with_version(test, instance, BRIDGE_MESSAGE_VERSION).await
    }

    async fn with_version(test: &str, instance: u32, version: u32) -> Self {
        let stream = UnixStream::connect(socket(test)).await.unwrap();
        let mut bridge = PlayedBridge { stream, received: BytesMut::new() };
        bridge.send(&BridgeMessage::Hello { version, instance }).await;
        let hello = BridgeMessage::Hello { version: BRIDGE_MESSAGE_VERSION, instance: 0 };
        assert_eq!(bridge.next().await, Some(hello));
        bridge
    }

    async fn send(&mut self, message: &BridgeMessage) {
        let mut bytes = BytesMut::new();
        message.write(&mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Receives the next message; `None` at the end of the connection.
    async fn next(&mut self) -> Option<BridgeMessage> {
        let next = async {
            loop {
                if let Some(message) = BridgeMessage::take(&mut self.received).unwrap() {
                    return Some(message);
                }
                if self.stream.read_buf(&mut self.received).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        };
        soon("a message for the bridge", next).await
    }

    /// Receives the arrival of a client of each group, in any order. Returns the number of the room, and the
    /// alias of each client in the order of the groups.
    async fn arrivals<const N: usize>(&mut self, groups: [MeshGroup; N]) -> (u32, [u32; N]) {
        let mut arrived = Vec::new();
        for _ in groups {
            match self.next().await {
                Some(BridgeMessage::Arrived { room, group, target }) => arrived.push((room, group, target)),
                other => panic!("{other:?}"),
            }
        }
        let of = |group| arrived.iter().find(|(_, of, _)| *of == group).unwrap().2;
        assert!(arrived.iter().all(|(room, ..)| *room == arrived[0].0), "{arrived:?}");
        (arrived[0].0, groups.map(of))
    }

    /// Asserts that nothing was sent, by the answer to a call that cannot succeed.
    async fn expect_nothing(&mut self) {
        let call = BridgeCall { is_from_client: false, number: 99_999 };
        let (group, target) = (MeshGroup::Netflux4, 99_999);
        self.send(&BridgeMessage::Call { call, room: 1, group, target, offer: SDP.into() }).await;
        assert_eq!(self.next().await, Some(BridgeMessage::End { call }));
    }
}

/// A client of a JSON dialect that sends this message.
async fn json_client(gateway: &TestGateway, message: Value) -> Ws<TcpStream> {
    let mut ws = gateway.ws("/").await;
    assert!(ws.text(&message.to_string()).await);
    ws
}

/// Receives the next JSON message with `data`.
async fn data(ws: &mut Ws<TcpStream>) -> Value {
    loop {
        match ws.message().await {
            Got::Text(text) => {
                let value: Value = serde_json::from_str(&text).unwrap();
                if value.get("data").is_some_and(|data| *data != json!({})) {
                    return value;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A member of sigver 20.
async fn member_of_20(gateway: &TestGateway, key: &str) -> Ws<TcpStream> {
    let mut ws = gateway.ws(&format!("/{key}")).await;
    assert!(ws.binary(&[0x1a, 2, 8, 11]).await);
    assert!(matches!(ws.message().await, Got::Binary(_)));
    ws
}

/// The message of a member of sigver 20 to a joiner: a message of the service of netflux 4 that builds data
/// channels, with this field.
fn netflux_4(joiner: u32, field: u32, sdp: &str) -> Vec<u8> {
    let signal = delimited(field, sdp.as_bytes());
    let message = [number(2, joiner), number(3, 7431), delimited(4, &signal)].concat();
    delimited(2, &[number(1, 0), number(2, joiner), number(3, 0), delimited(4, &message)].concat())
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[tokio::test]
async fn members_of_several_groups_are_reported_and_called() {
    let gateway = gateway("auto", "called").await;
    let mut bridge = PlayedBridge::connect("called", 7).await;
    let mut old = json_client(&gateway, json!({"open": "k"})).await;
    assert!(matches!(old.message().await, Got::Text(_)));
    bridge.expect_nothing().await;
    let mut current = member_of_20(&gateway, "k").await;
    let groups = [MeshGroup::Netflux1, MeshGroup::Netflux4];
    let (room, [of_old, of_current]) = bridge.arrivals(groups).await;

    let call = BridgeCall { is_from_client: false, number: 1 };
    let (group, offer) = (MeshGroup::Netflux1, SDP.to_owned());
    bridge.send(&BridgeMessage::Call { call, room, group, target: of_old, offer }).await;
    let received = data(&mut old).await;
    assert_eq!(received["data"], json!({"offer": {"type": "offer", "sdp": SDP}}));
    let answer = json!({"id": received["id"], "data": {"answer": {"type": "answer", "sdp": ANSWER}}});
    assert!(old.text(&answer.to_string()).await);
    assert_eq!(bridge.next().await, Some(BridgeMessage::Answer { call, answer: ANSWER.into() }));

    let call = BridgeCall { is_from_client: false, number: 2 };
    let (group, offer) = (MeshGroup::Netflux4, SDP.to_owned());
    bridge.send(&BridgeMessage::Call { call, room, group, target: of_current, offer }).await;
    let received = match current.message().await {
        Got::Binary(bytes) => bytes,
        other => panic!("{other:?}"),
    };
    assert!(contains(&received, SDP), "{received:?}");
    assert_eq!(gateway_links(&gateway), 2);
    let joiner = joiner_of(&received);
    assert_ne!(joiner, 0);
    assert!(current.binary(&netflux_4(joiner, 2, ANSWER)).await);
    assert_eq!(bridge.next().await, Some(BridgeMessage::Answer { call, answer: ANSWER.into() }));

    // Neither learns that the peers of the bridge leave, as both sides have answered.
    for number in [1, 2] {
        let call = BridgeCall { is_from_client: false, number };
        bridge.send(&BridgeMessage::End { call }).await;
    }
    eventually("the end of the links", || gateway_links(&gateway) == 0).await;
    drop(current);
    let departed = BridgeMessage::Departed { room, group: MeshGroup::Netflux4, target: of_current };
    assert_eq!(bridge.next().await, Some(departed));
    let report = gateway.status.report(StatusQuery::default()).bridge.unwrap();
    assert!(report.connected);
    assert_eq!((report.keys, report.members, report.calls, report.failed_calls), (1, 1, 2, 0));
    gateway.stop().await;
}

fn gateway_links(gateway: &TestGateway) -> usize {
    let mut count = 0;
    gateway.status.shared.hub.for_each_room(|_, _, links| count += links.len());
    count
}

/// Reads the recipient's or sender's id of a content of sigver 20.
fn joiner_of(message: &[u8]) -> u32 {
    use sigver::tools::protobuf::{FieldType, Schema, decode};
    const CONTENT: Schema = &[(1, FieldType::Number), (2, FieldType::Number)];
    const MESSAGE: Schema = &[(2, FieldType::Bytes)];
    let content = decode(message, MESSAGE).unwrap();
    let content = decode(content.bytes(2), CONTENT).unwrap();
    content.number(1).max(content.number(2))
}

#[tokio::test]
async fn joiner_without_a_member_of_its_generation_calls_the_bridge() {
    let gateway = gateway("sigver-7.6,sigver-20", "entry").await;
    let join = || json_client(&gateway, json!({"join": "k"}));
    let member = member_of_20(&gateway, "k").await;
    // Without a bridge the key is unknown, as it would be by generation.
    let mut refused = join().await;
    assert_eq!(refused.message().await, Got::Text(r#"{"isKeyOk":false}"#.into()));
    assert!(matches!(refused.message().await, Got::Close(..)));

    let mut bridge = PlayedBridge::connect("entry", 7).await;
    eventually("the bridge", || gateway.status.report(StatusQuery::default()).bridge.unwrap().connected)
        .await;
    let mut joiner = join().await;
    assert_eq!(joiner.message().await, Got::Text(r#"{"isKeyOk":true}"#.into()));
    bridge.expect_nothing().await;
    let offer = json!({"data": {"offer": {"type": "offer", "sdp": SDP}}});
    assert!(joiner.text(&offer.to_string()).await);
    let (room, _) = bridge.arrivals([MeshGroup::Netflux4]).await;
    let call = match bridge.next().await {
        Some(BridgeMessage::Caller { call, room: of_caller, group: MeshGroup::Netflux1, offer }) => {
            assert_eq!((of_caller, &*offer), (room, SDP));
            call
        }
        other => panic!("{other:?}"),
    };
    assert!(call.is_from_client);
    bridge.send(&BridgeMessage::Answer { call, answer: ANSWER.into() }).await;
    assert_eq!(data(&mut joiner).await, json!({"data": {"answer": {"type": "answer", "sdp": ANSWER}}}));

    // The peer of the bridge is no member: the key is free for an opener, and joiners are linked to it.
    let mut opener = json_client(&gateway, json!({"key": "k"})).await;
    assert_eq!(opener.message().await, Got::Text(r#"{"isKeyOk":true}"#.into()));
    assert!(matches!(bridge.next().await, Some(BridgeMessage::Arrived { group: MeshGroup::Netflux1, .. })));
    let mut second = join().await;
    assert!(second.text(&offer.to_string()).await);
    assert_eq!(data(&mut opener).await["data"], offer["data"]);

    // What the bridge has open is open for those whose generation alone is there.
    drop((opener, second, member));
    for _ in 0..2 {
        assert!(matches!(bridge.next().await, Some(BridgeMessage::Departed { .. })));
    }
    bridge.send(&BridgeMessage::End { call }).await;
    eventually("no room", || gateway.rooms() == 1 && gateway_links(&gateway) == 0 || gateway.rooms() == 0)
        .await;
    gateway.stop().await;
}

#[tokio::test]
async fn rooms_live_on_without_the_bridge_and_are_reported_to_the_next_one() {
    let gateway = gateway("auto", "restart").await;
    let mut old = json_client(&gateway, json!({"open": "k"})).await;
    assert!(matches!(old.message().await, Got::Text(_)));
    let current = member_of_20(&gateway, "k").await;
    let groups = [MeshGroup::Netflux1, MeshGroup::Netflux4];
    let mut bridge = PlayedBridge::connect("restart", 7).await;
    let (room, [target, _]) = bridge.arrivals(groups).await;
    let call = BridgeCall { is_from_client: false, number: 1 };
    let group = MeshGroup::Netflux1;
    bridge.send(&BridgeMessage::Call { call, room, group, target, offer: SDP.into() }).await;
    data(&mut old).await;
    // It ends while a client negotiates with it.
    drop(bridge);
    eventually("the end of the link", || gateway_links(&gateway) == 0).await;
    let mut same = PlayedBridge::connect("restart", 7).await;
    assert_eq!(same.arrivals(groups).await.0, room);
    drop(same);
    let mut other = PlayedBridge::connect("restart", 8).await;
    assert_ne!(other.arrivals(groups).await.0, room);
    drop(current);
    gateway.stop().await;
}

#[tokio::test]
async fn bridge_of_another_version_and_one_that_sends_the_wrong_messages_are_disconnected() {
    let gateway = gateway("auto", "version").await;
    let mut bridge = PlayedBridge::with_version("version", 7, BRIDGE_MESSAGE_VERSION + 1).await;
    assert_eq!(bridge.next().await, None);
    for wrong in [
        BridgeMessage::Hello { version: BRIDGE_MESSAGE_VERSION, instance: 7 },
        BridgeMessage::Arrived { room: 1, group: MeshGroup::Netflux1, target: 1 },
        BridgeMessage::Answer { call: BridgeCall { is_from_client: false, number: 1 }, answer: SDP.into() },
    ] {
        let mut bridge = PlayedBridge::connect("version", 7).await;
        bridge.send(&wrong).await;
        assert_eq!(bridge.next().await, None);
    }
    let mut bridge = PlayedBridge::connect("version", 7).await;
    bridge.stream.write_all(&[0xff; 8]).await.unwrap();
    assert_eq!(bridge.next().await, None);
    gateway.stop().await;
}

#[tokio::test]
async fn keys_that_do_not_match_are_shared_and_not_reported() {
    let gateway = TestGateway::configured(|config| {
        config.bridge.socket = AdminSocketPath::At(socket("keys"));
        config.bridge.rooms = RoomPolicy::PartitionedFor("^b-".parse().unwrap());
    })
    .await;
    let mut bridge = PlayedBridge::connect("keys", 7).await;
    let mut clients = Vec::new();
    for key in ["k", "b-k"] {
        let mut old = json_client(&gateway, json!({"open": key})).await;
        assert!(matches!(old.message().await, Got::Text(_)));
        clients.push(old);
        clients.push(member_of_20(&gateway, key).await);
    }
    bridge.arrivals([MeshGroup::Netflux1, MeshGroup::Netflux4]).await;
    bridge.expect_nothing().await;
    assert_eq!(gateway.rooms(), 3);
    gateway.stop().await;
    tokio::time::sleep(Duration::ZERO).await;
}

/// This happens in a hand-over, where the old process drains while the new one accepts.
#[tokio::test]
async fn gateway_waits_for_a_socket_that_another_has() {
    let (old, new) = (gateway("auto", "taken").await, gateway("auto", "taken").await);
    let mut bridge = PlayedBridge::connect("taken", 1).await;
    old.stop().await;
    assert_eq!(bridge.next().await, None);
    eventually("the second one has it", || std::os::unix::net::UnixStream::connect(socket("taken")).is_ok())
        .await;
    PlayedBridge::connect("taken", 1).await;
    new.stop().await;
}
