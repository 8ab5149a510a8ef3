//! Rooms, the bridge and its peers, used at the same time.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::connection;
use super::link::{BridgeLink, BridgeQueues, peer_protocol};
use super::peers::BridgePeers;
use crate::protocol::detect::{Policy, ProtocolSet, RoomPolicy};
use crate::protocol::mesh::{BRIDGE_MESSAGE_VERSION, BridgeCall, BridgeMessage, MeshGroup, RoomNumber};
use crate::protocol::model::{
    Command, Join, LinkMessage, MemberChoice, Open, Payload, Recipient, RejoinPolicy, RoomKey, SenderTag,
    WhenEmpty,
};
use crate::server::hub::{Hub, Membership, Outbox};
use crate::server::telemetry::Telemetry;

const STEPS: usize = 3000;

fn bridged_hub() -> (Arc<Hub>, Arc<BridgeLink>) {
    let policy = Policy { bridged: RoomPolicy::Partitioned, ..Policy::new(ProtocolSet::default().releases) };
    let (hub, link) = (Hub::new(), BridgeLink::new(&Arc::new(policy), &Telemetry::new()));
    hub.set_bridge(Arc::clone(&link) as _);
    (hub, link)
}

fn key(text: usize, group: MeshGroup) -> RoomKey {
    RoomKey::from(["a", "b", "c"][text]).with_partition(peer_protocol(group).partition_id())
}

