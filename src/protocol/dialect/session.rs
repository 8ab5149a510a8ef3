//! The codec of one connection: the closed set of codecs behind one interface.

use std::collections::HashSet;
use std::time::Instant;

use super::json::{JsonClient, ParsedMessage, V1To5Codec, V6Codec, V7To14Codec};
use super::json_text::JsonValue;
use super::protobuf::{V1, V2};
use super::release::{JsonCodec, SdpEncoding};
use super::webrtc::{self, Transcoded};
use super::{
    Candidates, Dialect, Family, Output, OutputSink, Release, ReleaseSet, close_frame_for, key_limit,
};
use crate::protocol::frame::{Close, Message};
use crate::protocol::model::{Command, Event, LinkId, LinkMessage, Reason};

/// The parts of an upgrade request that dialects read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeRequest {
    /// The path of the URL, as sent: percent-escapes are not decoded.
    pub path: String,
    /// True if the query of the URL has an attribute `favored`, with any value.
    pub favored: bool,
    /// The client is a page in a browser: the request has an `Origin`.
    pub from_page: bool,
}

/// Limit of the links that are remembered because something was translated on them. Not every end of a link
/// is reported.
const MAX_TRANSLATED: usize = 4096;

/// The parts of the configuration that a codec depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Session descriptions and candidates are translated between the generations.
    pub transcode: bool,
    /// The release of the client was configured, and not detected.
    pub pinned: bool,
}

/// Codec of one connection, of any dialect.
#[derive(Debug)]
pub struct Session {
    codec: Codec,
    candidates: Candidates,
    /// The dialect in which the client is addressed.
    dialect: Dialect,
    /// The form in which the client expects session descriptions and candidates, if they are translated.
    encoding: Option<SdpEncoding>,
    /// True if a link to a client of another generation was reported.
    mixed: bool,
    /// The links on which something was translated: only there an end means that there are no more
    /// candidates.
    #[allow(clippy::box_collection, reason = "most connections have none, and there are many")]
    translated: Option<Box<HashSet<LinkId>>>,
}

#[derive(Debug)]
enum Codec {
    V1To5(Box<V1To5Codec>),
    V6(Box<V6Codec>),
    V7To14(Box<V7To14Codec>),
    V1(Box<V1>),
    V2(Box<V2>),
}

impl Session {
    /// Returns a codec for a client that speaks one of the candidates, all of one family, on a connection
    /// that was opened at `opened`.
    pub fn new(
        upgrade: &UpgradeRequest,
        candidates: Candidates,
        options: SessionOptions,
        opened: Instant,
    ) -> Self {
        let Candidates { releases, most_likely } = candidates;
        let key = upgrade.path.strip_prefix('/').unwrap_or(&upgrade.path);
        let codec = match candidates.family() {
            Family::Json => {
                let client = JsonClient { from_page: upgrade.from_page, pinned: options.pinned };
                Self::json(releases, most_likely, client)
            }
            Family::ProtobufV1 => Codec::V1(Box::new(V1::new(key, releases, most_likely, opened))),
            Family::ProtobufV2 => {
                Codec::V2(Box::new(V2::new(key, upgrade.favored, releases, most_likely, opened)))
            }
        };
        let dialect = candidates.dialect();
        let encoding = options.transcode.then(|| dialect.facts().sdp_encoding);
        Session { codec, candidates, dialect, encoding, mixed: false, translated: None }
    }

    fn json(releases: ReleaseSet, most_likely: Release, client: JsonClient) -> Codec {
        match most_likely.json().map(|facts| facts.codec) {
            Some(JsonCodec::V1To5) => Codec::V1To5(Box::new(V1To5Codec::new(most_likely))),
            Some(JsonCodec::V6) => Codec::V6(Box::default()),
            Some(JsonCodec::V7To14) | None => {
                Codec::V7To14(Box::new(V7To14Codec::new(releases, most_likely, client)))
            }
        }
    }

    /// Returns the close frame for a key in the path that `release` refuses, if it does.
    pub(crate) fn key_error(upgrade: &UpgradeRequest, release: Release) -> Option<Close> {
        if !release.dialect().family().key_is_path() {
            return None;
        }
        let key = upgrade.path.strip_prefix('/').unwrap_or(&upgrade.path);
        if key.is_empty() {
            return Some(close_frame_for(release, &Reason::KeyEmpty));
        }
        key_limit::is_too_long(key).then(|| close_frame_for(release, &Reason::KeyTooLong))
    }

