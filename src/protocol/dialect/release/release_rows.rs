//! The releases, one row each, oldest first.

use strum::{EnumCount, FromRepr, VariantArray};

use super::Dialect;
use super::facts::{
    CloseFrames, Confirmation, EmptyContentClose, FamilyFacts, JoinerId, JsonCodec, JsonErrorTexts,
    JsonFacts, ReleaseFacts, UnknownJoiner, V1Facts, V1Schema, V2Facts,
};
use crate::protocol::dialect::keepalive::{HEARTBEAT_INTERVAL_S, Keepalive};
use crate::protocol::model::MemberChoice;

/// Group of versions that no message distinguishes, named after the newest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EnumCount, FromRepr, VariantArray)]
#[repr(u8)]
pub enum Release {
    /// 1.0.0 to 3.0.0.
    V3_0_0,
    /// 4.0.0.
    V4_0_0,
    /// 5.0.0.
    V5_0_0,
    /// 6.0.0.
    V6_0_0,
    /// 7.0.0.
    V7_0_0,
    /// 7.1.0.
    V7_1_0,
    /// 7.6.4.
    V7_6_4,
    /// 8.0.2.
    V8_0_2,
    /// 8.1.0.
    V8_1_0,
    /// 9.0.0 and 9.0.1, which were never on npm.
    V9_0_1,
    /// 9.1.0.
    V9_1_0,
    /// 10.1.0.
    V10_1_0,
    /// 11.0.0.
    V11_0_0,
    /// 12, which was never on npm.
    V12_0_0,
    /// 13.1.3 and 14.0.0.
    V14_0_0,
    /// 15.0.0, which was never on npm.
    V15_0_0,
    /// 15.0.1.
    V15_0_1,
    /// 15.0.2.
    V15_0_2,
    /// 15.0.4.
    V15_0_4,
    /// 15.1.0.
    V15_1_0,
    /// 16.0.0.
    V16_0_0,
    /// 17.0.0 and 17.0.1.
    V17_0_1,
    /// 18.0.0.
    V18_0_0,
    /// 19.0.0.
    V19_0_0,
    /// 19.1.2.
    V19_1_2,
    /// 20.0.0 to 20.0.2.
    V20_0_2,
    /// 20.1.0, and 21, which was never on npm.
    V20_1_0,
}

impl Release {
    /// Returns the row of the release.
    pub(in crate::protocol::dialect) const fn facts(self) -> &'static ReleaseFacts {
        match self {
            Release::V3_0_0 => &V3_0_0,
            Release::V4_0_0 => &V4_0_0,
            Release::V5_0_0 => &V5_0_0,
            Release::V6_0_0 => &V6_0_0,
            Release::V7_0_0 => &V7_0_0,
            Release::V7_1_0 => &V7_1_0,
            Release::V7_6_4 => &V7_6_4,
            Release::V8_0_2 => &V8_0_2,
            Release::V8_1_0 => &V8_1_0,
            Release::V9_0_1 => &V9_0_1,
            Release::V9_1_0 => &V9_1_0,
            Release::V10_1_0 => &V10_1_0,
            Release::V11_0_0 => &V11_0_0,
            Release::V12_0_0 => &V12_0_0,
            Release::V14_0_0 => &V14_0_0,
            Release::V15_0_0 => &V15_0_0,
            Release::V15_0_1 => &V15_0_1,
            Release::V15_0_2 => &V15_0_2,
            Release::V15_0_4 => &V15_0_4,
            Release::V15_1_0 => &V15_1_0,
            Release::V16_0_0 => &V16_0_0,
            Release::V17_0_1 => &V17_0_1,
            Release::V18_0_0 => &V18_0_0,
            Release::V19_0_0 => &V19_0_0,
            Release::V19_1_2 => &V19_1_2,
            Release::V20_0_2 => &V20_0_2,
            Release::V20_1_0 => &V20_1_0,
        }
    }
}

/// Ping every 5 s, closed if the pong is not received by the next.
const PINGS: Keepalive = Keepalive::PingPong { interval_s: HEARTBEAT_INTERVAL_S };
const HEARTBEAT: Keepalive = Keepalive::Heartbeat { send_final: false, enforce: true };
/// The heartbeat that is one too many is sent before the connection is closed.
const FINAL_HEARTBEAT: Keepalive = Keepalive::Heartbeat { send_final: true, enforce: true };

