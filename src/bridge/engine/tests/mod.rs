//! An engine and netflux clients of the two groups in which a [`MeshPeer`] lets others in, over a network
//! that delays, reorders and loses packets. The clock is a variable.

mod network;

use std::time::Duration;

use super::EngineLimits;
use crate::protocol::mesh::MeshGroup::{Netflux0, Netflux1};
use network::Network;

const SETUP: Duration = Duration::from_secs(40);
const BULK: Duration = Duration::from_secs(120);

/// Clients of two groups meet, and messages of several lengths pass between them in order, whatever the
/// network loses.
fn meet_and_exchange(loss: f64, lengths: &[usize]) {
    let mut network = Network::new(loss, 5);
    let (first, second) = (network.opener(Netflux0), network.opener(Netflux1));
    network.run_until(SETUP, |network| network.seen() == [1, 1]);
    let mut expected = Vec::new();
    for (number, &length) in lengths.iter().enumerate() {
        let data: Vec<u8> = (0..length).map(|at| (at % 251) as u8 ^ number as u8).collect();
        for client in [first, second] {
            network.send(client, number % 2 == 0, &data);
        }
        expected.push((number % 2 == 0, data));
    }
    network.run_until(BULK, |network| {
        [first, second].iter().all(|client| network.received(*client).len() == expected.len())
    });
    network.run(Duration::from_secs(1));
    for client in [first, second] {
        assert!(network.received(client) == expected, "client {client} received something else");
    }
    network.leave(first);
    network.run_until(Duration::from_secs(9), |network| network.seen()[1] == 0);
    network.run_until(Duration::from_secs(9), |network| network.engine.figures().channels == 0);
    let figures = network.engine.figures();
    assert_eq!(figures.messages, 2 * lengths.len() as u64);
    assert_eq!((figures.overfull, figures.refused, figures.cut), (0, 0, 0));
}

#[test]
fn messages_pass_in_order_without_loss() {
    meet_and_exchange(0.0, &[5, 0, 1 << 20, 3, 4 << 20, 16_365, 16_366, 1]);
}

#[test]
fn messages_pass_in_order_with_one_packet_in_fifty_lost() {
    meet_and_exchange(0.02, &[5, 200 << 10, 0, 7]);
}

#[test]
fn messages_pass_in_order_with_one_packet_in_ten_lost() {
    meet_and_exchange(0.1, &[5, 60 << 10, 0, 7]);
}

/// The stack would count a packet as lost for the time that had passed before.
#[test]
fn message_after_a_pause_is_sent_once() {
    let mut network = Network::new(0.0, 5);
    let (first, second) = (network.opener(Netflux0), network.opener(Netflux1));
    network.run_until(SETUP, |network| network.seen() == [1, 1]);
    for number in 0..20 {
        network.run(Duration::from_millis(1_100 + 97 * number));
        network.send(first, false, &[7; 1_000]);
    }
    network.run(Duration::from_secs(1));
    assert_eq!(network.received(second).len(), 20);
    assert_eq!(network.long_packets, 20);
}

#[test]
fn client_that_vanished_is_lost_to_the_other_group_within_nine_seconds() {
    let mut network = Network::new(0.0, 6);
    let (first, _) = (network.opener(Netflux0), network.opener(Netflux1));
    network.run_until(SETUP, |network| network.seen() == [1, 1]);
    network.run(Duration::from_secs(30));
    assert_eq!(network.seen(), [1, 1], "checks keep the connections");
    network.vanish(first);
    network.run_until(Duration::from_secs(9), |network| network.seen()[1] == 0);
    assert_eq!(network.engine.figures().silent, 1);
}

#[test]
fn client_with_another_certificate_than_it_named_gets_no_channel() {
    let mut network = Network::new(0.0, 11);
    network.forges_fingerprints = true;
    network.opener(Netflux0);
    network.opener(Netflux1);
    network.run(Duration::from_secs(10));
    assert_eq!((network.engine.figures().opened, network.seen()), (0, vec![0, 0]));
    network.forges_fingerprints = false;
    network.run_until(SETUP, |network| network.seen() == [1, 1]);
}

