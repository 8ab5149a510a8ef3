//! Tests of the frames sent to clients of the JSON dialects while several are possible.

use super::*;

/// The answers that suit every client that says this first (netflux 0.10.3, 0.10.8, 1.0.0-rc.3 and rc.14,
/// measured).
#[test]
fn one_answer_suits_all_json_candidates() {
    let bound = Event::LinkedToMember { link: LinkId(7) };
    let alone = Event::Admitted { first: true };
    for (said, event, done, answer) in [
        (r#"{"key":"k"}"#, alone.clone(), "k open", r#"{"isKeyOk":true,"id":0,"data":{}}"#),
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

/// netflux 0.10.3 joins with data, and closes when it is told `isKeyOk` (measured).
#[test]
fn join_with_data_gets_no_answer_from_the_server() {
    let mut talk = Talk::open("auto", "/");
    talk.did();
    talk.frame(1, &Message::text(r#"{"join":"k","data":{"offer":1}}"#));
    assert_eq!((talk.did(), talk.may_be()), (vec!["k join".to_owned(), "relay".into()], "7".into()));
    talk.event(2, Event::LinkedToMember { link: LinkId(7) });
    assert_eq!(talk.did(), [""; 0]);
}

/// One that was told it is the opener, and whose joiner gets no answer, takes itself for refused (sigver 7.6
/// and 8).
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
    assert_eq!(talk.did(), [r#"{"id":123,"data":{"offer":"o"},"offer":"o"}"#]);
    talk.frame(5, &Message::text(r#"{"answer":"a"}"#));
    assert_eq!((talk.did(), talk.may_be()), (vec!["relay".to_owned()], "6".into()));
}
