//! Evidence by which a client is recognised: every client of which more is known than before, and no other.

use super::*;

fn why(talk: &mut Talk) -> String {
    talk.did();
    std::mem::take(&mut talk.why).join(", ")
}

#[test]
fn pinned_dialect_is_reported_at_once() {
    for protocols in ["sigver-7.1.0", "sigver-13", "sigver-18", "sigver-20", "protobuf-v1", "current"] {
        let mut talk = Talk::open(protocols, "/k");
        assert_eq!(why(&mut talk), "pinned", "{protocols}");
    }
    for protocols in ["auto", "json", "sigver-18,sigver-20"] {
        let mut talk = Talk::open(protocols, "/k");
        assert_eq!(why(&mut talk), "", "{protocols}");
    }
}

#[test]
fn silence_counts_until_first_frame() {
    let silent = || {
        let mut talk = Talk::open("auto", "/k");
        talk.pong(20).until(400).event(401, Event::Admitted { first: true });
        assert_eq!(why(&mut talk), "silence");
        talk
    };
    // Frames that only clients of that family send, also if they do not show which of them this is.
    let mut talk = silent();
    let before = talk.may_be();
    talk.frame(500, &Message::Binary(Bytes::from_static(&[0x18, 1])));
    assert_eq!((why(&mut talk), talk.may_be()), ("later frame".into(), before));
    talk.frame(600, &Message::Binary(Bytes::from_static(&[0x18, 1])));
    assert_eq!(why(&mut talk), "");
    let mut talk = silent();
    talk.frame(500, &Message::Binary(Bytes::from_static(&[0x08, 1])));
    assert_eq!(why(&mut talk), "corrected");
}
