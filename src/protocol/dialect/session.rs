//! One connection's codec, whatever its dialect: the closed set of them behind one face.

use std::collections::HashSet;
use std::time::Instant;

use super::json::{V1To5Codec, V6Codec, V7To14Codec};
use super::protobuf::{V1, V2};
use super::webrtc::{self, SdpEncoding, Transcoded};
use super::{Dialect, Family, Output, OutputSink, Release, ReleaseSet, close};
use crate::protocol::frame::{Close, Message};
use crate::protocol::model::{Command, Event, LinkId, LinkMessage, Reason, RoomKey};

/// What the upgrade request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeRequest {
    /// The path of the URL, as sent: percent-escapes are not decoded.
    pub path: String,
    /// The query of the URL has an attribute `favored`, whatever its value.
    pub favored: bool,
}

/// The longest key, in UTF-16 units (sigver 8 to 20, measured).
const MAX_KEY: usize = 512;

/// How many links are known at most over which something was translated. Not every end of a link is told.
const MAX_TRANSLATED: usize = 4096;

/// One connection's codec.
#[derive(Debug)]
pub struct Session {
    codec: Codec,
    /// How the client encodes what builds a data channel, if that is to be translated.
    voice: Option<SdpEncoding>,
    dialect: Dialect,
    /// The links over which something was translated: only there an end means that there are no more candidates.
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
    /// A codec for a client that speaks one of `releases`, all of one family, of which `likeliest` is one. With
    /// `transcode`, what builds a data channel is translated between the generations.
    /// `opened` is when the connection was.
    pub fn new(
        upgrade: &UpgradeRequest,
        releases: ReleaseSet,
        likeliest: Release,
        transcode: bool,
        opened: Instant,
    ) -> Self {
        let key = RoomKey::from(upgrade.path.strip_prefix('/').unwrap_or(&upgrade.path));
        let codec = match likeliest.dialect().family() {
            Family::Json => Self::json(releases, likeliest),
            Family::ProtobufV1 => Codec::V1(Box::new(V1::new(key, releases, likeliest, opened))),
            Family::ProtobufV2 => {
                Codec::V2(Box::new(V2::new(key, upgrade.favored, releases, likeliest, opened)))
            }
        };
        let dialect = likeliest.dialect();
        Session { codec, voice: transcode.then(|| SdpEncoding::of(dialect)), dialect, translated: None }
    }

    fn json(releases: ReleaseSet, likeliest: Release) -> Codec {
        match likeliest.dialect() {
            Dialect::Sigver1 | Dialect::Sigver4 | Dialect::Sigver5 => {
                Codec::V1To5(Box::new(V1To5Codec::new(likeliest)))
            }
            Dialect::Sigver6 => Codec::V6(Box::default()),
            Dialect::Sigver7
            | Dialect::Sigver7_6
            | Dialect::Sigver8
            | Dialect::Sigver9
            | Dialect::Sigver11
            | Dialect::Sigver13
            | Dialect::Sigver15
            | Dialect::Sigver15_1
            | Dialect::Sigver16
            | Dialect::Sigver18
            | Dialect::Sigver19
            | Dialect::Sigver20 => Codec::V7To14(Box::new(V7To14Codec::new(releases, likeliest))),
        }
    }

    /// What is wrong with the key in the path, in the words of `release`, if its key is there.
    pub fn key_error(upgrade: &UpgradeRequest, release: Release) -> Option<Close> {
        if !release.dialect().family().key_is_path() {
            return None;
        }
        let key = upgrade.path.strip_prefix('/').unwrap_or(&upgrade.path);
        if key.is_empty() {
            return Some(close(release, &Reason::KeyEmpty));
        }
        (key.encode_utf16().count() > MAX_KEY).then(|| close(release, &Reason::KeyTooLong))
    }

    /// What the server does first, on a connection that was opened then.
    pub fn open(&mut self, opened: Instant, out: &mut dyn OutputSink) {
        match &mut self.codec {
            Codec::V1(codec) => codec.open(out),
            Codec::V7To14(codec) => codec.open(opened, out),
            Codec::V1To5(_) | Codec::V6(_) | Codec::V2(_) => {}
        }
    }

    /// Fewer releases are possible than before; `likeliest` is of the family the codec was made for. What is now
    /// due is appended to `out`.
    pub fn adopt(
        &mut self,
        releases: ReleaseSet,
        likeliest: Release,
        now: Instant,
        out: &mut dyn OutputSink,
    ) {
        self.dialect = likeliest.dialect();
        self.voice = self.voice.map(|_| SdpEncoding::of(self.dialect));
        match &mut self.codec {
            Codec::V1To5(_) | Codec::V6(_) => {}
            Codec::V7To14(codec) => {
                if let Some(other) = codec.adopt(releases, likeliest, now, out) {
                    self.codec = Codec::V6(Box::new(other));
                }
            }
            Codec::V1(codec) => codec.adopt(releases, likeliest, now, out),
            Codec::V2(codec) => codec.adopt(releases, likeliest),
        }
    }

