//! The facts about dialects and releases: the types of the rows in `dialect_rows.rs` and `release_rows.rs`.
//! Facts are measured on the Node.js servers.

use super::{ContentLayout, Dialect, Family, PeerProtocol, Release};
use crate::protocol::dialect::keepalive::Keepalive;
use crate::protocol::model::MemberChoice;

/// Facts that all releases of a dialect share.
pub(in crate::protocol::dialect) struct DialectFacts {
    pub(in crate::protocol::dialect) family: Family,
    /// Major and minor version in the name.
    pub(in crate::protocol::dialect) tag: (u8, u8),
    /// Release that is meant where only the dialect is named.
    pub(in crate::protocol::dialect) release: Release,
    pub(in crate::protocol::dialect) peer_protocol: PeerProtocol,
    /// Layout of contents; `None` in JSON.
    pub(in crate::protocol::dialect) content_layout: Option<ContentLayout>,
    /// Encoding of what builds a data channel.
    pub(in crate::protocol::dialect) sdp_encoding: SdpEncoding,
    pub(in crate::protocol::dialect) server_sends_first: bool,
    /// Rank in detection, from 0 for the most likely dialect: what most deployed clients speak first, and
    /// dialects without a published client last.
    pub(in crate::protocol::dialect) priority: u8,
    pub(in crate::protocol::dialect) docs: DialectDoc,
}

/// Facts about a dialect that only the documentation has.
#[derive(Clone, Copy)]
pub(in crate::protocol::dialect) struct DialectDoc {
    /// First message of a client that joins a room.
    pub(in crate::protocol::dialect) first_message: &'static str,
    /// Ways in which each side notices that the other is disconnected.
    pub(in crate::protocol::dialect) keepalive: &'static str,
    /// Published netflux clients that speak it (measured in a browser, but for those in brackets).
    pub(in crate::protocol::dialect) clients: &'static str,
}

/// Encoding of session descriptions and candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::protocol::dialect) enum SdpEncoding {
    /// `{"offer":{"type":"offer","sdp":S}}`: sigver 1 to 14. There is no end of candidates.
    Json,
    /// `webRTCBuilder` of netflux 1.1; an empty candidate is the end of candidates: sigver 15.
    Builder,
    /// `webRTCBuilder` of netflux 2 and 3, where the end of the link is the end of candidates: sigver 16 to
    /// 18.
    BuilderWithEnd,
    /// Services of netflux 4: sigver 19 and 20.
    Services,
}

/// Facts about a release.
pub(in crate::protocol::dialect) struct ReleaseFacts {
    /// Version number that names the release: its newest published one.
    pub(in crate::protocol::dialect) version: &'static str,
    /// All version numbers that behave like this, oldest first.
    pub(in crate::protocol::dialect) versions: &'static [&'static str],
    pub(in crate::protocol::dialect) dialect: Dialect,
    pub(in crate::protocol::dialect) keepalive: Keepalive,
    pub(in crate::protocol::dialect) family: FamilyFacts,
}

/// Facts that only releases of one family have.
pub(in crate::protocol::dialect) enum FamilyFacts {
    Json(JsonFacts),
    ProtobufV1(V1Facts),
    ProtobufV2(V2Facts),
}

/// Facts about a JSON release: sigver 1 to 14.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonFacts {
    pub(crate) codec: JsonCodec,
    /// Close codes and texts of errors.
    pub(in crate::protocol::dialect) errors: JsonErrorTexts,
    /// `{"key":K}` opens a room, keys may be of any type, unknown members are ignored, and JSON is also
    /// accepted in binary frames (up to 7.6).
    pub(crate) opens_by_key: bool,
    /// `{"open":K}` whose key JavaScript takes for false is ignored.
    pub(in crate::protocol::dialect) ignores_falsy_open: bool,
    pub(in crate::protocol::dialect) joiner_id: JoinerId,
    /// Answer to a client whose key is accepted.
    pub(crate) confirmation: Confirmation,
    /// A taken key cannot be opened, and an unknown one cannot be joined.
    pub(in crate::protocol::dialect) refuses_keys: bool,
    /// Answer to an opener's data for an unknown or disconnected joiner.
    pub(in crate::protocol::dialect) unknown_joiner: UnknownJoiner,
    /// Every client is pinged, from its connection on, and not openers only.
    pub(in crate::protocol::dialect) keepalive_of_joiners: bool,
}

