//! The serialized form of every variant. Nodes of different versions exchange it, so that it must not change.

use std::collections::BTreeSet;
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use strum::VariantNames;

use super::*;

/// Asserts that each value has this JSON text and is restored from it, and that no variant is missing.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug + VariantNames>(values: &[(T, &str)]) {
    let mut variants = BTreeSet::new();
    for (value, text) in values {
        assert_eq!(serde_json::to_string(value).unwrap(), *text, "{value:?}");
        assert_eq!(serde_json::from_str::<T>(text).unwrap(), *value, "{text}");
        variants.insert(match serde_json::from_str(text).unwrap() {
            Value::String(name) => name,
            Value::Object(object) => object.into_iter().next().unwrap().0,
            other => panic!("{other}"),
        });
    }
    assert_eq!(variants, T::VARIANTS.iter().copied().map(str::to_owned).collect());
}

const LINK: LinkId = LinkId(7);
const SENDER: SenderTag = SenderTag::new(15, 1);

#[test]
fn serialized_sender_has_its_peer_protocols_if_they_are_known() {
    let sender = SENDER.with_peer_protocols(6);
    let text = r#"{"major":15,"minor":1,"peer_protocols":6}"#;
    assert_eq!(serde_json::to_string(&sender).unwrap(), text);
    assert_eq!(serde_json::from_str::<SenderTag>(text).unwrap(), sender);
    assert_eq!(sender.of_dialect(), SENDER);
}