    /// A question to the client that tells generations apart, in place of the answer to what it has asked, if there is
    /// one.
    pub fn question(&mut self) -> Option<Message> {
        match &mut self.codec {
            Codec::V7To14(codec) => codec.question(),
            Codec::V1To5(_) | Codec::V6(_) | Codec::V1(_) | Codec::V2(_) => None,
        }
    }

    /// Decodes a message from the client, and puts out what follows from it.
    pub fn decode(&mut self, message: Message, out: &mut dyn OutputSink) {
        if self.voice == Some(SdpEncoding::Builder) {
            return self.codec.decode(message, &mut LastMarker(out));
        }
        self.codec.decode(message, out);
    }

    /// Encodes an event for the client, and puts out what it is sent of it, or the answer to the sender in the client's
    /// stead.
    pub fn encode(&mut self, event: Event, now: Instant, out: &mut dyn OutputSink) {
        let event = match self.translate(event) {
            Ok(event) => event,
            Err(answer) => return answer.into_iter().for_each(|answer| out.ask(answer)),
        };
        match &mut self.codec {
            Codec::V1To5(codec) => codec.encode(event, out),
            Codec::V6(codec) => codec.encode(event, out),
            Codec::V7To14(codec) => codec.encode(event, now, out),
            Codec::V1(codec) => codec.encode(event, now, out),
            Codec::V2(codec) => codec.encode(event, out),
        }
    }

    /// The event in the words of the client's generation, or what becomes of it instead.
    fn translate(&mut self, event: Event) -> Result<Event, Option<Command>> {
        if let Event::LinkEnded { link, .. } = event
            && let Some(translated) = &mut self.translated
        {
            translated.remove(&link);
        }
        let Event::Relayed { link, side, message, sender } = event else { return Ok(event) };
        let voice = self.voice;
        let from = Dialect::from_tag(sender).map(SdpEncoding::of);
        let (Some(voice), Some(from)) = (voice, from.filter(|from| Some(*from) != voice)) else {
            return Ok(Event::Relayed { link, side, message, sender });
        };
        if message == LinkMessage::End && !self.translated.as_ref().is_some_and(|links| links.contains(&link))
        {
            return Ok(Event::Relayed { link, side, message, sender });
        }
        match webrtc::translate(message, from, voice, link) {
            Transcoded::Unknown(message) => Ok(Event::Relayed { link, side, message, sender }),
            Transcoded::Said(message) => {
                let links = self.translated.get_or_insert_default();
                if links.len() == MAX_TRANSLATED {
                    links.clear();
                }
                links.insert(link);
                // As one of the client's own generation would have said it.
                Ok(Event::Relayed { link, side, message, sender: self.dialect.tag() })
            }
            Transcoded::Answered(payload) => {
                let message = LinkMessage::Data { payload, last: false };
                Err(Some(Command::ReplyOnBehalf { link, message, sender }))
            }
            Transcoded::Nothing => Err(None),
        }
    }

    /// When [`poll`](Self::poll) is to be called, if nothing comes before.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.codec {
            Codec::V1To5(_) | Codec::V6(_) => None,
            Codec::V7To14(codec) => codec.deadline(),
            Codec::V1(codec) => codec.deadline(),
            Codec::V2(codec) => codec.deadline(),
        }
    }

    /// Appends to `out` what is due at `now`: questions whether the client is there, or the end.
    pub fn poll(&mut self, now: Instant, out: &mut dyn OutputSink) {
        match &mut self.codec {
            Codec::V1To5(_) | Codec::V6(_) => {}
            Codec::V7To14(codec) => codec.poll(now, out),
            Codec::V1(codec) => codec.poll(now, out),
            Codec::V2(codec) => codec.poll(now, out),
        }
    }
}

impl Codec {
    fn decode(&mut self, message: Message, out: &mut dyn OutputSink) {
        match self {
            Codec::V1To5(codec) => codec.decode(&message, out),
            Codec::V6(codec) => codec.decode(&message, out),
            Codec::V7To14(codec) => codec.decode(&message, out),
            Codec::V1(codec) => codec.decode(message, out),
            Codec::V2(codec) => codec.decode(message, out),
        }
    }
}

/// A filter that marks the last payload of a link, which clients of the binary builder do not mark themselves.
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
