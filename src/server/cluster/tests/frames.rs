//! The bytes of messages between nodes.

use strum::VariantNames as _;

use super::*;
use crate::server::cluster::wire::{CALL_SESSION, Hello, OwnerMessage, append, decode, split};

fn frame(session: u32, message: &impl serde::Serialize) -> String {
    let mut bytes = Vec::new();
    append(&mut bytes, session, message).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// Bytes written by hand; the numbers of the variants never change.
#[test]
fn frames_are_stable() {
    let link = LinkId(300);
    let edge: [(EdgeMessage, &str); 14] = [
        (
            EdgeMessage::Enter(RoomKey::from("k"), Command::BecomeMember),
            "09 00 00 00 02 00 00 00 00 01 6b 00 03",
        ),
        (EdgeMessage::Command(Command::Unlink), "06 00 00 00 02 00 00 00 01 06"),
        (EdgeMessage::DropMembership, "05 00 00 00 02 00 00 00 02"),
        (EdgeMessage::MarkMixed(link), "07 00 00 00 02 00 00 00 03 ac 02"),
        (EdgeMessage::Leave(true), "06 00 00 00 02 00 00 00 04 01"),
        (EdgeMessage::CloseJoiner, "05 00 00 00 02 00 00 00 05"),
        (EdgeMessage::Full(true), "06 00 00 00 02 00 00 00 06 01"),
        (
            EdgeMessage::Ping { sent: 300, generation: 2, others: vec![3] },
            "0a 00 00 00 02 00 00 00 07 ac 02 02 01 03",
        ),
        (EdgeMessage::Bye, "05 00 00 00 02 00 00 00 08"),
        (EdgeMessage::Find(RoomKey::from("k")), "08 00 00 00 02 00 00 00 09 01 6b 00"),
        (
            EdgeMessage::Ask { ticket: 300, question: Question::HasStream(StreamName { form: 9, id: 1 }) },
            "0a 00 00 00 02 00 00 00 0a ac 02 00 09 01",
        ),
        (
            EdgeMessage::Ask {
                ticket: 300,
                question: Question::Post(StreamName { form: 9, id: 1 }, "{}".into()),
            },
            "0d 00 00 00 02 00 00 00 0a ac 02 01 09 01 02 7b 7d",
        ),
        (
            EdgeMessage::Ask { ticket: 3, question: Question::HasListener("abc".into()) },
            "0b 00 00 00 02 00 00 00 0a 03 02 03 61 62 63",
        ),
        (
            EdgeMessage::Ask { ticket: 3, question: Question::KeepsHandle("abc".into(), 300) },
            "0d 00 00 00 02 00 00 00 0a 03 03 03 61 62 63 ac 02",
        ),
    ];
    assert_eq!(edge.len(), EdgeMessage::VARIANTS.len() + Question::VARIANTS.len() - 1);
    for (message, bytes) in edge {
        assert_eq!(frame(2, &message), bytes);
    }
    let owner: [(OwnerMessage, &str); 9] = [
        (OwnerMessage::Event(Event::Admitted { first: true }), "07 00 00 00 02 00 00 00 00 00 01"),
        (OwnerMessage::Role(RoomRole::Member), "06 00 00 00 02 00 00 00 01 02"),
        (OwnerMessage::Hold(Hold::NoReceiver), "06 00 00 00 02 00 00 00 02 02"),
        (OwnerMessage::Relieved, "05 00 00 00 02 00 00 00 03"),
        (OwnerMessage::Overflow, "05 00 00 00 02 00 00 00 04"),
        (
            OwnerMessage::Pong { sent: 300, generation: 2, others: Vec::new() },
            "09 00 00 00 02 00 00 00 05 ac 02 02 00",
        ),
        (OwnerMessage::Bye, "05 00 00 00 02 00 00 00 06"),
        (OwnerMessage::Has(RoomKey::from("k")), "08 00 00 00 02 00 00 00 07 01 6b 00"),
        (OwnerMessage::Answer { ticket: 300, yes: true }, "08 00 00 00 02 00 00 00 08 ac 02 01"),
    ];
    assert_eq!(owner.len(), OwnerMessage::VARIANTS.len());
    for (message, bytes) in owner {
        assert_eq!(frame(2, &message), bytes);
    }
    assert_eq!(frame(0, &Hello { version: 300, oldest: 1 }), "07 00 00 00 00 00 00 00 ac 02 01");
    assert_eq!(Call::VARIANTS.len(), 1);
    assert_eq!(frame(CALL_SESSION, &Call::Connect("abc".into())), "09 00 00 00 ff ff ff ff 00 03 61 62 63");
    assert_eq!(frame(CALL_SESSION, &true), "05 00 00 00 ff ff ff ff 01");
}

#[test]
fn frames_are_read_one_by_one() {
    let mut bytes = Vec::new();
    append(&mut bytes, 1, &EdgeMessage::Leave(false)).unwrap();
    let first = bytes.len();
    append(&mut bytes, 2, &EdgeMessage::Bye).unwrap();
    for end in 0..first {
        assert_eq!(split(&bytes[..end], 100).unwrap(), None);
    }
    let (session, message, length) = split(&bytes, 100).unwrap().unwrap();
    assert_eq!(
        (session, length, decode::<EdgeMessage>(message).unwrap()),
        (1, first, EdgeMessage::Leave(false))
    );
    // The greeting of a later version may be longer.
    assert_eq!(decode::<Hello>(&[7, 2, 9, 9]).unwrap(), Hello { version: 7, oldest: 2 });
    // A variant of a later version, a frame that is too long, and one that is too short.
    assert!(decode::<EdgeMessage>(&[99]).is_err());
    assert!(split(&[101, 0, 0, 0], 100).is_err());
    assert!(split(&[3, 0, 0, 0, 1, 1, 1], 100).is_err());
}
