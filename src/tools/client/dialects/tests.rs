//! The clients against frames that were recorded on the Node.js servers, or written by hand after them.

use serde_json::json;

use super::*;
use crate::tools::client::message::{Delivery, MessageBody, MessageKind};

fn client_of(name: &str, role: Role) -> Box<dyn SyntheticClient> {
    new_client(Protocol::from_name(name).unwrap(), role, "k1")
}

fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.replace(' ', "").as_bytes()).unwrap()
}

fn events(actions: Vec<ClientAction>) -> Vec<ClientEvent> {
    let event = actions.into_iter().filter_map(|action| match action {
        ClientAction::Report(event) => Some(event),
        ClientAction::Send(_) | ClientAction::Close(_) => None,
    });
    event.collect()
}

fn is_unexpected(actions: &[ClientAction]) -> bool {
    actions.iter().any(|action| matches!(action, ClientAction::Report(ClientEvent::Unexpected(_))))
}

fn sends(text: &str) -> Vec<ClientAction> {
    vec![ClientAction::Send(ClientFrame::Text(text.to_owned()))]
}

/// Returns the only message among the reported events.
fn body(actions: Vec<ClientAction>) -> (Option<JoinerId>, Option<MessageKind>, MessageBody) {
    match events(actions).as_slice() {
        [ClientEvent::Message { from, message }] => (from.clone(), message.kind, message.body.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_of_every_dialect() {
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
        assert_eq!(client_of(name, Role::Member).on_open(None), sends(opens), "{name}");
        assert_eq!(client_of(name, Role::Joiner).on_open(Some(&offer)), sends(joins), "{name}");
    }
    let joins = json!({"join": "k1", "data": {"offer": offer.body()}}).to_string();
    assert_eq!(client_of("sigver-7", Role::Joiner).on_open(Some(&offer)), sends(&joins));
    for name in ["sigver-15", "sigver-15.1", "sigver-16", "sigver-18"] {
        assert_eq!(client_of(name, Role::Joiner).on_open(None), [], "{name}");
    }
    let connect = vec![ClientAction::Send(ClientFrame::Binary(hex("1a02 080b")))];
    assert_eq!(client_of("sigver-19", Role::Member).on_open(None), connect);
    assert_eq!(client_of("sigver-20", Role::Member).on_open(None), connect);
}

#[test]
fn answers_of_every_dialect() {
    for (name, role, frame, expected) in [
        ("sigver-6", Role::Joiner, r#"{"reachable":"true"}"#, ClientEvent::LinkedToMember),
        ("sigver-7.6", Role::Member, r#"{"isKeyOk":true}"#, ClientEvent::BecameMember),
        ("sigver-7.6", Role::Joiner, r#"{"isKeyOk":true}"#, ClientEvent::LinkedToMember),
        ("sigver-8", Role::Joiner, r#"{"isKeyOk":false}"#, ClientEvent::Rejected("isKeyOk: false".into())),
        ("sigver-9", Role::Member, r#"{"opened":true}"#, ClientEvent::BecameMember),
        ("sigver-9", Role::Joiner, r#"{"opened":false}"#, ClientEvent::LinkedToMember),
        ("sigver-11", Role::Member, r#"{"first":true}"#, ClientEvent::BecameMember),
        ("sigver-13", Role::Joiner, r#"{"first":false}"#, ClientEvent::LinkedToMember),
        // An answer for several dialects: each client looks for its own attribute.
        (
            "sigver-8",
            Role::Joiner,
            r#"{"opened":true,"isKeyOk":false,"first":true}"#,
            ClientEvent::Rejected("isKeyOk: false".into()),
        ),
        (
            "sigver-9",
            Role::Joiner,
            r#"{"opened":true,"isKeyOk":false,"first":true}"#,
            ClientEvent::BecameMember,
        ),
    ] {
        assert_eq!(events(client_of(name, role).on_text(frame)), [expected], "{name} {frame}");
    }
    for name in ["sigver-15", "sigver-15.1", "sigver-16", "sigver-18"] {
        assert_eq!(
            events(client_of(name, Role::Member).on_binary(&hex("1001"))),
            [ClientEvent::BecameMember],
            "{name}"
        );
        assert_eq!(
            events(client_of(name, Role::Joiner).on_binary(&hex("1000"))),
            [ClientEvent::LinkedToMember],
            "{name}"
        );
    }
}

#[test]
fn answer_of_another_release_is_unexpected() {
    assert!(is_unexpected(&client_of("sigver-8", Role::Member).on_text(r#"{"opened":true}"#)));
    assert!(is_unexpected(&client_of("sigver-9", Role::Member).on_text(r#"{"ping":true}"#)));
    assert!(is_unexpected(&client_of("sigver-7.6", Role::Joiner).on_text(r#"{"first":false}"#)));
}

/// netflux 0.10.3 closes on a message of no joiner, but not on an empty one (measured).
#[test]
fn opener_of_7_closes_on_message_of_no_joiner() {
    let closes = client_of("sigver-7", Role::Member).on_text(r#"{"isKeyOk":true}"#);
    assert!(is_unexpected(&closes) && closes.contains(&ClientAction::Close(None)));
    assert_eq!(client_of("sigver-7", Role::Member).on_text(r#"{"isKeyOk":true,"id":0,"data":{}}"#), []);
}

#[test]
fn client_of_20_connects_twice_and_counts_answers() {
    let mut member = client_of("sigver-20", Role::Member);
    member.on_open(None);
    let made = member.on_binary(&hex("2001"));
    assert_eq!(
        made,
        [
            ClientAction::Report(ClientEvent::BecameMember),
            ClientAction::Send(ClientFrame::Binary(hex("1a02 080b")))
        ]
    );
    assert_eq!(member.on_binary(&hex("2001")), []);
    assert!(is_unexpected(&member.on_binary(&hex("2001"))));
    // isFirst, of another release, is ignored (netflux 4.3, measured).
    assert_eq!(member.on_binary(&hex("1001")), []);
}

#[test]
fn content_is_decoded_in_layout_of_dialect() {
    for (name, frame) in [
        ("sigver-15", "0a0c 0807 1a08 616e737765722d4a"),
        ("sigver-15.1", "0a0c 0807 1208 616e737765722d4a"),
        ("sigver-16", "0a0c 0807 1208 616e737765722d4a"),
        ("sigver-18", "0a0c 0807 1208 616e737765722d4a"),
        ("sigver-19", "120c 0807 1a08 616e737765722d4a"),
        ("sigver-20", "120e 0807 1000 2208 616e737765722d4a"),
    ] {
        let (from, _, body) = body(client_of(name, Role::Member).on_binary(&hex(frame)));
        assert_eq!(
            (from, body),
            (Some(JoinerId::from_number(7)), MessageBody::Bytes(b"answer-J".to_vec())),
            "{name}"
        );
    }
}

#[test]
fn content_in_another_layout_is_not_decoded() {
    let b = hex("0a0c 0807 1a08 616e737765722d4a");
    let undecodable = client_of("sigver-15.1", Role::Member).on_binary(&b);
    assert!(is_unexpected(&undecodable) && undecodable.contains(&ClientAction::Close(Some(4010))));
    // Without data in the field of 19, the message means that the other client has left.
    let d = hex("120e 0807 1000 2208 616e737765722d4a");
    assert_eq!(
        events(client_of("sigver-19", Role::Member).on_binary(&d)),
        [ClientEvent::PeerLeft { from: Some(JoinerId::from_number(7)) }]
    );
}

#[test]
fn end_and_departure_are_distinguished() {
    let (left, end) = (ClientEvent::PeerLeft { from: None }, ClientEvent::End { from: None });
    for (name, frame, expected) in [
        ("sigver-15", "0a04 0800 2001", &left),
        ("sigver-15", "0a04 0800 1a00", &end),
        ("sigver-15.1", "0a04 0800 1801", &left),
        ("sigver-16", "0a04 0800 2001", &end),
        ("sigver-18", "0a04 0800 1801", &left),
        ("sigver-19", "1202 0801", &left),
        ("sigver-20", "1204 0800 1007", &left),
    ] {
        assert_eq!(
            &events(client_of(name, Role::Joiner).on_binary(&hex(frame))),
            std::slice::from_ref(expected),
            "{name}"
        );
    }
    let mut joiner = client_of("sigver-13", Role::Joiner);
    joiner.on_text(r#"{"first":false}"#);
    assert_eq!(events(joiner.on_text(r#"{"unavailable":"H1x"}"#)), [left]);
    for (name, answer, frame, id) in [
        ("sigver-7.6", r#"{"isKeyOk":true}"#, r#"{"id":5,"unavailable":true}"#, json!(5)),
        ("sigver-9", r#"{"opened":true}"#, r#"{"unavailable":5}"#, json!(5)),
        ("sigver-11", r#"{"first":true}"#, r#"{"unavailable":"H1x"}"#, json!("H1x")),
    ] {
        let mut member = client_of(name, Role::Member);
        member.on_text(answer);
        assert_eq!(
            events(member.on_text(frame)),
            [ClientEvent::PeerLeft { from: Some(JoinerId(id)) }],
            "{name}"
        );
    }
}

#[test]
fn heartbeats_follow_dialect() {
    let pong = ClientAction::Send(ClientFrame::Binary(hex("2801")));
    assert_eq!(
        client_of("sigver-15", Role::Member).on_binary(&hex("2001")),
        [pong.clone(), ClientAction::Report(ClientEvent::HeartbeatRequest)]
    );
    assert_eq!(
        client_of("sigver-15.1", Role::Joiner).on_binary(&hex("10012001")),
        [pong, ClientAction::Report(ClientEvent::HeartbeatRequest)]
    );
    assert_eq!(
        client_of("sigver-18", Role::Member).on_binary(&hex("2001")),
        [ClientAction::Report(ClientEvent::HeartbeatRequest)]
    );
    let mut thirteen = client_of("sigver-13", Role::Member);
    assert_eq!(
        thirteen.on_text(r#"{"ping":true}"#)[0],
        ClientAction::Send(ClientFrame::Text(r#"{"pong":true}"#.into()))
    );
    for protocol in Protocol::all() {
        let beat = new_client(protocol, Role::Member, "k").heartbeat();
        let expected = match protocol.name() {
            "sigver-16" | "sigver-18" => Some(hex("2001")),
            "sigver-15" | "sigver-15.1" => None,
            _ if protocol == Protocol::Signaller || protocol.is_json() => None,
            _ => Some(hex("0801")),
        };
        assert_eq!(beat, expected.map(ClientFrame::Binary), "{protocol}");
    }
}

/// An opener of 1 to 5 numbers its joiners in the order of their arrival.
#[test]
fn index_beyond_joiners_is_unexpected() {
    let mut member = client_of("sigver-5", Role::Member);
    assert!(is_unexpected(&member.on_text(r#"{"offer":{"x":1},"index":"0"}"#)));
    assert_eq!(events(member.on_text(r#"{"type":"join"}"#)), [ClientEvent::JoinerArrived]);
    let (from, kind, _) = body(member.on_text(r#"{"offer":{"x":1},"index":"0"}"#));
    assert_eq!((from.clone(), kind), (Some(JoinerId(json!("0"))), Some(MessageKind::Offer)));
    let answer = member.encode(from.as_ref(), &TestMessage::new(MessageKind::Answer, "m")).unwrap();
    let ClientFrame::Text(answer) = answer else { panic!("bytes") };
    assert!(answer.starts_with(r#"{"index":"0","answer":{"note":"m""#), "{answer}");
}

#[test]
fn unsupported_messages_are_not_encoded() {
    let encodable = |name: &str, role| {
        let mut client = client_of(name, role);
        let encoded = MessageKind::ALL
            .iter()
            .copied()
            .filter(|kind| client.encode(None, &TestMessage::new(*kind, "m")).is_some());
        encoded.collect::<Vec<_>>()
    };
    assert_eq!(encodable("sigver-1", Role::Member), [MessageKind::Offer, MessageKind::Candidate]);
    assert_eq!(encodable("sigver-6", Role::Joiner), [MessageKind::Offer]);
    assert_eq!(encodable("sigver-6", Role::Member), []);
    assert_eq!(encodable("sigver-9", Role::Joiner), MessageKind::ALL[..4]);
    assert_eq!(encodable("sigver-20", Role::Joiner), MessageKind::ALL);
    let mut six = client_of("sigver-6", Role::Member);
    six.on_text(r#"{"id":5,"data":{"offer":{"x":1}},"offer":{"x":1}}"#);
    assert!(six.encode(None, &TestMessage::new(MessageKind::Answer, "m")).is_some());
    assert!(six.encode(None, &TestMessage::new(MessageKind::Answer, "m")).is_none());
}

#[test]
fn each_dialect_decodes_its_own_messages() {
    for protocol in Protocol::all() {
        let (mut one, mut other) =
            (new_client(protocol, Role::Joiner, "k"), new_client(protocol, Role::Joiner, "k"));
        let answer = match protocol.name() {
            "sigver-6" => continue,
            "sigver-7.6" | "sigver-8" => r#"{"isKeyOk":true}"#,
            "sigver-9" => r#"{"opened":false}"#,
            "sigver-11" | "sigver-13" => r#"{"first":false}"#,
            _ => "",
        };
        if !answer.is_empty() {
            other.on_text(answer);
        }
        for &kind in MessageKind::ALL {
            let sent = TestMessage::new(kind, "m");
            let actions = match one.encode(None, &sent) {
                Some(ClientFrame::Text(text)) => other.on_text(&text),
                Some(ClientFrame::Binary(bytes)) => other.on_binary(&bytes),
                None => continue,
            };
            let event = events(actions);
            let [ClientEvent::Message { message, .. }] = event.as_slice() else {
                panic!("{protocol} {kind:?}: {event:?}")
            };
            assert_eq!(sent.compare(message), Some(Delivery::Intact), "{protocol} {kind:?}");
        }
    }
}