/// sigver 1 to 3.
const JSON_1: JsonFacts = JsonFacts {
    codec: JsonCodec::V1To5,
    errors: JsonErrorTexts::V1To4,
    opens_by_key: true,
    ignores_falsy_open: true,
    joiner_id: JoinerId::Index,
    confirmation: Confirmation::None,
    refuses_keys: true,
    unknown_joiner: UnknownJoiner::CloseUnknownId,
    keepalive_of_joiners: false,
};

const V3_0_0: ReleaseFacts = ReleaseFacts {
    version: "3.0.0",
    versions: &["1.0.0", "2.0.0", "3.0.0"],
    dialect: Dialect::Sigver1,
    keepalive: Keepalive::None,
    family: FamilyFacts::Json(JSON_1),
};

const V4_0_0: ReleaseFacts = ReleaseFacts {
    version: "4.0.0",
    versions: &["4.0.0"],
    dialect: Dialect::Sigver4,
    keepalive: Keepalive::None,
    family: FamilyFacts::Json(JSON_1),
};

const V5_0_0: ReleaseFacts = ReleaseFacts {
    version: "5.0.0",
    versions: &["5.0.0"],
    dialect: Dialect::Sigver5,
    keepalive: Keepalive::None,
    family: FamilyFacts::Json(JsonFacts { errors: JsonErrorTexts::V5, ..JSON_1 }),
};

const V6_0_0: ReleaseFacts = ReleaseFacts {
    version: "6.0.0",
    versions: &["6.0.0"],
    dialect: Dialect::Sigver6,
    keepalive: Keepalive::None,
    family: FamilyFacts::Json(JsonFacts {
        codec: JsonCodec::V6,
        errors: JsonErrorTexts::V6,
        joiner_id: JoinerId::None,
        ..JSON_1
    }),
};

/// sigver 7.0.
const JSON_7: JsonFacts = JsonFacts { codec: JsonCodec::V7To14, errors: JsonErrorTexts::V7_0, ..JSON_1 };

const V7_0_0: ReleaseFacts = ReleaseFacts {
    version: "7.0.0",
    versions: &["7.0.0"],
    dialect: Dialect::Sigver7,
    keepalive: Keepalive::None,
    family: FamilyFacts::Json(JSON_7),
};

const V7_1_0: ReleaseFacts = ReleaseFacts {
    version: "7.1.0",
    versions: &["7.1.0"],
    dialect: Dialect::Sigver7,
    keepalive: Keepalive::None,
    family: FamilyFacts::Json(JsonFacts {
        errors: JsonErrorTexts::V7_1,
        unknown_joiner: UnknownJoiner::IdUnavailable,
        ..JSON_7
    }),
};

const V7_6_4: ReleaseFacts = ReleaseFacts {
    version: "7.6.4",
    versions: &["7.6.4"],
    dialect: Dialect::Sigver7_6,
    keepalive: Keepalive::None,
    family: FamilyFacts::Json(JsonFacts {
        errors: JsonErrorTexts::V7_6,
        joiner_id: JoinerId::Number,
        confirmation: Confirmation::IsKeyOk,
        unknown_joiner: UnknownJoiner::Ignored,
        ..JSON_7
    }),
};

/// sigver 8.0.
const JSON_8: JsonFacts = JsonFacts {
    errors: JsonErrorTexts::V8_0,
    opens_by_key: false,
    joiner_id: JoinerId::Number,
    confirmation: Confirmation::IsKeyOk,
    unknown_joiner: UnknownJoiner::CloseUnavailable,
    ..JSON_7
};

const V8_0_2: ReleaseFacts = ReleaseFacts {
    version: "8.0.2",
    versions: &["8.0.2"],
    dialect: Dialect::Sigver8,
    keepalive: Keepalive::None,
    family: FamilyFacts::Json(JSON_8),
};

/// sigver 8.1.
const JSON_8_1: JsonFacts = JsonFacts { errors: JsonErrorTexts::V8_1, ..JSON_8 };

const V8_1_0: ReleaseFacts = ReleaseFacts {
    version: "8.1.0",
    versions: &["8.1.0"],
    dialect: Dialect::Sigver8,
    keepalive: Keepalive::None,
    family: FamilyFacts::Json(JSON_8_1),
};

/// The answer is `isKeyOk`, and event streams take messages by POST (source). Not measured: the rest, which
/// is that of 8.1 for messages, and that of 9.1 for event streams.
const V9_0_1: ReleaseFacts = ReleaseFacts {
    version: "9.0.1",
    versions: &["9.0.0", "9.0.1"],
    dialect: Dialect::Sigver9,
    keepalive: Keepalive::None,
    family: FamilyFacts::Json(JSON_8_1),
};

