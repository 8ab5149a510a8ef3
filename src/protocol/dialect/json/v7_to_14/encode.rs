//! Messages to a client of sigver 7 to 14.

use std::time::Instant;

use bytestring::ByteString;
use data_encoding::HEXLOWER;

use super::{
    CONFIRMATION_TIMEOUT, LastRequest, OPENER_ANSWER_DELAY, OpenerConfirmation, PROBE_JOINER, V7To14Codec,
};
use crate::protocol::dialect::json::v6::attribute_text;
use crate::protocol::dialect::json_text::ObjectBuilder;
use crate::protocol::dialect::{Dialect, Family, OutputSink, close_frame_for};
use crate::protocol::frame::Message;
use crate::protocol::model::{Event, LinkId, LinkMessage, Payload, Reason, Recipient, SenderTag, Side};

/// The offer of the identity probe: an answer to `{"key":K}` with an offer that no peer made. Only clients of
/// 7.0 answer it: the others see that their key is accepted and ignore the rest (netflux 0.10.3, 0.10.8 and
/// 1.0.0-rc.3, measured). Data without an offer would make netflux 0.10.3 reject after 2 s, which ends a
/// Node.js process.
const IDENTITY_PROBE_OFFER: &str = concat!(
    r#"{"offer":{"type":"offer","sdp":"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"#,
    r#"a=group:BUNDLE 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:none\r\n"#,
    r#"a=ice-pwd:nobodynobodynobodynobody\r\na=fingerprint:sha-256 00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00"#,
    r#":00:00:00:00:00:00:00:00:00:00:00:00:00:00\r\na=setup:actpass\r\na=mid:0\r\na=sctp-port:5000\r\n"}}"#,
);

impl V7To14Codec {
    /// Returns the id by which an opener knows a joiner, as JSON text.
    fn id_of(&mut self, link: LinkId) -> String {
        match &mut self.joiners {
            Some(joiners) => joiners.index_or_insert(link).to_string(),
            None if self.capabilities.string_ids.all => {
                let mut id = String::with_capacity(10);
                id.push('"');
                HEXLOWER.encode_append(&link.0.to_be_bytes(), &mut id);
                id.push('"');
                id
            }
            None => link.0.to_string(),
        }
    }

    /// Encodes an event for the client.
    pub(in crate::protocol::dialect) fn encode(
        &mut self,
        event: Event,
        now: Instant,
        out: &mut dyn OutputSink,
    ) {
        match event {
            Event::Admitted { first } => {
                self.admitted(first, now, out);
                // Of 12, openers only are pinged; of 13, the ping was sent before.
                if self.capabilities.pings.all {
                    self.start_pings(now, out);
                }
            }
            Event::BecameMember { .. } => {}
            Event::LinkedToMember { .. } => self.answer(false, true, false, out),
            Event::LinkedToJoiner { link } => {
                if let Some(joiners) = &mut self.joiners {
                    joiners.index_or_insert(link);
                }
                if let Some(joiners) = &mut self.unanswered_joiners {
                    joiners.add(link);
                }
            }
            Event::Relayed { link, side, message: LinkMessage::Data { payload, .. }, sender } => {
                let by_json = Dialect::from_tag(sender).is_some_and(|from| from.family() == Family::Json);
                if self.opener_confirmation == OpenerConfirmation::Pending && side == Side::Member && by_json
                {
                    let until = now.checked_add(CONFIRMATION_TIMEOUT).unwrap_or(now);
                    self.opener_confirmation = OpenerConfirmation::PendingUntil(until);
                }
                self.answer_opener_of(sender, link, out);
                out.text(self.relayed(link, side, payload));
            }
            // These dialects have no such message.
            Event::Relayed {
                message: LinkMessage::End | LinkMessage::Error { .. } | LinkMessage::Empty,
                ..
            } => {}
            Event::LinkEnded { link, side, normal_closure } => {
                self.link_ended(link, side, normal_closure, out)
            }
            Event::Undeliverable { to, reason } => self.message_undeliverable(to, &reason, out),
            Event::Refused(Reason::KeyUnknown) if self.capabilities.string_ids.any => {
                // The client is the first, and has to open the key itself.
                self.joined = false;
                self.answer(true, false, true, out);
            }
            Event::Refused(reason) => {
                if self.capabilities.confirms_keys.any {
                    out.static_text("{\"isKeyOk\":false}");
                }
                out.close(self.close_for(&reason));
            }
            // Also for a reason that no Node.js server had.
            Event::Evicted(reason) => out.close(close_frame_for(self.close_release(&reason), &reason)),
        }
    }

    /// Returns the answer that distinguishes an opener of 7.0 from one of 7.6, if the client may be either.
    pub(in crate::protocol::dialect) fn identity_probe(&mut self) -> Option<Message> {
        self.identity_probed = self.last_request == LastRequest::Open
            && self.capabilities.joiner_index.any
            && self.capabilities.confirms_open.any;
        self.identity_probed.then(|| {
            // An opener counts the offers: the joiners after this one have the indexes after its own.
            let id = self.id_of(PROBE_JOINER);
            Message::text(
                ["{\"isKeyOk\":true,\"id\":", &id, ",\"data\":", IDENTITY_PROBE_OFFER, "}"].concat(),
            )
        })
    }

