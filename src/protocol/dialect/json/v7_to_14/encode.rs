//! What a client of sigver 7 to 14 hears of what happens in its room.

use std::fmt::{self, Write as _};
use std::time::Instant;

use bytestring::ByteString;

use super::super::js_semantics::digits;
use super::super::v6::said_text;
use super::{
    LastRequest, MAX_JOINERS, OpenerConfirmation, PROOF, V7To14Codec, confirms_keys, from_11, is_7, is_8,
    is_9, up_to_7,
};
use crate::protocol::dialect::{Dialect, Family, OutputSink, Release};
use crate::protocol::frame::Message;
use crate::protocol::model::{Event, LinkId, LinkMessage, Payload, Reason, Recipient, Side};

/// The answer to a `{"key":K}` with an offer of nobody in it, which only those of 7.0 answer: the others have heard that
/// their key is accepted, and look no further (netflux 0.10.3, 0.10.8 and 1.0.0-rc.3, measured).
const WHO_ARE_YOU: &str = concat!(
    r#"{"isKeyOk":true,"id":0,"data":{"offer":{"type":"offer","sdp":"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"#,
    r#"a=group:BUNDLE 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:none\r\n"#,
    r#"a=ice-pwd:nobodynobodynobodynobody\r\na=fingerprint:sha-256 00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00"#,
    r#":00:00:00:00:00:00:00:00:00:00:00:00:00:00\r\na=setup:actpass\r\na=mid:0\r\na=sctp-port:5000\r\n"}}}"#,
);

/// An id as it is written, without a tree: 1,000 instructions fewer.
enum Id {
    Number(usize),
    /// Eight hexadecimal digits, in quotes.
    Text(u32),
}

impl Id {
    fn len(&self) -> usize {
        match self {
            Id::Number(number) => digits(*number),
            Id::Text(_) => 10,
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Id::Number(number) => write!(f, "{number}"),
            Id::Text(number) => write!(f, "\"{number:08x}\""),
        }
    }
}

impl V7To14Codec {
    /// The id by which an opener knows a joiner.
    fn id_of(&mut self, link: LinkId) -> Id {
        match &mut self.joiners {
            Some(joiners) => Id::Number(joiners.index_of(link)),
            None if self.rules.all(from_11) => Id::Text(link.0),
            None => Id::Number(link.0 as usize),
        }
    }

    pub(in crate::protocol::dialect) fn encode(
        &mut self,
        event: Event,
        now: Instant,
        out: &mut dyn OutputSink,
    ) {
        match event {
            Event::Admitted { first } => self.admitted(first, out),
            Event::BecameMember { .. } => {}
            Event::LinkedToMember { .. } => self.answer(false, true, false, out),
            Event::LinkedToJoiner { link } => {
                if let Some(joiners) = &mut self.joiners {
                    joiners.index_of(link);
                }
                if self.rules.any(|release| release == Release::V6_0_0) && self.waiting.len() < MAX_JOINERS {
                    self.waiting.push(link);
                }
            }
            Event::Relayed { link, side, message: LinkMessage::Data { payload, .. }, sender } => {
                let by_json = Dialect::from_tag(sender).is_some_and(|from| from.family() == Family::Json);
                if self.proof == OpenerConfirmation::Wanted && side == Side::Member && by_json {
                    self.proof = OpenerConfirmation::WantedBy(now + PROOF);
                }
                out.text(self.relayed(link, side, payload));
            }
            // The dialects have no words for these.
            Event::Relayed {
                message: LinkMessage::End | LinkMessage::Error { .. } | LinkMessage::Empty,
                ..
            } => {}
            Event::LinkEnded { link, side, normal_closure } => {
                self.link_ended(link, side, normal_closure, out)
            }
            Event::Undeliverable { to, reason } => self.went_nowhere(to, reason, out),
            Event::Refused(Reason::KeyUnknown) if self.rules.any(from_11) => {
                // It is told that it would be the first, and has to open the key itself.
                self.joined = false;
                self.answer(true, false, true, out);
            }
            Event::Refused(reason) => {
                if self.rules.any(confirms_keys) {
                    out.static_text("{\"isKeyOk\":false}");
                }
                out.close(self.closing(&reason));
            }
            Event::Evicted(reason) => out.close(self.closing(&reason)),
        }
    }

    /// The same answer with a question in it.
    pub(in crate::protocol::dialect) fn question(&mut self) -> Option<Message> {
        let by_key = self.asked == LastRequest::Open && self.rules.any(is_7);
        let unclear = by_key && self.rules.any(|release| release == Release::V7_6_4);
        self.questioned = unclear;
        unclear.then(|| Message::text(ByteString::from_static(WHO_ARE_YOU)))
    }