    /// Outputs the server's first message, if the dialect has one, on a connection opened at `opened`.
    pub fn open(&mut self, opened: Instant, out: &mut dyn OutputSink) {
        match &mut self.codec {
            Codec::V1(codec) => codec.open(out),
            Codec::V7To14(codec) => codec.open(opened, out),
            Codec::V1To5(_) | Codec::V6(_) | Codec::V2(_) => {}
        }
    }

    /// Adopts fewer candidates than before, of the codec's family, and outputs the messages that are due to
    /// them.
    pub(crate) fn adopt(&mut self, candidates: Candidates, now: Instant, out: &mut dyn OutputSink) {
        self.candidates = candidates;
        self.assume(candidates, now, out);
    }

    /// Treats the client as one of these candidates, while it may still turn out to be another one.
    pub(crate) fn assume(&mut self, candidates: Candidates, now: Instant, out: &mut dyn OutputSink) {
        let Candidates { releases, most_likely } = candidates;
        self.dialect = candidates.dialect();
        self.encoding = self.encoding.map(|_| self.dialect.facts().sdp_encoding);
        match &mut self.codec {
            Codec::V1To5(_) | Codec::V6(_) => {}
            Codec::V7To14(codec) => {
                if let Some(other) = codec.adopt(releases, most_likely, now, out) {
                    self.codec = Codec::V6(Box::new(other));
                }
            }
            Codec::V1(codec) => codec.adopt(releases, most_likely, now, out),
            Codec::V2(codec) => codec.adopt(releases, most_likely),
        }
    }

    /// Returns the releases that the client may speak.
    pub(crate) fn candidates(&self) -> Candidates {
        self.candidates
    }

    /// Returns the close frame for a reason in the client's dialect.
    pub fn close(&self, reason: &Reason) -> Close {
        close_frame_for(self.candidates.most_likely, reason)
    }

    /// Returns a question that distinguishes generations, to be sent in place of the answer to the client's
    /// last request, if there is one.
    pub(crate) fn question(&mut self) -> Option<Message> {
        match &mut self.codec {
            Codec::V7To14(codec) => codec.identity_probe(),
            Codec::V1To5(_) | Codec::V6(_) | Codec::V1(_) | Codec::V2(_) => None,
        }
    }

    /// Decodes a message from the client, and outputs its consequences.
    pub fn decode(&mut self, message: Message, out: &mut dyn OutputSink) {
        self.decode_value(message, None, out);
    }

    /// Decodes a message as [`decode`](Self::decode) does, without parsing its JSON again.
    pub(crate) fn decode_parsed(&mut self, message: ParsedMessage, out: &mut dyn OutputSink) {
        let ParsedMessage { message, json } = message;
        self.decode_value(message, json, out);
    }

    fn decode_value(&mut self, message: Message, json: Option<JsonValue>, out: &mut dyn OutputSink) {
        let mut marker;
        let out: &mut dyn OutputSink = if self.encoding == Some(SdpEncoding::Builder) {
            marker = LastMarker(out);
            &mut marker
        } else {
            out
        };
        match &mut self.codec {
            Codec::V1To5(codec) => codec.decode(&message, json, out),
            Codec::V6(codec) => codec.decode(&message, json, out),
            Codec::V7To14(codec) => codec.decode(&message, json, out),
            Codec::V1(codec) => codec.decode(message, out),
            Codec::V2(codec) => codec.decode(message, out),
        }
    }

    /// Encodes an event for the client, and outputs the messages for it, or an answer to the event's sender
    /// on the client's behalf.
    pub fn encode(&mut self, event: Event, now: Instant, out: &mut dyn OutputSink) {
        let mut event = event;
        if self.may_translate(&event) {
            self.report_mixture(&event, out);
            match self.translate(event) {
                Ok(translated) => event = translated,
                Err(answer) => return answer.into_iter().for_each(|answer| out.ask(answer)),
            }
        }
        match &mut self.codec {
            Codec::V1To5(codec) => codec.encode(event, out),
            Codec::V6(codec) => codec.encode(event, out),
            Codec::V7To14(codec) => codec.encode(event, now, out),
            Codec::V1(codec) => codec.encode(event, now, out),
            Codec::V2(codec) => codec.encode(event, out),
        }
    }

