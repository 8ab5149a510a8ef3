//! The clients against frames that were recorded on the originals, or written by hand after them.

use serde_json::json;

use super::*;
use crate::tools::client::message::{Body, Delivery, MessageKind};

fn of(name: &str, role: Role) -> Box<dyn Client> {
    client(Protocol::of_name(name).unwrap(), role, "k1")
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn hears(acts: Vec<ClientAction>) -> Vec<ClientEvent> {
    let heard = acts.into_iter().filter_map(|act| match act {
        ClientAction::Hear(heard) => Some(heard),
        ClientAction::Send(_) | ClientAction::Close(_) => None,
    });
    heard.collect()
}

fn is_strange(acts: &[ClientAction]) -> bool {
    acts.iter().any(|act| matches!(act, ClientAction::Hear(ClientEvent::Strange(_))))
}

fn sends(text: &str) -> Vec<ClientAction> {
    vec![ClientAction::Send(Frame::Text(text.to_owned()))]
}

/// What is in the only thing that was heard.
fn body(acts: Vec<ClientAction>) -> (Option<Id>, Option<MessageKind>, Body) {
    match hears(acts).as_slice() {
        [ClientEvent::TestMessage { from, got }] => (from.clone(), got.shape, got.body.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn first_words() {
    let offer = TestMessage::new(MessageKind::Offer, "m");
    for (name, opens, joins) in [
        ("sigver-1", r#"{"type":"open","id":"k1"}"#, r#"{"type":"join","id":"k1"}"#),
        ("sigver-4", r#"{"type":"open","key":"k1"}"#, r#"{"type":"join","key":"k1"}"#),
        ("sigver-5", r#"{"type":"open","key":"k1"}"#, r#"{"type":"join","key":"k1"}"#),
        ("sigver-6", r#"{"key":"k1"}"#, r#"{"joinkey":"k1"}"#),
        ("sigver-7.6", r#"{"key":"k1"}"#, r#"{"join":"k1"}"#),
        ("sigver-8", r#"{"open":"k1"}"#, r#"{"join":"k1"}"#),
        ("sigver-9", r#"{"open":"k1"}"#, r#"{"join":"k1"}"#),
        ("sigver-11", r#"{"open":"k1"}"#, r#"{"join":"k1"}"#),
        ("sigver-13", r#"{"open":"k1"}"#, r#"{"join":"k1"}"#),
    ] {
        assert_eq!(of(name, Role::Member).opened(None), sends(opens), "{name}");
        assert_eq!(of(name, Role::Joiner).opened(Some(&offer)), sends(joins), "{name}");
    }
    let joins = json!({"join": "k1", "data": {"offer": offer.body()}}).to_string();
    assert_eq!(of("sigver-7", Role::Joiner).opened(Some(&offer)), sends(&joins));
    for name in ["sigver-15", "sigver-15.1", "sigver-16", "sigver-18"] {
        assert_eq!(of(name, Role::Joiner).opened(None), [], "{name}");
    }
    let connect = vec![ClientAction::Send(Frame::Binary(hex("1a02 080b")))];
    assert_eq!(of("sigver-19", Role::Member).opened(None), connect);
    assert_eq!(of("sigver-20", Role::Member).opened(None), connect);
}

#[test]
fn answers_to_first_words() {
    for (name, role, frame, expected) in [
        ("sigver-6", Role::Joiner, r#"{"reachable":"true"}"#, ClientEvent::Bound),
        ("sigver-7.6", Role::Member, r#"{"isKeyOk":true}"#, ClientEvent::Member),
        ("sigver-7.6", Role::Joiner, r#"{"isKeyOk":true}"#, ClientEvent::Bound),
        ("sigver-8", Role::Joiner, r#"{"isKeyOk":false}"#, ClientEvent::Refused("isKeyOk: false".into())),
        ("sigver-9", Role::Member, r#"{"opened":true}"#, ClientEvent::Member),
        ("sigver-9", Role::Joiner, r#"{"opened":false}"#, ClientEvent::Bound),
        ("sigver-11", Role::Member, r#"{"first":true}"#, ClientEvent::Member),
        ("sigver-13", Role::Joiner, r#"{"first":false}"#, ClientEvent::Bound),
        // An answer for several of them: each looks for its own attribute.
        (
            "sigver-8",
            Role::Joiner,
            r#"{"opened":true,"isKeyOk":false,"first":true}"#,
            ClientEvent::Refused("isKeyOk: false".into()),
        ),
        ("sigver-9", Role::Joiner, r#"{"opened":true,"isKeyOk":false,"first":true}"#, ClientEvent::Member),
    ] {
        assert_eq!(hears(of(name, role).text(frame)), [expected], "{name} {frame}");
    }
    for name in ["sigver-15", "sigver-15.1", "sigver-16", "sigver-18"] {
        assert_eq!(hears(of(name, Role::Member).binary(&hex("1001"))), [ClientEvent::Member], "{name}");
        assert_eq!(hears(of(name, Role::Joiner).binary(&hex("1000"))), [ClientEvent::Bound], "{name}");
    }
}

#[test]
fn an_answer_of_another_generation_is_none() {
    assert!(is_strange(&of("sigver-8", Role::Member).text(r#"{"opened":true}"#)));
    assert!(is_strange(&of("sigver-9", Role::Member).text(r#"{"ping":true}"#)));
    assert!(is_strange(&of("sigver-7.6", Role::Joiner).text(r#"{"first":false}"#)));
}

/// An opener closes on what is not from a joiner (netflux 0.10.3, measured), but not on an empty one.
#[test]
fn an_opener_of_7_knows_only_its_joiners() {
    let closes = of("sigver-7", Role::Member).text(r#"{"isKeyOk":true}"#);
    assert!(is_strange(&closes) && closes.contains(&ClientAction::Close(None)));
    assert_eq!(of("sigver-7", Role::Member).text(r#"{"isKeyOk":true,"id":0,"data":{}}"#), []);
}

#[test]
fn a_client_of_19_or_20_asks_twice_and_counts_the_answers() {
    let mut member = of("sigver-20", Role::Member);
    member.opened(None);
    let made = member.binary(&hex("2001"));
    assert_eq!(
        made,
        [ClientAction::Hear(ClientEvent::Member), ClientAction::Send(Frame::Binary(hex("1a02 080b")))]
    );
    assert_eq!(member.binary(&hex("2001")), []);
    assert!(is_strange(&member.binary(&hex("2001"))));
    // isFirst, of another generation: swallowed (netflux 4.3, measured).
    assert_eq!(member.binary(&hex("1001")), []);
}

#[test]
fn contents_come_in_the_layout_of_the_dialect() {
    for (name, frame) in [
        ("sigver-15", "0a0c 0807 1a08 616e737765722d4a"),
        ("sigver-15.1", "0a0c 0807 1208 616e737765722d4a"),
        ("sigver-16", "0a0c 0807 1208 616e737765722d4a"),
        ("sigver-18", "0a0c 0807 1208 616e737765722d4a"),
        ("sigver-19", "120c 0807 1a08 616e737765722d4a"),
        ("sigver-20", "120e 0807 1000 2208 616e737765722d4a"),
    ] {
        let (from, _, body) = body(of(name, Role::Member).binary(&hex(frame)));
        assert_eq!((from, body), (Some(Id::number(7)), Body::Bytes(b"answer-J".to_vec())), "{name}");
    }
}

#[test]
fn contents_in_another_layout_do_not_come() {
    let b = hex("0a0c 0807 1a08 616e737765722d4a");
    let undecodable = of("sigver-15.1", Role::Member).binary(&b);
    assert!(is_strange(&undecodable) && undecodable.contains(&ClientAction::Close(Some(4010))));
    // To a client of 19, the data of 20 is no data: the other is gone.
    let d = hex("120e 0807 1000 2208 616e737765722d4a");
    assert_eq!(
        hears(of("sigver-19", Role::Member).binary(&d)),
        [ClientEvent::Gone { from: Some(Id::number(7)) }]
    );
}

#[test]
fn ends_and_departures() {
    let (gone, end) = (ClientEvent::Gone { from: None }, ClientEvent::End { from: None });
    for (name, frame, expected) in [
        ("sigver-15", "0a04 0800 2001", &gone),
        ("sigver-15", "0a04 0800 1a00", &end),
        ("sigver-15.1", "0a04 0800 1801", &gone),
        ("sigver-16", "0a04 0800 2001", &end),
        ("sigver-18", "0a04 0800 1801", &gone),
        ("sigver-19", "1202 0801", &gone),
        ("sigver-20", "1204 0800 1007", &gone),
    ] {
        assert_eq!(
            &hears(of(name, Role::Joiner).binary(&hex(frame))),
            std::slice::from_ref(expected),
            "{name}"
        );
    }
    let mut joiner = of("sigver-13", Role::Joiner);
    joiner.text(r#"{"first":false}"#);
    assert_eq!(hears(joiner.text(r#"{"unavailable":"H1x"}"#)), [gone]);
    for (name, answer, frame, id) in [
        ("sigver-7.6", r#"{"isKeyOk":true}"#, r#"{"id":5,"unavailable":true}"#, json!(5)),
        ("sigver-9", r#"{"opened":true}"#, r#"{"unavailable":5}"#, json!(5)),
        ("sigver-11", r#"{"first":true}"#, r#"{"unavailable":"H1x"}"#, json!("H1x")),
    ] {
        let mut member = of(name, Role::Member);
        member.text(answer);
        assert_eq!(hears(member.text(frame)), [ClientEvent::Gone { from: Some(Id(id)) }], "{name}");
    }
}

#[test]
fn pings_are_answered_and_heartbeats_sent_where_they_are() {
    let pong = ClientAction::Send(Frame::Binary(hex("2801")));
    assert_eq!(
        of("sigver-15", Role::Member).binary(&hex("2001")),
        [pong.clone(), ClientAction::Hear(ClientEvent::Beat)]
    );
    assert_eq!(
        of("sigver-15.1", Role::Joiner).binary(&hex("10012001")),
        [pong, ClientAction::Hear(ClientEvent::Beat)]
    );
    assert_eq!(of("sigver-18", Role::Member).binary(&hex("2001")), [ClientAction::Hear(ClientEvent::Beat)]);
    let mut thirteen = of("sigver-13", Role::Member);
    assert_eq!(
        thirteen.text(r#"{"ping":true}"#)[0],
        ClientAction::Send(Frame::Text(r#"{"pong":true}"#.into()))
    );
    for tongue in Protocol::all() {
        let beat = client(tongue, Role::Member, "k").beat();
        let expected = match tongue.name() {
            "sigver-16" | "sigver-18" => Some(hex("2001")),
            "sigver-19" | "sigver-20" => Some(hex("0801")),
            _ => None,
        };
        assert_eq!(beat, expected.map(Frame::Binary), "{tongue}");
    }
}

/// An opener of 1 to 5 knows its joiners by the order in which they came.
#[test]
fn indexes_are_those_of_joiners() {
    let mut member = of("sigver-5", Role::Member);
    assert!(is_strange(&member.text(r#"{"offer":{"x":1},"index":"0"}"#)));
    assert_eq!(hears(member.text(r#"{"type":"join"}"#)), [ClientEvent::Arrival]);
    let (from, shape, _) = body(member.text(r#"{"offer":{"x":1},"index":"0"}"#));
    assert_eq!((from.clone(), shape), (Some(Id(json!("0"))), Some(MessageKind::Offer)));
    let answer = member.say(from.as_ref(), &TestMessage::new(MessageKind::Answer, "m")).unwrap();
    let Frame::Text(answer) = answer else { panic!("bytes") };
    assert!(answer.starts_with(r#"{"index":"0","answer":{"note":"m""#), "{answer}");
}

#[test]
fn some_have_few_words() {
    let says = |name: &str, role| {
        let mut client = of(name, role);
        let said = MessageKind::ALL
            .into_iter()
            .filter(|shape| client.say(None, &TestMessage::new(*shape, "m")).is_some());
        said.collect::<Vec<_>>()
    };
    assert_eq!(says("sigver-1", Role::Member), [MessageKind::Offer, MessageKind::Candidate]);
    assert_eq!(says("sigver-6", Role::Joiner), [MessageKind::Offer]);
    assert_eq!(says("sigver-6", Role::Member), []);
    assert_eq!(says("sigver-9", Role::Joiner), MessageKind::ALL[..4]);
    assert_eq!(says("sigver-20", Role::Joiner), MessageKind::ALL);
    let mut six = of("sigver-6", Role::Member);
    six.text(r#"{"id":5,"data":{"offer":{"x":1}},"offer":{"x":1}}"#);
    assert!(six.say(None, &TestMessage::new(MessageKind::Answer, "m")).is_some());
    assert!(six.say(None, &TestMessage::new(MessageKind::Answer, "m")).is_none());
}

/// What a client says, another of its dialect understands.
#[test]
fn each_understands_itself() {
    for tongue in Protocol::all() {
        let (mut one, mut other) = (client(tongue, Role::Joiner, "k"), client(tongue, Role::Joiner, "k"));
        let answer = match tongue.name() {
            "sigver-6" => continue,
            "sigver-7.6" | "sigver-8" => r#"{"isKeyOk":true}"#,
            "sigver-9" => r#"{"opened":false}"#,
            "sigver-11" | "sigver-13" => r#"{"first":false}"#,
            _ => "",
        };
        if !answer.is_empty() {
            other.text(answer);
        }
        for shape in MessageKind::ALL {
            let sent = TestMessage::new(shape, "m");
            let acts = match one.say(None, &sent) {
                Some(Frame::Text(text)) => other.text(&text),
                Some(Frame::Binary(bytes)) => other.binary(&bytes),
                None => continue,
            };
            let heard = hears(acts);
            let [ClientEvent::TestMessage { got, .. }] = heard.as_slice() else {
                panic!("{tongue} {shape:?}: {heard:?}")
            };
            assert_eq!(sent.judge(got), Some(Delivery::Intact), "{tongue} {shape:?}");
        }
    }
}