/// Enters and leaves rooms as clients do.
fn clients(hub: &Arc<Hub>, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut clients: Vec<Membership> = Vec::new();
    for _ in 0..STEPS {
        if clients.len() > 6 || !clients.is_empty() && rng.u8(..4) == 0 {
            clients.swap_remove(rng.usize(..clients.len()));
            continue;
        }
        let group = MeshGroup::ALL[rng.usize(..MeshGroup::ALL.len())];
        let command = match rng.u8(..3) {
            0 => Command::Open(Open { exclusive: false, keep_other_rooms: false }),
            when => Command::Join(Join {
                when_empty: if when == 1 { WhenEmpty::Refuse } else { WhenEmpty::BecomeMember },
                choice: MemberChoice::Oldest,
                rejoin: RejoinPolicy::KeepReceiving,
            }),
        };
        let mut client = hub.register(Outbox::new(1 << 20));
        client.enter(&key(rng.usize(..3), group), command);
        let payload = Payload::Json(r#"{"offer":{"type":"offer","sdp":"v=0"}}"#.into());
        let message = LinkMessage::Data { payload, last: false };
        let sender = SenderTag::new(7, 6);
        client.command(Command::Relay { to: Recipient::Member, message, sender });
        clients.push(client);
    }
}

/// Takes what the bridge is sent, and calls each member that is reported. Returns the members that it knows
/// at the end, and the numbers of its calls and of its callers.
fn bridge(
    hub: &Arc<Hub>,
    link: &Arc<BridgeLink>,
    queues: &Arc<BridgeQueues>,
    is_over: &AtomicBool,
) -> (HashSet<(RoomNumber, MeshGroup, u32)>, u32, u32) {
    let (mut peers, mut known) = (BridgePeers::new(hub, link, queues), HashSet::new());
    let (mut number, mut callers) = (0, 0);
    loop {
        let ends = is_over.load(Ordering::SeqCst);
        peers.handle_events();
        let mut received = queues.take_messages().unwrap();
        while let Some(message) = BridgeMessage::take(&mut received).unwrap() {
            match message {
                BridgeMessage::Arrived { room, group, target } => {
                    assert!(known.insert((room, group, target)));
                    let call = BridgeCall { is_from_client: false, number };
                    let offer = "v=0\r\n".to_owned();
                    peers.handle(BridgeMessage::Call { call, room, group, target, offer }).unwrap();
                    number += 1;
                }
                BridgeMessage::Departed { room, group, target } => {
                    assert!(known.remove(&(room, group, target)));
                }
                BridgeMessage::Caller { call, .. } => {
                    callers += 1;
                    peers.handle(BridgeMessage::Answer { call, answer: "v=0\r\n".into() }).unwrap();
                    peers.handle(BridgeMessage::End { call }).unwrap();
                }
                BridgeMessage::End { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        if ends {
            return (known, number, callers);
        }
        std::thread::yield_now();
    }
}

#[test]
fn bridge_knows_no_client_and_no_room_is_left_when_all_clients_of_several_threads_have_left() {
    let (hub, link) = bridged_hub();
    let (queues, is_over) = (Arc::<BridgeQueues>::default(), AtomicBool::new(false));
    link.connect(7, &queues);
    let (known, calls, callers) = std::thread::scope(|scope| {
        let bridge = scope.spawn(|| bridge(&hub, &link, &queues, &is_over));
        let clients: Vec<_> = (0..3)
            .map(|seed| {
                scope.spawn({
                    let hub = &hub;
                    move || clients(hub, seed)
                })
            })
            .collect();
        clients.into_iter().for_each(|thread| thread.join().unwrap());
        is_over.store(true, Ordering::SeqCst);
        bridge.join().unwrap()
    });
    assert_eq!(known, HashSet::new());
    assert!(calls > 0, "no member was reported to the bridge");
    assert!(callers > 0, "no joiner called the bridge");
    link.disconnect(&queues);
    assert_eq!(hub.rooms(), 0);
}

#[test]
fn members_are_reported_at_once_to_a_bridge_that_has_an_entry_of_their_key_open() {
    let (hub, link) = bridged_hub();
    let mut member = hub.register(Outbox::new(1 << 20));
    let key = key(0, MeshGroup::Netflux4);
    member.enter(&key, Command::Open(Open { exclusive: false, keep_other_rooms: false }));
    let connect = || {
        let queues = Arc::<BridgeQueues>::default();
        link.connect(7, &queues);
        queues
    };
    let former = connect();
    let room = link.number_for_caller(&key).unwrap();
    link.disconnect(&former);
    // The bridge outlives the gateway's end of the connection, and so does its entry.
    let queues = connect();
    assert!(queues.take_messages().unwrap().is_empty());
    link.set_entry(room, MeshGroup::Netflux1, true);
    let mut received = queues.take_messages().unwrap();
    let message = BridgeMessage::take(&mut received).unwrap();
    assert!(
        matches!(message, Some(BridgeMessage::Arrived { room: reported, group: MeshGroup::Netflux4, .. }) if reported == room),
        "{message:?}"
    );
}

#[test]
fn bridge_lets_joiners_in_only_while_it_is_connected() {
    let (hub, link) = bridged_hub();
    let mut member = hub.register(Outbox::new(1 << 20));
    member.enter(
        &key(0, MeshGroup::Netflux4),
        Command::Open(Open { exclusive: false, keep_other_rooms: false }),
    );
    let join = || {
        let mut joiner = hub.register(Outbox::new(1 << 20));
        let join = Join {
            when_empty: WhenEmpty::Refuse,
            choice: MemberChoice::Oldest,
            rejoin: RejoinPolicy::KeepReceiving,
        };
        joiner.enter(&key(0, MeshGroup::Netflux1), Command::Join(join));
        joiner
    };
    let mut last = Arc::<BridgeQueues>::default();
    for is_connected in [false, true, false, true] {
        if is_connected {
            last = Arc::default();
            link.connect(7, &last);
        } else {
            link.disconnect(&last);
        }
        let joiner = join();
        assert_eq!(hub.rooms(), if is_connected { 2 } else { 1 });
        drop(joiner);
        drop(last.take_events());
        assert_eq!(hub.rooms(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn bridge_that_sends_nothing_any_more_is_disconnected() {
    let (hub, link) = bridged_hub();
    let (stream, mut bridge) = UnixStream::pair().unwrap();
    let mut hello = BytesMut::new();
    BridgeMessage::Hello { version: BRIDGE_MESSAGE_VERSION, instance: 7 }.write(&mut hello);
    bridge.write_all(&hello).await.unwrap();
    tokio::join!(link.hung.is(std::process::id()), connection::serve(stream, &link, &hub));
    assert!(link.reported().is_none());
}
