//! Rooms by generation: no client enters the room of another generation, or stays in it.

use regex_lite::Regex;

use super::*;
use crate::protocol::dialect::PeerProtocol::{Netflux0, Netflux1, Netflux2, Netflux3, Netflux4};
use crate::protocol::model::RoomKey;

fn open(path: &str) -> Talk {
    let policy = Policy { rooms: RoomPolicy::Partitioned, ..(*policy("auto")).clone() };
    let mut talk = Talk::with(&Arc::new(policy), path);
    talk.did();
    talk
}

/// The parts of a key that were entered or left since the last call.
fn moves(talk: &mut Talk) -> Vec<String> {
    let steps = std::mem::take(&mut talk.steps);
    steps
        .into_iter()
        .filter_map(|step| match step {
            Output::Enter(key, _) => {
                let all = [Netflux0, Netflux1, Netflux2, Netflux3, Netflux4];
                let found = all
                    .into_iter()
                    .find(|part| RoomKey::from(key.as_str()).with_partition(part.partition_id()) == key);
                Some(found.map_or("shared".into(), |part| format!("{part:?}")))
            }
            Output::Leave => Some("leave".into()),
            _ => None,
        })
        .collect()
}

#[test]
fn silent_client_is_held_until_probe_timeout() {
    let mut talk = open("/k");
    talk.pong(1).until(152);
    assert_eq!(moves(&mut talk), [""; 0]);
    talk.frame(160, &hex("2801"));
    assert_eq!(moves(&mut talk), ["Netflux2"]);
    let mut talk = open("/k");
    talk.pong(1).until(640);
    assert_eq!(moves(&mut talk), [""; 0]);
    talk.until(660);
    assert_eq!(moves(&mut talk), ["Netflux3"], "one of netflux 3 does not answer");
    // A page that was busy for long.
    talk.frame(900, &hex("2801"));
    assert_eq!(moves(&mut talk), ["leave", "Netflux2"]);
}

#[test]
fn late_client_of_20_changes_rooms() {
    let mut talk = open("/k");
    talk.pong(1).until(700).event(701, Event::Admitted { first: true });
    assert_eq!(moves(&mut talk), ["Netflux3"]);
    talk.frame(900, &hex("1a02080b"));
    assert_eq!(moves(&mut talk), ["leave", "Netflux4"]);
    let mut prompt = open("/k");
    prompt.frame(2, &hex("1a02080b"));
    assert_eq!(moves(&mut prompt), ["Netflux4"]);
}