#[test]
fn serialized_commands_are_stable() {
    check(&[
        (
            Command::Open(Open { exclusive: true, keep_other_rooms: false }),
            r#"{"open":{"exclusive":true,"keep_other_rooms":false}}"#,
        ),
        (
            Command::Join(Join {
                when_empty: WhenEmpty::Refuse,
                choice: MemberChoice::Oldest,
                rejoin: RejoinPolicy::Reuse,
            }),
            r#"{"join":{"when_empty":"refuse","choice":"oldest","rejoin":"reuse"}}"#,
        ),
        (
            Command::Connect(Connect {
                net_id: NetId(1),
                connected_to: vec![NetId(2), NetId(u32::MAX)],
                preferred: true,
                admit_before_unlink: false,
            }),
            r#"{"connect":{"net_id":1,"connected_to":[2,4294967295],"preferred":true,"admit_before_unlink":false}}"#,
        ),
        (Command::BecomeMember, r#""become_member""#),
        (Command::TryAnother, r#""try_another""#),
        (Command::RevertAssumption, r#""revert_assumption""#),
        (Command::Unlink, r#""unlink""#),
        (
            Command::ReplyOnBehalf { link: LINK, message: LinkMessage::End, sender: SENDER },
            r#"{"reply_on_behalf":{"link":7,"message":"end","sender":{"major":15,"minor":1}}}"#,
        ),
        (
            Command::Relay { to: Recipient::Member, message: LinkMessage::End, sender: SENDER },
            r#"{"relay":{"to":"member","message":"end","sender":{"major":15,"minor":1}}}"#,
        ),
    ]);
    check(&[
        (WhenEmpty::Refuse, r#""refuse""#),
        (WhenEmpty::BecomeMember, r#""become_member""#),
        (WhenEmpty::BecomeTentativeMember, r#""become_tentative_member""#),
    ]);
    check(&[(MemberChoice::Oldest, r#""oldest""#), (MemberChoice::Random, r#""random""#)]);
    check(&[
        (RejoinPolicy::Replace, r#""replace""#),
        (RejoinPolicy::KeepReceiving, r#""keep_receiving""#),
        (RejoinPolicy::Reuse, r#""reuse""#),
    ]);
    check(&[
        (Recipient::Joiner(LINK), r#"{"joiner":7}"#),
        (Recipient::Member, r#""member""#),
        (Recipient::JoinerOrMember(LINK), r#"{"joiner_or_member":7}"#),
    ]);
}

#[test]
fn serialized_events_are_stable() {
    check(&[
        (Event::Admitted { first: true }, r#"{"admitted":{"first":true}}"#),
        (Event::BecameMember { already: false }, r#"{"became_member":{"already":false}}"#),
        (Event::LinkedToMember { link: LINK }, r#"{"linked_to_member":{"link":7}}"#),
        (Event::LinkedToJoiner { link: LINK }, r#"{"linked_to_joiner":{"link":7}}"#),
        (Event::Refused(Reason::KeyTaken), r#"{"refused":"key_taken"}"#),
        (
            Event::Relayed { link: LINK, side: Side::Joiner, message: LinkMessage::Empty, sender: SENDER },
            r#"{"relayed":{"link":7,"side":"joiner","message":"empty","sender":{"major":15,"minor":1}}}"#,
        ),
        (
            Event::Undeliverable { to: Recipient::Member, reason: Reason::NotJoined },
            r#"{"undeliverable":{"to":"member","reason":"not_joined"}}"#,
        ),
        (
            Event::LinkEnded { link: LINK, side: Side::Member, normal_closure: true },
            r#"{"link_ended":{"link":7,"side":"member","normal_closure":true}}"#,
        ),
        (Event::Evicted(Reason::Replaced), r#"{"evicted":"replaced"}"#),
    ]);
    check(&[(Side::Joiner, r#""joiner""#), (Side::Member, r#""member""#)]);
    check(&[
        (RoomRole::None, r#""none""#),
        (RoomRole::Joiner, r#""joiner""#),
        (RoomRole::Member, r#""member""#),
    ]);
}

#[test]
fn serialized_reasons_are_stable() {
    check(&[
        (Reason::KeyEmpty, r#""key_empty""#),
        (Reason::KeyTooLong, r#""key_too_long""#),
        (Reason::KeyTaken, r#""key_taken""#),
        (Reason::KeyUnknown, r#""key_unknown""#),
        (Reason::DecodeError("bad".into()), r#"{"decode_error":"bad"}"#),
        (Reason::UnknownMessage, r#""unknown_message""#),
        (Reason::WrongFrameKind, r#""wrong_frame_kind""#),
        (
            Reason::EmptyContent { link: LINK, from: Side::Joiner },
            r#"{"empty_content":{"link":7,"from":"joiner"}}"#,
        ),
        (Reason::UnknownRecipient, r#""unknown_recipient""#),
        (Reason::RecipientGone, r#""recipient_gone""#),
        (Reason::NotJoined, r#""not_joined""#),
        (Reason::Unresponsive, r#""unresponsive""#),
        (Reason::Replaced, r#""replaced""#),
        (Reason::SlowConsumer, r#""slow_consumer""#),
        (Reason::ReceiverFull, r#""receiver_full""#),
        (Reason::Overloaded, r#""overloaded""#),
        (Reason::RoomFull, r#""room_full""#),
        (Reason::TooManyRooms, r#""too_many_rooms""#),
        (Reason::MessageTimeout, r#""message_timeout""#),
        (Reason::MessageTooBig, r#""message_too_big""#),
        (Reason::NoFirstFrame, r#""no_first_frame""#),
        (Reason::ShuttingDown, r#""shutting_down""#),
    ]);
}

#[test]
fn serialized_payloads_are_stable() {
    let data = |payload| LinkMessage::Data { payload, last: false };
    check(&[
        (
            data(Payload::Json(r#"{"a":1}"#.into())),
            r#"{"data":{"payload":{"json":"{\"a\":1}"},"last":false}}"#,
        ),
        (LinkMessage::End, r#""end""#),
        (LinkMessage::Error { closes_both: true }, r#"{"error":{"closes_both":true}}"#),
        (LinkMessage::Empty, r#""empty""#),
    ]);
    check(&[
        (Payload::Bytes(vec![0, 255].into()), r#"{"bytes":[0,255]}"#),
        (Payload::Json("[1]".into()), r#"{"json":"[1]"}"#),
        (
            Payload::ObjectFrame { text: "{}".into(), binary: true },
            r#"{"object_frame":{"text":"{}","binary":true}}"#,
        ),
    ]);
}

#[test]
fn serialized_ids_are_stable() {
    let id = PeerId::new(0x1234, 0xffff_0000_0000_0001);
    assert_eq!((id, id.node()), (PeerId(0x1234_0000_0000_0001), 0x1234));
    assert_eq!(serde_json::to_string(&id).unwrap(), "1311673391471656961");
    let key = RoomKey::from("k").with_partition(2);
    let text = r#"{"text":"k","partition":2}"#;
    assert_eq!(serde_json::to_string(&key).unwrap(), text);
    assert_eq!(serde_json::from_str::<RoomKey>(text).unwrap(), key);
}