/// sigver 9.
const JSON_9: JsonFacts = JsonFacts {
    errors: JsonErrorTexts::V9To10,
    confirmation: Confirmation::Opened,
    refuses_keys: false,
    unknown_joiner: UnknownJoiner::Ignored,
    ..JSON_8
};

const V9_1_0: ReleaseFacts = ReleaseFacts {
    version: "9.1.0",
    versions: &["9.1.0"],
    dialect: Dialect::Sigver9,
    keepalive: Keepalive::None,
    family: FamilyFacts::Json(JSON_9),
};

const V10_1_0: ReleaseFacts = ReleaseFacts {
    version: "10.1.0",
    versions: &["10.1.0"],
    dialect: Dialect::Sigver9,
    keepalive: Keepalive::None,
    family: FamilyFacts::Json(JsonFacts {
        ignores_falsy_open: false,
        unknown_joiner: UnknownJoiner::Unavailable,
        ..JSON_9
    }),
};

/// sigver 11.
const JSON_11: JsonFacts = JsonFacts {
    errors: JsonErrorTexts::V11,
    ignores_falsy_open: false,
    joiner_id: JoinerId::Hex,
    confirmation: Confirmation::FirstOpener,
    ..JSON_9
};

const V11_0_0: ReleaseFacts = ReleaseFacts {
    version: "11.0.0",
    versions: &["11.0.0"],
    dialect: Dialect::Sigver11,
    keepalive: Keepalive::None,
    family: FamilyFacts::Json(JSON_11),
};

/// Openers are pinged, and always first. The error texts are those of 11.
const V12_0_0: ReleaseFacts = ReleaseFacts {
    version: "12",
    versions: &["12"],
    dialect: Dialect::Sigver13,
    keepalive: PINGS,
    family: FamilyFacts::Json(JsonFacts { confirmation: Confirmation::AnyOpener, ..JSON_11 }),
};

const V14_0_0: ReleaseFacts = ReleaseFacts {
    version: "14.0.0",
    versions: &["13.1.3", "14.0.0"],
    dialect: Dialect::Sigver13,
    keepalive: PINGS,
    family: FamilyFacts::Json(JsonFacts {
        errors: JsonErrorTexts::V13,
        confirmation: Confirmation::AnyOpener,
        keepalive_of_joiners: true,
        ..JSON_11
    }),
};

/// sigver 15.0.4.
const V1_15: V1Facts = V1Facts {
    schema: V1Schema::V15,
    close: CloseFrames {
        key: (4001, "KEY_ERROR"),
        // Up to 16 the code was read off an error that had none.
        decode_error: None,
        empty_content: EmptyContentClose::NoCode,
        wrong_frame_kind: (4003, "the message means nothing here"),
        unknown_message: (4003, "the message means nothing here"),
        unresponsive: (4002, "Signaling: pong not received in 5000 milliseconds"),
        replaced: (4004, "prevent other peers from joining the group"),
    },
    member_choice: MemberChoice::Oldest,
    keepalive_of_joiners: false,
    confirms_membership: false,
    try_another: false,
    error_closes_both: false,
};

/// sigver 15.0.1.
const V1_15_0_1: V1Facts = V1Facts { keepalive_of_joiners: true, confirms_membership: true, ..V1_15 };

/// Ping and pong are fields 3 and 4 (source). Not measured: the rest, which is that of 15.0.1.
const V15_0_0: ReleaseFacts = ReleaseFacts {
    version: "15.0.0",
    versions: &["15.0.0"],
    dialect: Dialect::Sigver15,
    keepalive: PINGS,
    family: FamilyFacts::ProtobufV1(V1Facts { schema: V1Schema::V15_0_0, ..V1_15_0_1 }),
};

const V15_0_1: ReleaseFacts = ReleaseFacts {
    version: "15.0.1",
    versions: &["15.0.1"],
    dialect: Dialect::Sigver15,
    keepalive: PINGS,
    family: FamilyFacts::ProtobufV1(V1_15_0_1),
};

const V15_0_2: ReleaseFacts = ReleaseFacts {
    version: "15.0.2",
    versions: &["15.0.2"],
    dialect: Dialect::Sigver15,
    keepalive: Keepalive::PingPong { interval_s: 4 },
    family: FamilyFacts::ProtobufV1(V1Facts {
        close: CloseFrames { unresponsive: (4002, "Pong not received in 4000 seconds"), ..V1_15.close },
        ..V1_15_0_1
    }),
};