/// The packets of one client may take a quarter of a processor, or the bridge serves it alone.
#[test]
fn client_whose_packets_take_too_much_processor_time_is_cut_from_all_others() {
    let mut network = Network::new(0.0, 7);
    let _clients = (network.opener(Netflux0), network.opener(Netflux1));
    network.run_until(SETUP, |network| network.seen() == [1, 1]);
    for _ in 0..100 {
        network.engine.charge(0, Duration::from_millis(10), network.now);
        network.run(Duration::from_millis(50));
    }
    assert_eq!(network.seen(), [1, 1]);
    assert_eq!(network.engine.figures().overfull, 0);
    let charge = |network: &mut Network, work| network.engine.charge(0, work, network.now);
    charge(&mut network, Duration::from_millis(3_900));
    assert_eq!(network.engine.figures().overfull, 0, "long messages may take as much at once");
    charge(&mut network, Duration::from_millis(200));
    assert_eq!(network.engine.figures().overfull, 1);
    // It is called again, as any client that was lost.
    network.run_until(SETUP, |network| network.engine.figures().opened > 2 && network.seen() == [1, 1]);
}

/// A client can have many connections in a room, with peers that it invents.
#[test]
fn connections_of_one_client_in_a_room_share_its_processor_time() {
    let mut network = Network::new(0.0, 7);
    let first = network.opener(Netflux0);
    network.joiner(Netflux0, Some(first));
    let greedy = network.opener(Netflux1);
    network.run_until(SETUP, |network| network.seen() == [2, 2, 2]);
    let connections = network.connections.clone();
    assert_eq!(connections[&greedy].len(), 2);
    for connection in &connections[&first] {
        network.engine.charge(*connection, Duration::from_millis(2_100), network.now);
    }
    for connection in &connections[&greedy] {
        network.engine.charge(*connection, Duration::from_millis(1_990), network.now);
    }
    assert_eq!(network.engine.figures().overfull, 0);
    for connection in &connections[&greedy] {
        network.engine.charge(*connection, Duration::from_millis(20), network.now);
    }
    assert_eq!(network.engine.figures().overfull, 1);
}

#[test]
fn client_gets_no_more_connections_than_are_free_for_others() {
    let mut limits = EngineLimits::default();
    limits.connections.max_connections = 9;
    let mut network = Network::with_limits(limits, 0.0, 7);
    let first = network.opener(Netflux0);
    let others = [(); 2].map(|()| network.joiner(Netflux0, Some(first)));
    let greedy = network.opener(Netflux1);
    network.run_until(SETUP, |network| network.seen() == [3, 3, 3, 3]);
    assert_eq!(network.engine.figures().refused, 0, "three of six, and three are free");
    network.joiner(Netflux0, Some(first));
    network.run(SETUP);
    assert!(network.engine.figures().refused > 0);
    assert_eq!(network.seen()[greedy], 3);
    assert!(others.iter().all(|other| network.seen()[*other] >= 3), "natively, as without a bridge");
}

#[test]
fn room_gets_no_more_connections_than_its_share() {
    let mut limits = EngineLimits::default();
    limits.connections.max_connections_per_room = 2;
    let mut network = Network::with_limits(limits, 0.0, 7);
    let first = network.opener(Netflux0);
    network.opener(Netflux1);
    network.run_until(SETUP, |network| network.seen() == [1, 1]);
    assert_eq!(network.engine.figures().refused, 0);
    network.joiner(Netflux0, Some(first));
    network.run(SETUP);
    assert!(network.engine.figures().refused > 0);
    assert_eq!(network.seen()[0], 2, "the bridge's peer and the joiner");
}

#[test]
fn client_that_asks_for_channels_of_clients_that_it_invents_leaves_others_their_share() {
    let mut limits = EngineLimits::default();
    limits.connections.max_connections_per_room = 12;
    let mut network = Network::with_limits(limits, 0.0, 7);
    let first = network.opener(Netflux0);
    let greedy = network.opener(Netflux1);
    network.run_until(SETUP, |network| network.seen() == [1, 1]);
    network.ask_for_invented(greedy, 20);
    network.run(Duration::from_millis(500));
    let figures = network.engine.figures();
    assert_eq!(figures.channels, 2 + 6);
    assert!(figures.refused >= 10, "{} of 16 and more at a time", figures.refused);
    network.joiner(Netflux0, Some(first));
    network.run_until(SETUP, |network| network.seen() == [2, 2, 2]);
    network.run(SETUP);
    assert_eq!(network.engine.figures().channels, 4, "those without a check are closed");
    network.ask_for_invented(greedy, 20);
    network.run(Duration::from_millis(500));
    assert_eq!(network.engine.figures().channels, 4 + 6);
}

