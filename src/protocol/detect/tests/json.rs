//! Tests of the frames sent to clients of the JSON dialects while several are possible.

use super::*;
use crate::protocol::model::Reason;

/// The answers that suit every client that sends this first (netflux 0.10.3, 0.10.8, 1.0.0-rc.3 and rc.14,
/// measured).
#[test]
fn one_answer_suits_all_json_candidates() {
    let bound = Event::LinkedToMember { link: LinkId(7) };
    let alone = Event::Admitted { first: true };
    for (said, event, done, answer) in [
        (r#"{"key":"k"}"#, alone.clone(), "k open", r#"{"isKeyOk":true,"id":null,"data":{}}"#),
        (r#"{"join":"k"}"#, bound.clone(), "k join", r#"{"opened":false,"isKeyOk":true,"first":false}"#),
        (r#"{"join":"k"}"#, alone.clone(), "k join", r#"{"opened":true,"isKeyOk":false,"first":true}"#),
        (r#"{"open":"k"}"#, alone, "k open", r#"{"opened":true,"isKeyOk":true,"first":true}"#),
        (r#"{"joinkey":"k"}"#, bound, "k join", r#"{"reachable":"true"}"#),
    ] {
        let mut talk = Talk::open("auto", "/");
        talk.did();
        talk.frame(1, &Message::text(said));
        assert_eq!(talk.did(), [done], "{said}");
        talk.event(2, event);
        assert_eq!(talk.did(), [answer], "{said}");
    }
}

/// netflux 0.10.3 joins with data, and closes when it receives `isKeyOk` (measured).
#[test]
fn join_with_data_gets_no_answer_from_the_server() {
    let mut talk = Talk::open("auto", "/");
    talk.did();
    talk.frame(1, &Message::text(r#"{"join":"k","data":{"offer":1}}"#));
    assert_eq!((talk.did(), talk.may_be()), (vec!["k join".to_owned(), "relay".into()], "7".into()));
    talk.event(2, Event::LinkedToMember { link: LinkId(7) });
    assert_eq!(talk.did(), [""; 0]);
}

/// One that received that it is the opener, and whose joiner gets no answer, behaves as if it were refused
/// (sigver 7.6 and 8).
#[test]
fn lone_joiner_that_does_not_answer_is_refused() {
    let lone = || {
        let mut talk = Talk::open("auto", "/");
        talk.frame(1, &Message::text(r#"{"join":"k"}"#)).event(2, Event::Admitted { first: true });
        talk.event(3_000, Event::LinkedToJoiner { link: LinkId(0x7b) });
        talk.event(3_001, relayed(Side::Member, Dialect::Sigver7_6)).did();
        talk
    };
    let mut ghost = lone();
    ghost.until(8_001);
    assert_eq!(ghost.did(), ["close Some(4003) Unknown key: k"]);
    let mut opener = lone();
    opener.frame(3_100, &Message::text(r#"{"id":123,"data":{"answer":1}}"#)).until(60_000);
    assert_eq!((opener.did(), opener.may_be()), (vec!["relay".to_owned()], "9".into()));
}

#[test]
fn open_after_reply_to_first_join_means_text_ids() {
    let mut talk = Talk::open("auto", "/");
    talk.frame(1, &Message::text(r#"{"join":"k"}"#)).event(2, Event::Admitted { first: true });
    talk.frame(3, &Message::text(r#"{"open":"k"}"#)).event(4, Event::Admitted { first: true }).did();
    assert_eq!(talk.may_be(), "11 13");
    talk.event(5, relayed(Side::Member, Dialect::Sigver13));
    assert_eq!(talk.did(), [r#"{"id":"0000007b","data":{"$bytes":"b2ZmZXItSg=="}}"#]);
    talk.frame(6, &Message::text(r#"{"pong":true}"#));
    assert_eq!((talk.did(), talk.may_be()), (vec![r#"{"ping":true}"#.to_owned()], "13".into()));
}

/// sigver 6, whose opener sends no id, among those that take its `{"key":K}` for theirs.
#[test]
fn opener_of_6_gets_its_offer() {
    let mut talk = Talk::open("auto", "/");
    talk.frame(1, &Message::text(r#"{"key":"k"}"#)).event(2, Event::Admitted { first: true });
    talk.event(3, Event::LinkedToJoiner { link: LinkId(0x7b) }).did();
    let message = LinkMessage::Data { payload: Payload::Json(r#"{"offer":"o"}"#.into()), last: false };
    let sender = Dialect::Sigver6.tag();
    talk.event(4, Event::Relayed { link: LinkId(0x7b), side: Side::Member, message, sender });
    assert_eq!(talk.did(), [r#"{"id":0,"data":{"offer":"o"},"offer":"o"}"#]);
    talk.frame(5, &Message::text(r#"{"answer":"a"}"#));
    assert_eq!((talk.did(), talk.may_be()), (vec!["relay".to_owned()], "6".into()));
}

/// Returns a program that has opened the key "k".
fn program() -> Talk {
    let mut talk = Talk::program("auto");
    talk.frame(1, &Message::text(r#"{"key":"k"}"#)).event(2, Event::Admitted { first: true });
    assert_eq!(talk.did(), ["ping", "k open"]);
    talk
}

/// Has a joiner send data to the opener.
fn joiner_sends(talk: &mut Talk, ms: u64, link: u32, from: Dialect, data: &'static str) -> Vec<String> {
    let message = LinkMessage::Data { payload: Payload::Json(data.into()), last: false };
    let link = LinkId(link);
    talk.event(ms, Event::LinkedToJoiner { link });
    talk.event(ms, Event::Relayed { link, side: Side::Member, message, sender: from.tag() });
    talk.did()
}

/// netflux 0.10.3 ends its process on an answer with an id, and closes on one without; other programs of 7
/// treat the id as that of their first joiner.
#[test]
fn program_of_7_is_sent_nothing_but_its_joiners() {
    let mut talk = program();
    assert_eq!(joiner_sends(&mut talk, 3_900, 0x7b, Dialect::Sigver7, "1"), [r#"{"id":0,"data":1}"#]);
    talk.until(60_000);
    assert_eq!(joiner_sends(&mut talk, 60_000, 0x7c, Dialect::Sigver7, "2"), [r#"{"id":1,"data":2}"#]);
    assert_eq!(joiner_sends(&mut talk, 60_001, 0x7b, Dialect::Sigver7, "3"), [r#"{"id":0,"data":3}"#]);
    talk.frame(60_002, &Message::text(r#"{"id":1,"data":4}"#)).until(600_000);
    assert_eq!(talk.did(), ["relay"]);
}

#[test]
fn program_is_answered_before_a_joiner_whose_opener_waits_for_it() {
    let mut talk = program();
    let answer = r#"{"isKeyOk":true,"id":0,"data":{}}"#;
    assert_eq!(joiner_sends(&mut talk, 9, 0x7b, Dialect::Sigver7_6, "1"), [answer, r#"{"id":0,"data":1}"#]);
    assert_eq!(joiner_sends(&mut talk, 9, 0x7c, Dialect::Sigver9, "2"), [r#"{"id":1,"data":2}"#]);
    talk.until(600_000);
    assert_eq!(talk.did(), [""; 0]);
}

/// netflux 0.10.8 waits for the answer without end.
#[test]
fn lone_program_is_answered_as_if_a_joiner_had_left() {
    let mut talk = program();
    talk.until(4_001);
    assert_eq!(talk.did(), [""; 0]);
    talk.until(4_002);
    let answer: serde_json::Value = serde_json::from_str(&talk.did()[0]).unwrap();
    assert_eq!((&answer["isKeyOk"], &answer["id"]), (&serde_json::json!(true), &serde_json::json!(0)));
    assert!(answer["data"]["offer"]["sdp"].as_str().unwrap().starts_with("v=0"));
    // Its answer and its candidates are for no joiner.
    talk.frame(4_010, &Message::text(r#"{"id":0,"data":{"answer":{}}}"#));
    assert_eq!(talk.did(), [""; 0]);
    assert_eq!(joiner_sends(&mut talk, 5_000, 0x7b, Dialect::Sigver7_6, "1"), [r#"{"id":1,"data":1}"#]);
    talk.frame(5_010, &Message::text(r#"{"id":1,"data":2}"#)).until(600_000);
    assert_eq!(talk.did(), ["relay"]);
}

/// The id of the answer is none, so that joiners are counted from 0 in an array, too (netflux 0.1 to 0.4).
#[test]
fn joiners_of_a_page_are_counted_from_0() {
    let mut talk = Talk::open("auto", "/");
    talk.frame(1, &Message::text(r#"{"key":"k"}"#)).event(2, Event::Admitted { first: true }).did();
    for (link, from, expected) in [
        (0x7b, Dialect::Sigver7, r#"{"id":0,"data":1}"#),
        (0x7c, Dialect::Sigver7_6, r#"{"id":1,"data":1}"#),
        (0x7b, Dialect::Sigver7, r#"{"id":0,"data":1}"#),
    ] {
        assert_eq!(joiner_sends(&mut talk, 3, link, from, "1"), [expected]);
    }
}

/// CryptPad of 2016 checks the code of 7.0; clients of 7.1 check none.
#[test]
fn free_key_is_refused_with_the_code_of_7_0_unless_7_1_is_pinned() {
    for (protocols, close) in [
        ("auto", "close Some(1008) Unknown key"),
        ("json", "close Some(1008) Unknown key"),
        ("sigver-7.0.0", "close Some(1008) Unknown key"),
        ("sigver-7.1.0", "close Some(4003) Unknown key"),
    ] {
        let mut talk = Talk::open(protocols, "/");
        talk.frame(1, &Message::text(r#"{"join":"k","data":{"offer":1}}"#)).did();
        talk.event(2, Event::Refused(Reason::KeyUnknown));
        assert_eq!(talk.did(), [close], "{protocols}");
    }
}

/// The price of a path: a client of a JSON dialect that sends nothing is sent the first frames of another
/// dialect, unless these are not served.
#[test]
fn silent_client_on_a_path_is_sent_bytes_unless_json_is_pinned() {
    let silent = |protocols| {
        let mut talk = Talk::open(protocols, "/sig");
        talk.pong(1).until(1_000);
        talk.did()
    };
    assert_eq!(silent("auto"), ["ping", "10012001", "sig join"]);
    assert_eq!(silent("json"), ["ping"]);
    assert_eq!(silent("json,protobuf-v2"), ["ping"]);
}