/// Codec of a JSON release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonCodec {
    V1To5,
    V6,
    V7To14,
}

/// Set of close codes and texts that JSON releases share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::protocol::dialect) enum JsonErrorTexts {
    V1To4,
    V5,
    V6,
    V7_0,
    V7_1,
    V7_6,
    V8_0,
    V8_1,
    V9To10,
    V11,
    V13,
}

/// Name of a joiner in messages from and to its opener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::protocol::dialect) enum JoinerId {
    /// No name: messages of an opener are for all joiners.
    None,
    /// Number of joiners before it.
    Index,
    /// Number of its link.
    Number,
    /// Number of its link in eight hexadecimal digits, as a string.
    Hex,
}

/// Answer to a client whose key is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confirmation {
    None,
    /// `isKeyOk`.
    IsKeyOk,
    /// `opened`: true for an opener. A client that joins an unknown key becomes its opener.
    Opened,
    /// `first`: true for an opener that is the only one.
    FirstOpener,
    /// `first`: true for every opener.
    AnyOpener,
}

/// Answer to an opener's data for an unknown or disconnected joiner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::protocol::dialect) enum UnknownJoiner {
    Ignored,
    /// The connection is closed: the id is unknown.
    CloseUnknownId,
    /// The connection is closed: the joiner is no longer available.
    CloseUnavailable,
    /// `{"id":N,"unavailable":true}`.
    IdUnavailable,
    /// `{"unavailable":N}`.
    Unavailable,
}

/// Facts about a release of sigver 15 to 18.
pub(in crate::protocol::dialect) struct V1Facts {
    pub(in crate::protocol::dialect) schema: V1Schema,
    pub(in crate::protocol::dialect) close: CloseFrames,
    /// Member that a joiner is linked to.
    pub(in crate::protocol::dialect) member_choice: MemberChoice,
    /// Joiners, too, are asked whether they are there.
    pub(in crate::protocol::dialect) keepalive_of_joiners: bool,
    /// A joiner that became a member receives that it is first.
    pub(in crate::protocol::dialect) confirms_membership: bool,
    /// Field 5 asks for another member.
    pub(in crate::protocol::dialect) try_another: bool,
    /// An error of one peer ends both directions of a link.
    pub(in crate::protocol::dialect) error_closes_both: bool,
}

/// Schema of the messages of sigver 15 to 18.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::protocol::dialect) enum V1Schema {
    V15_0_0,
    V15,
    V15_1,
    V16,
    V18,
}

/// Facts about a release of sigver 19 or newer.
pub(in crate::protocol::dialect) struct V2Facts {
    pub(in crate::protocol::dialect) close: CloseFrames,
    /// A member whose URL has `?favored` is preferred to others.
    pub(in crate::protocol::dialect) prefers_favored: bool,
    /// A client that connects again is answered before its old links end: its library closes later than it
    /// answers.
    pub(in crate::protocol::dialect) admit_before_unlink: bool,
}

/// Close codes and texts of a protobuf release.
pub(in crate::protocol::dialect) struct CloseFrames {
    /// Code, and name before the text, of an error in the key.
    pub(in crate::protocol::dialect) key: (u16, &'static str),
    /// Code of a frame that cannot be decoded, whose text is that of protobufjs; `None` for a close frame
    /// without code.
    pub(in crate::protocol::dialect) decode_error: Option<u16>,
    pub(in crate::protocol::dialect) empty_content: EmptyContentClose,
    /// Text frame.
    pub(in crate::protocol::dialect) wrong_frame_kind: (u16, &'static str),
    /// Message that has no meaning, and any other error.
    pub(in crate::protocol::dialect) unknown_message: (u16, &'static str),
    /// Missing pongs or heartbeats.
    pub(in crate::protocol::dialect) unresponsive: (u16, &'static str),
    /// Member that lost its place to a joiner that could not join through it.
    pub(in crate::protocol::dialect) replaced: (u16, &'static str),
}

/// Close frame for a content without data.
pub(in crate::protocol::dialect) enum EmptyContentClose {
    /// A close frame without code.
    NoCode,
    /// The close frame for an unknown message.
    UnknownMessage,
    /// A text with the sender of the content.
    Text { code: u16, name: &'static str, member: &'static str },
}