#[test]
fn client_that_sent_most_of_which_no_message_was_made_is_cut_if_memory_is_short() {
    let mut network = Network::new(0.0, 8);
    let (first, second) = (network.opener(Netflux0), network.opener(Netflux1));
    network.run_until(SETUP, |network| network.seen() == [1, 1]);
    // What the second one sends is acknowledgements and heartbeats, for a long time.
    network.send(first, false, &vec![7; 1 << 20]);
    network.run(Duration::from_secs(60));
    network.engine.shed_incomplete(network.now);
    assert_eq!(network.engine.figures().overfull, 0);
    assert_eq!(network.received(second).len(), 1);
    // One frame is many packets.
    network.send_frame(first, &vec![7; 120 << 10]);
    network.run_until(SETUP, |network| network.incomplete() >= 64 << 10);
    network.engine.shed_incomplete(network.now);
    assert_eq!(network.engine.figures().overfull, 1);
    network.run_until(SETUP, |network| network.engine.figures().opened > 2 && network.seen() == [1, 1]);
}

/// The joiner at the entry arrives while another client still joins.
#[test]
fn two_clients_and_a_joiner_at_the_entry_see_each_other() {
    for seed in 0..12 {
        let mut network = Network::new(0.02, seed);
        let first = network.opener(Netflux0);
        network.joiner(Netflux0, Some(first));
        let joiner = network.joiner_at_entry(Netflux1);
        network.run_until(SETUP, |network| network.seen() == [2, 2, 2]);
        network.send(joiner, true, b"to all");
        network.run_until(SETUP, |network| {
            [0, 1].iter().all(|client| network.received(*client) == [(true, b"to all".to_vec())])
        });
        assert_eq!(network.received(joiner), []);
    }
}

#[test]
fn rooms_live_on_without_the_gateway_and_go_on_with_it() {
    let mut network = Network::new(0.0, 8);
    let (first, second) = (network.opener(Netflux0), network.opener(Netflux1));
    network.run_until(SETUP, |network| network.seen() == [1, 1]);
    network.lose_gateway();
    network.run(Duration::from_secs(20));
    network.send(first, true, b"alone");
    network.run(Duration::from_secs(1));
    assert_eq!(network.received(second), [(true, b"alone".to_vec())]);
    network.connect_gateway();
    network.run(Duration::from_secs(20));
    assert_eq!((network.seen(), network.joins()), (vec![1, 1], vec![1, 1]), "each joined once");
    let third = network.joiner(Netflux1, Some(second));
    network.run_until(SETUP, |network| network.seen() == [2, 2, 2]);
    network.send(third, true, b"three");
    network.run(Duration::from_secs(1));
    assert_eq!(network.received(first), [(true, b"three".to_vec())]);
}

#[test]
fn stop_is_seen_at_once() {
    let mut network = Network::new(0.0, 9);
    network.opener(Netflux0);
    network.opener(Netflux1);
    network.run_until(SETUP, |network| network.seen() == [1, 1]);
    let now = network.now;
    network.engine.stop(now);
    network.run_until(Duration::from_secs(1), |network| network.seen() == [0, 0]);
    network.run_until(Duration::from_secs(3), |network| network.engine.figures().channels == 0);
}

#[test]
fn packets_of_strangers_are_not_answered() {
    let mut network = Network::new(0.0, 10);
    let before = network.engine.figures().unknown_packets;
    for data in [&b"\x16\xfe\xfd"[..], b"", b"\0\x01\0\0\x21\x12\xa4\x42abcdefghijkl"] {
        network.feed_from_stranger(data);
    }
    network.engine.tick(network.now);
    assert_eq!(network.engine.take_packets(), []);
    assert_eq!(network.engine.figures().unknown_packets, before + 3);
}
