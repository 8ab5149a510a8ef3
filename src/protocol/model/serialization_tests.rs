//! The serialized form of every variant, in bytes written by hand after the specification of `postcard`.
//! Nodes of different versions exchange it, so that it must not change: a new variant comes last.

use std::collections::BTreeSet;
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use strum::VariantNames;

use super::*;

/// Asserts that each value has these bytes, in hexadecimal digits, and is restored from them, and that no
/// variant is missing.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug + VariantNames>(values: &[(T, &str)]) {
    let mut variants = BTreeSet::new();
    for (value, bytes) in values {
        assert_eq!(serialized(value), *bytes, "{value:?}");
        assert_eq!(deserialized::<T>(bytes), *value, "{bytes}");
        variants.insert(match serde_json::to_value(value).unwrap() {
            Value::String(name) => name,
            Value::Object(object) => object.into_iter().next().unwrap().0,
            other => panic!("{other}"),
        });
    }
    assert_eq!(variants, T::VARIANTS.iter().copied().map(str::to_owned).collect());
}

fn serialized(value: &impl Serialize) -> String {
    let bytes = postcard::to_allocvec(value).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn deserialized<T: DeserializeOwned>(bytes: &str) -> T {
    let bytes: Vec<u8> = bytes.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    postcard::from_bytes(&bytes).unwrap()
}

const LINK: LinkId = LinkId(7);
const SENDER: SenderTag = SenderTag::new(15, 1);

#[test]
fn serialized_sender_has_its_peer_protocols() {
    let sender = SENDER.with_peer_protocols(6);
    assert_eq!(serialized(&sender), "0f 01 06");
    assert_eq!(deserialized::<SenderTag>("0f 01 06"), sender);
    assert_eq!(sender.of_dialect(), SENDER);
}

#[test]
fn serialized_commands_are_stable() {
    check(&[
        (Command::Open(Open { exclusive: true, keep_other_rooms: false }), "00 01 00"),
        (
            Command::Join(Join {
                when_empty: WhenEmpty::Refuse,
                choice: MemberChoice::Oldest,
                rejoin: RejoinPolicy::Reuse,
            }),
            "01 00 00 02",
        ),
        (
            Command::Connect(Connect {
                net_id: NetId(1),
                connected_to: vec![NetId(2), NetId(u32::MAX)],
                preferred: true,
                admit_before_unlink: false,
            }),
            "02 01 02 02 ff ff ff ff 0f 01 00",
        ),
        (Command::BecomeMember, "03"),
        (Command::TryAnother, "04"),
        (Command::RevertAssumption, "05"),
        (Command::Unlink, "06"),
        (
            Command::ReplyOnBehalf { link: LINK, message: LinkMessage::End, sender: SENDER },
            "07 07 01 0f 01 00",
        ),
        (
            Command::Relay { to: Recipient::Member, message: LinkMessage::End, sender: SENDER },
            "08 01 01 0f 01 00",
        ),
    ]);
    check(&[
        (WhenEmpty::Refuse, "00"),
        (WhenEmpty::BecomeMember, "01"),
        (WhenEmpty::BecomeTentativeMember, "02"),
    ]);
    check(&[(MemberChoice::Oldest, "00"), (MemberChoice::Random, "01")]);
    check(&[(RejoinPolicy::Replace, "00"), (RejoinPolicy::KeepReceiving, "01"), (RejoinPolicy::Reuse, "02")]);
    check(&[
        (Recipient::Joiner(LINK), "00 07"),
        (Recipient::Member, "01"),
        (Recipient::JoinerOrMember(LINK), "02 07"),
    ]);
}

#[test]
fn serialized_events_are_stable() {
    check(&[
        (Event::Admitted { first: true }, "00 01"),
        (Event::BecameMember { already: false }, "01 00"),
        (Event::LinkedToMember { link: LINK }, "02 07"),
        (Event::LinkedToJoiner { link: LINK }, "03 07"),
        (Event::Refused(Reason::KeyTaken), "04 02"),
        (
            Event::Relayed { link: LINK, side: Side::Joiner, message: LinkMessage::Empty, sender: SENDER },
            "05 07 00 03 0f 01 00",
        ),
        (Event::Undeliverable { to: Recipient::Member, reason: Reason::NotJoined }, "06 01 0a"),
        (Event::LinkEnded { link: LINK, side: Side::Member, normal_closure: true }, "07 07 01 01"),
        (Event::Evicted(Reason::Replaced), "08 0c"),
    ]);
    check(&[(Side::Joiner, "00"), (Side::Member, "01")]);
    check(&[(RoomRole::None, "00"), (RoomRole::Joiner, "01"), (RoomRole::Member, "02")]);
}

#[test]
fn serialized_reasons_are_stable() {
    check(&[
        (Reason::KeyEmpty, "00"),
        (Reason::KeyTooLong, "01"),
        (Reason::KeyTaken, "02"),
        (Reason::KeyUnknown, "03"),
        (Reason::DecodeError("bad".into()), "04 03 62 61 64"),
        (Reason::UnknownMessage, "05"),
        (Reason::WrongFrameKind, "06"),
        (Reason::EmptyContent { link: LINK, from: Side::Joiner }, "07 07 00"),
        (Reason::UnknownRecipient, "08"),
        (Reason::RecipientGone, "09"),
        (Reason::NotJoined, "0a"),
        (Reason::Unresponsive, "0b"),
        (Reason::Replaced, "0c"),
        (Reason::SlowConsumer, "0d"),
        (Reason::ReceiverFull, "0e"),
        (Reason::Overloaded, "0f"),
        (Reason::TooManyMembers, "10"),
        (Reason::TooManyRooms, "11"),
        (Reason::MessageTimeout, "12"),
        (Reason::MessageTooBig, "13"),
        (Reason::NoFirstFrame, "14"),
        (Reason::ShuttingDown, "15"),
        (Reason::Moved, "16"),
        (Reason::Unreachable, "17"),
        (Reason::TooManyJoiners, "18"),
        (Reason::KeyForbidden, "19"),
        (Reason::TokenExpired, "1a"),
        (Reason::MemberKept, "1b"),
    ]);
}

#[test]
fn serialized_payloads_are_stable() {
    let data = |payload| LinkMessage::Data { payload, last: false };
    check(&[
        (data(Payload::Json(r#"{"a":1}"#.into())), "00 01 07 7b 22 61 22 3a 31 7d 00"),
        (LinkMessage::End, "01"),
        (LinkMessage::Error { closes_both: true }, "02 01"),
        (LinkMessage::Empty, "03"),
    ]);
    check(&[
        (Payload::Bytes(vec![0, 255].into()), "00 02 00 ff"),
        (Payload::Json("[1]".into()), "01 03 5b 31 5d"),
        (Payload::ObjectFrame { text: "{}".into(), binary: true }, "02 02 7b 7d 01"),
    ]);
}

#[test]
fn serialized_ids_are_stable() {
    let id = PeerId::new(0x1234, 0xffff_0000_0000_0001);
    assert_eq!(id, PeerId(0x1234_0000_0000_0001));
    let key = RoomKey::from("k").with_partition(2);
    assert_eq!(serialized(&key), "01 6b 02");
    assert_eq!(deserialized::<RoomKey>("01 6b 02"), key);
}