/// netflux 0.10.3 answers an offer that no client made, 0.10.8 and 1.0.0-rc.3 do not (measured).
#[test]
fn opener_of_7_0_answers_identity_question() {
    let asked = || {
        let mut talk = open("/");
        talk.frame(1, &Message::text(r#"{"key":"k"}"#));
        let [Output::Recognised(..), Output::Send(Outgoing::Message(Message::Text(question)))] =
            &talk.steps[..]
        else {
            panic!("{:?}", talk.steps)
        };
        let question: serde_json::Value = serde_json::from_str(question).unwrap();
        assert!(question["data"]["offer"]["sdp"].as_str().unwrap().starts_with("v=0\r\n"));
        talk.steps.clear();
        talk
    };
    let answer = Message::text(r#"{"id":0,"data":{"answer":{"type":"answer","sdp":"v=0"}}}"#);
    let mut talk = asked();
    talk.frame(12, &answer);
    assert_eq!(moves(&mut talk), ["Netflux0"]);
    talk.event(13, Event::Admitted { first: true });
    assert_eq!(talk.did(), [""; 0], "it has its answer");
    let mut silent = asked();
    silent.until(202);
    assert_eq!(moves(&mut silent), ["Netflux1"]);
    silent.event(203, Event::Admitted { first: true });
    assert_eq!(silent.did(), [""; 0], "it has its answer");
    // A page that was busy for long is moved, and knows nothing of it.
    silent.frame(900, &answer);
    assert_eq!(moves(&mut silent), ["leave", "Netflux0"]);
    silent.event(901, Event::Admitted { first: true });
    assert_eq!(silent.did(), [""; 0]);
}

#[test]
fn json_clients_meet_their_generation() {
    let mut talk = open("/");
    talk.frame(1, &Message::text(r#"{"open":"k"}"#));
    assert_eq!(moves(&mut talk), ["Netflux1"]);
    let mut talk = open("/");
    talk.frame(1, &Message::text(r#"{"join":"k","data":1}"#)).until(252);
    assert_eq!(moves(&mut talk), ["Netflux0"]);
    // A joiner lets openers be asked first.
    let mut talk = open("/");
    talk.frame(1, &Message::text(r#"{"join":"k"}"#)).until(250);
    assert_eq!(moves(&mut talk), [""; 0]);
    talk.until(252).event(253, Event::Admitted { first: true });
    assert_eq!(moves(&mut talk), ["Netflux1"]);
    // It may be one of 11 or 13, which open the key themselves.
    talk.frame(300, &Message::text(r#"{"open":"k"}"#));
    assert_eq!(moves(&mut talk), ["Netflux1"]);
}

/// Commands sent before the peer protocol is known are sent again in the room, in order.
#[test]
fn commands_after_a_held_join_wait_with_it() {
    let mut talk = open("/");
    talk.frame(1, &Message::text(r#"{"join":"k"}"#)).frame(2, &Message::text(r#"{"data":"early"}"#));
    assert_eq!(talk.did(), [""; 0]);
    talk.until(252);
    assert_eq!(talk.did(), ["k join", "relay"]);
    // Up to a bound.
    let mut talk = open("/");
    talk.frame(1, &Message::text(r#"{"join":"k"}"#));
    let large = Message::text(format!(r#"{{"data":"{}"}}"#, "x".repeat(40_000)));
    talk.frame(2, &large).frame(3, &large).until(252);
    assert_eq!(talk.did(), ["k join", "relay"]);
}

/// A client that was treated as another one: what was asked in its name is not asked any more.
#[test]
fn command_held_on_wrong_assumption_is_dropped() {
    let rooms = RoomPolicy::PartitionedFor(Regex::new("^team").unwrap());
    let policy = Arc::new(Policy { rooms, ..(*policy("auto")).clone() });
    let mut talk = Talk::with(&policy, "/team1");
    talk.pong(1).until(200).did();
    talk.frame(210, &Message::text(r#"{"open":"other"}"#)).until(2_000);
    assert_eq!(moves(&mut talk), ["leave", "shared"]);
    let mut late = open("/k");
    late.pong(1).until(200).did();
    late.frame(210, &hex("0801")).until(2_000);
    assert_eq!(moves(&mut late), [""; 0], "it has not said connect yet");
}

#[test]
fn keys_that_do_not_match_are_shared() {
    let rooms = RoomPolicy::PartitionedFor(Regex::new("^x").unwrap());
    let policy = Arc::new(Policy { rooms, ..(*policy("auto")).clone() });
    for (path, expected) in [("/xk", "Netflux4"), ("/k", "shared")] {
        let mut talk = Talk::with(&policy, path);
        talk.frame(1, &hex("1a02080b"));
        assert_eq!(moves(&mut talk), [expected], "{path}");
    }
}

/// An opener of 6, 7 or 7.6 is treated as one of 7.6, and sends as such to a joiner of 7.
#[test]
fn link_to_a_client_that_may_be_of_the_same_generation_is_not_reported() {
    let mut opener = Talk::open("auto", "/");
    opener.frame(1, &Message::text(r#"{"key":"k"}"#)).event(2, Event::Admitted { first: true });
    opener.event(3, Event::LinkedToJoiner { link: LinkId(0x7b) });
    opener.event(3, relayed(Side::Member, Dialect::Sigver7)).did();
    opener.frame(4, &Message::text(r#"{"id":0,"data":{"answer":1}}"#));
    let Some(Output::Ask(Command::Relay { message, sender, .. })) = opener.steps.pop() else { panic!() };
    assert_eq!(Dialect::from_tag(sender), Some(Dialect::Sigver7_6));
    let mut joiner = Talk::open("auto", "/");
    joiner.frame(1, &Message::text(r#"{"join":"k","data":{"offer":1}}"#));
    joiner.event(2, Event::LinkedToMember { link: LinkId(0x7b) });
    joiner.event(5, Event::Relayed { link: LinkId(0x7b), side: Side::Joiner, message, sender }).did();
    assert_eq!((&opener.mixed, &joiner.mixed), (&vec![], &vec![]));
    // A joiner of 9 certainly is of another one.
    joiner.event(6, relayed(Side::Joiner, Dialect::Sigver9)).did();
    assert_eq!(joiner.mixed, [Dialect::Sigver9]);
}

#[test]
fn link_to_another_generation_is_reported_once() {
    let mut talk = Talk::open("auto", "/k");
    talk.frame(1, &hex("1a02080b")).event(2, Event::Admitted { first: true });
    talk.event(3, relayed(Side::Member, Dialect::Sigver20)).did();
    assert_eq!(talk.mixed, []);
    for _ in 0..2 {
        talk.event(4, relayed(Side::Member, Dialect::Sigver9)).did();
    }
    assert_eq!(talk.mixed, [Dialect::Sigver9]);
}