    /// Returns false if the event needs no translation: nearly all are of the client's own dialect.
    fn may_translate(&self, event: &Event) -> bool {
        match event {
            Event::Relayed { sender, .. } => sender.of_dialect() != self.dialect.tag(),
            Event::LinkEnded { .. } => self.translated.is_some(),
            Event::Admitted { .. }
            | Event::BecameMember { .. }
            | Event::LinkedToMember { .. }
            | Event::LinkedToJoiner { .. }
            | Event::Refused(_)
            | Event::Undeliverable { .. }
            | Event::Evicted(_) => false,
        }
    }

    /// Reports the first link to a client that has no peer protocol in common with this one, whatever of its
    /// candidates each of them speaks.
    fn report_mixture(&mut self, event: &Event, out: &mut dyn OutputSink) {
        if let Event::Relayed { link, sender, .. } = event
            && !self.mixed
            && let Some(other) = Dialect::from_tag(*sender)
            && other != self.dialect
            && sender.peer_protocols().unwrap_or(other.peer_protocol().bit())
                & self.candidates.releases.peer_protocols()
                == 0
        {
            self.mixed = true;
            out.put(Output::Mixed(*link, other));
        }
    }

    /// Translates an event into the form of the client's generation.
    ///
    /// # Errors
    /// There is nothing to send to the client; with the answer to the event's sender, if there is one.
    fn translate(&mut self, event: Event) -> Result<Event, Option<Command>> {
        if let Event::LinkEnded { link, .. } = event
            && let Some(translated) = &mut self.translated
        {
            translated.remove(&link);
        }
        let Event::Relayed { link, side, message, sender } = event else { return Ok(event) };
        let encoding = self.encoding;
        let from = Dialect::from_tag(sender).map(|from| from.facts().sdp_encoding);
        let (Some(encoding), Some(from)) = (encoding, from.filter(|from| Some(*from) != encoding)) else {
            return Ok(Event::Relayed { link, side, message, sender });
        };
        if message == LinkMessage::End && !self.translated.as_ref().is_some_and(|links| links.contains(&link))
        {
            return Ok(Event::Relayed { link, side, message, sender });
        }
        match webrtc::translate(message, from, encoding, link) {
            Transcoded::Passthrough(message) => Ok(Event::Relayed { link, side, message, sender }),
            Transcoded::Converted(message) => {
                let links = self.translated.get_or_insert_default();
                if links.len() == MAX_TRANSLATED {
                    links.clear();
                }
                links.insert(link);
                // As a client of the same generation would have sent it.
                Ok(Event::Relayed { link, side, message, sender: self.dialect.tag() })
            }
            Transcoded::ReplyToSender(payload) => {
                let message = LinkMessage::Data { payload, last: false };
                Err(Some(Command::ReplyOnBehalf { link, message, sender }))
            }
            Transcoded::Dropped => Err(None),
        }
    }

    /// Returns when [`poll`](Self::poll) has to be called, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.codec {
            Codec::V1To5(_) | Codec::V6(_) => None,
            Codec::V7To14(codec) => codec.deadline(),
            Codec::V1(codec) => codec.deadline(),
            Codec::V2(codec) => codec.deadline(),
        }
    }

    /// Outputs what is due at `now`: heartbeats, or the close frame for a client that did not answer them.
    pub fn poll(&mut self, now: Instant, out: &mut dyn OutputSink) {
        match &mut self.codec {
            Codec::V1To5(_) | Codec::V6(_) => {}
            Codec::V7To14(codec) => codec.poll(now, out),
            Codec::V1(codec) => codec.poll(now, out),
            Codec::V2(codec) => codec.poll(now, out),
        }
    }
}

/// A filter that marks the last payload of a link, which clients of the binary builder do not mark
/// themselves.
struct LastMarker<'a>(&'a mut dyn OutputSink);

impl OutputSink for LastMarker<'_> {
    fn put(&mut self, mut output: Output) {
        if let Output::Ask(Command::Relay { message: LinkMessage::Data { payload, last }, .. }) = &mut output
        {
            *last = webrtc::is_last(payload, *last);
        }
        self.0.put(output);
    }
}