const V15_0_4: ReleaseFacts = ReleaseFacts {
    version: "15.0.4",
    versions: &["15.0.4"],
    dialect: Dialect::Sigver15,
    keepalive: PINGS,
    family: FamilyFacts::ProtobufV1(V1_15),
};

const V15_1_0: ReleaseFacts = ReleaseFacts {
    version: "15.1.0",
    versions: &["15.1.0"],
    dialect: Dialect::Sigver15_1,
    keepalive: PINGS,
    family: FamilyFacts::ProtobufV1(V1Facts { schema: V1Schema::V15_1, ..V1_15 }),
};

/// sigver 16.
const V1_16: V1Facts = V1Facts {
    schema: V1Schema::V16,
    close: CloseFrames { unresponsive: (4002, "Too many missed hearbeats"), ..V1_15.close },
    ..V1_15
};

const V16_0_0: ReleaseFacts = ReleaseFacts {
    version: "16.0.0",
    versions: &["16.0.0"],
    dialect: Dialect::Sigver16,
    keepalive: FINAL_HEARTBEAT,
    family: FamilyFacts::ProtobufV1(V1_16),
};

const V17_0_1: ReleaseFacts = ReleaseFacts {
    version: "17.0.1",
    versions: &["17.0.0", "17.0.1"],
    dialect: Dialect::Sigver16,
    keepalive: FINAL_HEARTBEAT,
    family: FamilyFacts::ProtobufV1(V1Facts {
        close: CloseFrames {
            key: (4001, "ERR_KEY"),
            decode_error: Some(4003),
            empty_content: EmptyContentClose::Text {
                code: 4003,
                name: "ERR_MESSAGE",
                member: "a network member",
            },
            ..V1_16.close
        },
        member_choice: MemberChoice::Random,
        ..V1_16
    }),
};

const V18_0_0: ReleaseFacts = ReleaseFacts {
    version: "18.0.0",
    versions: &["18.0.0"],
    dialect: Dialect::Sigver18,
    keepalive: HEARTBEAT,
    family: FamilyFacts::ProtobufV1(V1Facts {
        schema: V1Schema::V18,
        close: CloseFrames {
            key: (4001, "4001"),
            decode_error: Some(4003),
            empty_content: EmptyContentClose::Text { code: 4003, name: "4003", member: "a group member" },
            ..V1_16.close
        },
        keepalive_of_joiners: true,
        try_another: true,
        error_closes_both: true,
        ..V1_16
    }),
};

/// sigver 19.1.
const V2_19: V2Facts = V2Facts {
    close: CloseFrames {
        key: (4741, "4741"),
        decode_error: Some(4743),
        empty_content: EmptyContentClose::UnknownMessage,
        wrong_frame_kind: (4743, "Wrong message format or unknown message"),
        unknown_message: (4743, "Wrong message format or unknown message"),
        unresponsive: (4742, "Too many missed hearbeats"),
        replaced: (4744, "replaced by a peer as prevented him from joining the group"),
    },
    prefers_favored: true,
    admit_before_unlink: false,
};

const V19_0_0: ReleaseFacts = ReleaseFacts {
    version: "19.0.0",
    versions: &["19.0.0"],
    dialect: Dialect::Sigver19,
    keepalive: HEARTBEAT,
    family: FamilyFacts::ProtobufV2(V2Facts { prefers_favored: false, ..V2_19 }),
};

const V19_1_2: ReleaseFacts = ReleaseFacts {
    version: "19.1.2",
    versions: &["19.1.2"],
    dialect: Dialect::Sigver19,
    keepalive: HEARTBEAT,
    family: FamilyFacts::ProtobufV2(V2_19),
};

const V20_0_2: ReleaseFacts = ReleaseFacts {
    version: "20.0.2",
    versions: &["20.0.0", "20.0.1", "20.0.2"],
    dialect: Dialect::Sigver20,
    keepalive: HEARTBEAT,
    family: FamilyFacts::ProtobufV2(V2_19),
};

const V20_1_0: ReleaseFacts = ReleaseFacts {
    version: "20.1.0",
    versions: &["20.1.0", "21"],
    dialect: Dialect::Sigver20,
    keepalive: HEARTBEAT,
    family: FamilyFacts::ProtobufV2(V2Facts {
        close: CloseFrames { wrong_frame_kind: (4743, "Wrong data type"), ..V2_19.close },
        admit_before_unlink: true,
        ..V2_19
    }),
};
