//! Tests of [`super`].

use super::*;

const V18: IdLayout = IdLayout::Protobuf { content: 1, ids: &[1] };

fn binary(hex: &str) -> RecordedFrame {
    RecordedFrame::new(FrameKind::Binary, data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap())
}

fn numbers(pairs: &[(u64, u64)]) -> HashMap<Id, Id> {
    pairs.iter().map(|(a, b)| (Id::Number(*a), Id::Number(*b))).collect()
}

#[test]
fn layout_follows_version() {
    assert_eq!(IdLayout::from_version("18.0.0"), V18);
    assert_eq!(IdLayout::from_version("19.1.2"), IdLayout::Protobuf { content: 2, ids: &[1] });
    assert_eq!(IdLayout::from_version("20.1.0"), IdLayout::Protobuf { content: 2, ids: &[1, 2] });
    assert!(matches!(IdLayout::from_version("5.0.0"), IdLayout::Json { .. }));
}

#[test]
fn frames_that_differ_in_ids_only_have_equal_parts() {
    let a = mask(V18, &binary("0a0f08f3b89ba60312076f666665722d4a"));
    let b = mask(V18, &binary("0a0b080012076f666665722d4a"));
    assert_eq!(a.parts, b.parts);
    assert_eq!((a.ids[0].clone(), b.ids[0].clone()), (Id::Number(885_447_795), Id::Number(0)));
    assert_eq!(a.render(|_| "#1".into()), "binary 0a{08:#1;12076f666665722d4a}");
    let other = mask(V18, &binary("0a0b080012076f666665722d4b"));
    assert_ne!(other.parts, b.parts);
}

#[test]
fn unusual_encoding_is_not_cut() {
    for hex in ["0a03088000", "0a810008000801", "ffffff", "7f00"] {
        assert_eq!(mask(V18, &binary(hex)), MaskedFrame::literal(format!("binary {hex}")));
    }
}

#[test]
fn substitution_updates_length() {
    let live = numbers(&[(885_447_795, 5)]);
    let sent = substitute(V18, &binary("0a1008f3b89ba6031208616e737765722d4f"), &live);
    assert_eq!(to_hex(&sent), "0a0c08051208616e737765722d4f");
    for unchanged in ["0a0e084d120a77697468206964203737", "0a03088000", "ffffff", "1a02080b"] {
        assert_eq!(to_hex(&substitute(V18, &binary(unchanged), &live)), unchanged);
    }
}

#[test]
fn sigver_20_content_has_two_ids() {
    let layout = IdLayout::from_version("20.1.0");
    let masked = mask(layout, &binary("120a080010c0c40722026869"));
    assert_eq!(masked.ids, [Id::Number(0), Id::Number(123_456)]);
    let sent = substitute(layout, &binary("120a080010c0c40722026869"), &numbers(&[(123_456, 7)]));
    assert_eq!(to_hex(&sent), "12080800100722026869");
}

#[test]
fn json_ids_are_replaced_in_place() {
    let layout = IdLayout::from_version("8.0.2");
    let payload = RecordedFrame::new(FrameKind::Text, r#"{ "id" : 123456, "data":{"id":123456,"x":1.50}}"#);
    let sent = substitute(layout, &payload, &numbers(&[(123_456, 99)]));
    assert_eq!(String::from_utf8(sent).unwrap(), r#"{ "id" : 99, "data":{"id":123456,"x":1.50}}"#);
    let masked = mask(layout, &payload);
    assert_eq!(masked.render(|_| "#1".into()), r##"text { "id" : #1, "data":{"id":123456,"x":1.50}}"##);
    let string = RecordedFrame::new(FrameKind::Text, r#"{"id":"123456","data":1}"#);
    assert_eq!(substitute(layout, &string, &numbers(&[(123_456, 99)])), br#"{"id":"99","data":1}"#);
    let text = RecordedFrame::new(FrameKind::Text, r#"{"id":"SkX_9-abc","data":1}"#);
    let map = HashMap::from([(Id::Text("SkX_9-abc".into()), Id::Text("other".into()))]);
    assert_eq!(substitute(IdLayout::from_version("13.1.3"), &text, &map), br#"{"id":"other","data":1}"#);
}

#[test]
fn any_layout_recognises_ids_of_every_release() {
    let ids = |payload: &RecordedFrame| mask(IdLayout::from_version("any"), payload).ids;
    assert_eq!(ids(&binary("0a0f08f3b89ba60312076f666665722d4a")), [Id::Number(885_447_795)]);
    assert_eq!(ids(&binary("120a080010c0c40722026869")), [Id::Number(0), Id::Number(123_456)]);
    assert_eq!(ids(&binary("1001")), [], "a number in the field of a content");
    assert_eq!(ids(&RecordedFrame::new(FrameKind::Text, r#"{"id":123456}"#)), [Id::Number(123_456)]);
    assert_eq!(ids(&RecordedFrame::new(FrameKind::Text, "hello")), []);
    let live = numbers(&[(0, 70_000), (123_456, 7)]);
    let sent = substitute(IdLayout::Any, &binary("120a080010c0c40722026869"), &live);
    assert_eq!(to_hex(&sent), "12080800100722026869", "0 is an index, which only JSON dialects have");
    let sent = substitute(IdLayout::Any, &RecordedFrame::new(FrameKind::Text, r#"{"id":0}"#), &live);
    assert_eq!(sent, br#"{"id":70000}"#);
}

#[test]
fn small_numbers_are_literal() {
    assert!(
        !Id::Number(0).is_server_generated()
            && !Id::Number(77).is_server_generated()
            && Id::Number(70_000).is_server_generated()
    );
    assert!(
        Id::Text("SkX_9-abc".into()).is_server_generated() && !Id::Text("0".into()).is_server_generated()
    );
}

#[test]
fn ids_in_close_reasons_are_masked() {
    let reason = r#"ERR_MESSAGE: Unknown message type "undefined" from the 12345 joining peer"#;
    assert_eq!(mask_reason(V18, 4003, reason).ids, [Id::Number(12345)]);
    assert_eq!(mask_reason(V18, 4001, "4001: The key  is an empty string").ids, []);
    let reason = r#"Unknown JSON attribute: {"id":120321834}"#;
    let masked = mask_reason(IdLayout::from_version("7.6.4"), 4001, reason);
    assert_eq!(masked.render(|_| "#1".into()), r##"close 4001 Unknown JSON attribute: {"id":#1}"##);
    let literal = MaskedFrame::literal("close 4000 Unknown message: {\"foo\":1}");
    assert_eq!(mask_reason(IdLayout::from_version("11.0.0"), 4000, r#"Unknown message: {"foo":1}"#), literal);
}
