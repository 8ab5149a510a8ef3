//! Properties that hold for any frames, in any order.

use proptest::prelude::*;

use super::*;
use crate::protocol::dialect::Release;

fn any_frame() -> impl Strategy<Value = Message> {
    let tags = [0x08u8, 0x0a, 0x10, 0x12, 0x18, 0x1a, 0x20, 0x22, 0x28, 0x01, 0x00, 0xff, 0x03];
    let bytes = prop::collection::vec(prop_oneof![prop::sample::select(tags.to_vec()), any::<u8>()], 0..24);
    let names = [
        "type", "key", "index", "joinkey", "offer", "answer", "join", "open", "id", "data", "ping", "pong",
        "x",
    ];
    let values = [
        "null",
        "0",
        "1",
        "-1",
        "1e300",
        "7",
        "\"\"",
        "\"k\"",
        "\"open\"",
        "\"join\"",
        "\"7\"",
        "true",
        "[]",
        "{\"a\":1.50}",
    ];
    let attribute = (prop::sample::select(names.to_vec()), prop::sample::select(values.to_vec()));
    let json = prop::collection::vec(attribute, 0..4).prop_map(|attributes| {
        let inner: Vec<String> =
            attributes.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", inner.join(","))
    });
    prop_oneof![
        4 => bytes.prop_map(|bytes| Message::Binary(bytes.into())),
        3 => json.clone().prop_map(Message::text),
        1 => json.prop_map(|text| Message::Binary(text.into_bytes().into())),
        1 => prop::sample::select(vec!["5", "null", "[]", "\"open\""]).prop_map(Message::text),
        1 => ".{0,12}".prop_map(Message::text),
    ]
}

proptest! {
    /// Whatever comes, in whatever dialect: nothing panics, and as long as nothing is known there is a
    /// deadline.
    #[test]
    fn hostile_frames_are_survived(
        frames in prop::collection::vec((any_frame(), 0u64..3_000), 0..12),
        release in prop::sample::select(Release::ALL.to_vec()),
        auto in any::<bool>(),
        path in prop::sample::select(vec!["/", "/k", "//a/b"]),
    ) {
        let protocols = if auto { "auto".to_owned() } else { release.to_string() };
        let mut talk = Talk::open(&protocols, path);
        let mut now = 0;
        for (frame, pause) in frames {
            now += pause;
            talk.until(now);
            if talk.conversation.candidates().len() == Dialect::ALL.len() {
                prop_assert!(talk.conversation.deadline().is_some());
            }
            talk.frame(now, &frame);
            talk.event(now, Event::Admitted { first: true });
            talk.event(now, Event::LinkedToJoiner { link: LinkId(7) });
            talk.event(now, relayed(Side::Member, release.dialect()));
            talk.event(now, Event::LinkEnded { link: LinkId(7), side: Side::Member, normal_closure: false });
            talk.did();
        }
    }

    /// Evidence only takes away, and its order does not matter as long as nothing was said on a guess.
    #[test]
    fn evidence_only_narrows(first in any_frame(), second in any_frame()) {
        let auto = policy("auto").releases;
        let one = |set, frame| narrow(FrameFacts::new(frame), History::default(), set);
        let (a, b) = (one(one(auto, &first), &second), one(one(auto, &second), &first));
        prop_assert_eq!(a, b);
        prop_assert!(a.len() <= one(auto, &first).len());
    }
}

#[test]
fn the_probe_is_one_frame() {
    assert_eq!(PROBE, Bytes::from_static(&[0x10, 0x01, 0x20, 0x01]));
}