    /// Sends the answer that is still due to a `{"key":K}`, if the joiner of this link needs an opener that
    /// has it. The id is that of the joiner, whose offer follows. A joiner up to 7.1 has an opener without
    /// answer.
    fn answer_opener_of(&mut self, sender: SenderTag, link: LinkId, out: &mut dyn OutputSink) {
        if !matches!(self.opener_confirmation, OpenerConfirmation::AnswerDueAt(_)) {
            return;
        }
        self.opener_confirmation = OpenerConfirmation::NotNeeded;
        if Dialect::from_tag(sender).is_none_or(|joiner| joiner > Dialect::Sigver7) {
            let id = self.id_of(link);
            out.text(format!("{{\"isKeyOk\":true,\"id\":{id},\"data\":{{}}}}"));
        }
    }

    fn admitted(&mut self, first: bool, now: Instant, out: &mut dyn OutputSink) {
        if self.last_request == LastRequest::Open {
            let first = first || !self.capabilities.counts_members.all;
            if self.capabilities.opens_by_key.all {
                return self.key_accepted(now, out);
            }
            return self.answer(true, true, first, out);
        }
        self.opened = true;
        self.joined = false;
        if self.capabilities.confirms_keys.any {
            self.opener_confirmation = OpenerConfirmation::Pending;
        }
        self.answer(true, false, true, out);
    }

    /// Answers a `{"key":K}`. An opener of 6, 7.0 or 7.1 gets no answer, unless the client may be one of 7.6.
    /// Openers of 7 close on an answer without id and data (netflux 0.10.3, measured). A page gets one with
    /// an id that no joiner has; in a program, that could end the process or be treated as a joiner, and it
    /// has to wait.
    fn key_accepted(&mut self, now: Instant, out: &mut dyn OutputSink) {
        if self.identity_probed || !self.capabilities.confirms_open.any {
            return;
        }
        if !self.capabilities.joiner_index.any {
            out.static_text("{\"isKeyOk\":true}");
        } else if self.client.from_page {
            out.static_text("{\"isKeyOk\":true,\"id\":null,\"data\":{}}");
        } else {
            let due = now.checked_add(OPENER_ANSWER_DELAY).unwrap_or(now);
            self.opener_confirmation = OpenerConfirmation::AnswerDueAt(due);
        }
    }

    /// Sends one answer with the member that each release looks for.
    fn answer(&self, opened: bool, key_ok: bool, first: bool, out: &mut dyn OutputSink) {
        let mut answer = ObjectBuilder::default();
        let mut push = |name: &str, value: bool| answer.push(name, if value { "true" } else { "false" });
        if self.capabilities.joiner_becomes_member.any {
            push("opened", opened);
        }
        if self.capabilities.confirms_keys.any {
            push("isKeyOk", key_ok);
        }
        if self.capabilities.string_ids.any {
            push("first", first);
        }
        let answer = answer.finish();
        if answer.len() > 0 {
            out.text(answer.into_text());
        }
    }

    fn relayed(&mut self, link: LinkId, side: Side, payload: Payload) -> ByteString {
        // An opener of sigver 6 reads the offer itself.
        let may_be_6 = side == Side::Member && self.capabilities.sigver_6.any;
        let offer = may_be_6.then(|| attribute_text(payload.clone(), "offer")).flatten();
        let data = payload.into_json();
        if side == Side::Joiner {
            return ["{\"data\":", &data, "}"].concat().into();
        }
        let id = self.id_of(link);
        if let Some(offer) = offer {
            return ["{\"id\":", &id, ",\"data\":", &data, ",\"offer\":", &offer, "}"].concat().into();
        }
        ["{\"id\":", &id, ",\"data\":", &data, "}"].concat().into()
    }

    fn link_ended(&mut self, link: LinkId, side: Side, normal_closure: bool, out: &mut dyn OutputSink) {
        if let Some(joiners) = &mut self.unanswered_joiners {
            joiners.remove(link);
        }
        if self.capabilities.string_ids.all {
            // Up to 12 the close code 1000 of a peer is not reported.
            if !normal_closure || self.capabilities.pings.all {
                let id = self.id_of(link);
                out.text(format!("{{\"unavailable\":{id}}}"));
            }
        } else if side == Side::Joiner && self.capabilities.opens_by_key.all {
            out.close(self.close_for(&Reason::RecipientGone));
        } else if side == Side::Member && self.capabilities.confirms_open.all {
            let id = self.id_of(link);
            out.text(format!("{{\"id\":{id},\"unavailable\":true}}"));
        }
    }

    fn message_undeliverable(&mut self, to: Recipient, reason: &Reason, out: &mut dyn OutputSink) {
        match to {
            Recipient::Joiner(link) => {
                let id = self.id_of(link);
                self.undeliverable(&id, out);
            }
            Recipient::Member | Recipient::JoinerOrMember(_)
                if self.capabilities.closes_if_undeliverable.all =>
            {
                out.close(self.close_for(reason));
            }
            Recipient::Member | Recipient::JoinerOrMember(_)
                if self.capabilities.reports_undeliverable.all =>
            {
                out.static_text("{\"unavailable\":-1}");
            }
            Recipient::Member | Recipient::JoinerOrMember(_) => {}
        }
    }
}