    fn admitted(&mut self, first: bool, out: &mut dyn OutputSink) {
        if self.asked == LastRequest::Open {
            let first = first || !self.rules.only(Release::V11_0_0);
            if self.rules.all(up_to_7) {
                return self.key_accepted(out);
            }
            return self.answer(true, true, first, out);
        }
        self.opened = true;
        self.joined = false;
        if self.rules.any(confirms_keys) {
            self.proof = OpenerConfirmation::Wanted;
        }
        self.answer(true, false, true, out);
    }

    /// The answer to a `{"key":K}`: nothing to an opener of 6, 7.0 or 7.1, unless it may be one of 7.6. Then those of 7
    /// get an id and data, without which they close (netflux 0.10.3, measured); no joiner ever has that id.
    fn key_accepted(&self, out: &mut dyn OutputSink) {
        if self.questioned || !self.rules.any(|release| release == Release::V7_6_4) {
            return;
        }
        let answer = if self.rules.any(is_7) {
            "{\"isKeyOk\":true,\"id\":0,\"data\":{}}"
        } else {
            "{\"isKeyOk\":true}"
        };
        out.static_text(answer);
    }

    /// One answer with the attribute that each release looks for.
    fn answer(&self, opened: bool, key_ok: bool, first: bool, out: &mut dyn OutputSink) {
        let mut text = String::new();
        let mut attribute = |name: &str, value: bool| {
            let before = if text.is_empty() { '{' } else { ',' };
            // Writing to a string does not fail.
            let _ = write!(text, "{before}\"{name}\":{value}");
        };
        if self.rules.any(is_9) {
            attribute("opened", opened);
        }
        if self.rules.any(confirms_keys) {
            attribute("isKeyOk", key_ok);
        }
        if self.rules.any(from_11) {
            attribute("first", first);
        }
        if !text.is_empty() {
            text.push('}');
            out.text(text);
        }
    }

    fn relayed(&mut self, link: LinkId, side: Side, payload: Payload) -> ByteString {
        // An opener of 6 looks for the offer itself.
        let may_be_6 = side == Side::Member && self.rules.any(|release| release == Release::V6_0_0);
        // Bytes are looked into as the text that is shown of them.
        let payload = match payload {
            Payload::Bytes(_) => Payload::Json(payload.into_json()),
            payload => payload,
        };
        let offer = may_be_6.then(|| said_text(&payload, "offer")).flatten();
        let data = payload.into_json();
        // Put together at once: memory for each frame is had once, and in its size.
        if side == Side::Joiner {
            return ["{\"data\":", &data, "}"].concat().into();
        }
        let id = self.id_of(link);
        if let Some(offer) = offer {
            return format!("{{\"id\":{id},\"data\":{data},\"offer\":{offer}}}").into();
        }
        let mut text = String::with_capacity(r#"{"id":,"data":}"#.len() + id.len() + data.len());
        // Writing to a string does not fail.
        let _ = write!(text, "{{\"id\":{id},\"data\":");
        text.push_str(&data);
        text.push('}');
        text.into()
    }

    fn link_ended(&mut self, link: LinkId, side: Side, normal_closure: bool, out: &mut dyn OutputSink) {
        self.waiting.retain(|waiting| *waiting != link);
        if self.rules.all(from_11) {
            // Up to 12 a peer that closes with 1000 is not missed.
            if !normal_closure || self.rules.only(Release::V14_0_0) {
                let id = self.id_of(link);
                out.text(format!("{{\"unavailable\":{id}}}"));
            }
        } else if side == Side::Joiner && self.rules.all(up_to_7) {
            out.close(self.closing(&Reason::RecipientGone));
        } else if side == Side::Member && self.rules.only(Release::V7_6_4) {
            let id = self.id_of(link);
            out.text(format!("{{\"id\":{id},\"unavailable\":true}}"));
        }
    }

    fn went_nowhere(&mut self, to: Recipient, reason: Reason, out: &mut dyn OutputSink) {
        match to {
            Recipient::Joiner(link) => {
                let id = self.id_of(link);
                self.undeliverable(&id, out);
            }
            Recipient::Member | Recipient::JoinerOrMember(_) if self.rules.all(is_8) => {
                out.close(self.closing(&reason));
            }
            Recipient::Member | Recipient::JoinerOrMember(_) if self.rules.only(Release::V10_1_0) => {
                out.static_text("{\"unavailable\":-1}");
            }
            Recipient::Member | Recipient::JoinerOrMember(_) => {}
        }
    }
}
