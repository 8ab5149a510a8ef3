//! The dialects, one row each.

use strum::{EnumCount, EnumString, FromRepr, IntoStaticStr, VariantArray};

use super::facts::{DialectDoc, DialectFacts, SdpEncoding};
use super::{ContentLayout, Family, PeerProtocol, Release};

/// Protocol by which a client is recognised. Several releases may share it, with differences that no client
/// shows.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    EnumCount,
    EnumString,
    FromRepr,
    IntoStaticStr,
    VariantArray,
)]
#[repr(u8)]
pub enum Dialect {
    /// JSON `type` and `id`: sigver 1 to 3.
    #[strum(serialize = "sigver-1")]
    Sigver1,
    /// JSON `type` and `key`: sigver 4.
    #[strum(serialize = "sigver-4")]
    Sigver4,
    /// JSON open/join/index: sigver 5.
    #[strum(serialize = "sigver-5")]
    Sigver5,
    /// JSON key/joinkey/offer/answer: sigver 6.
    #[strum(serialize = "sigver-6")]
    Sigver6,
    /// JSON key/join/id/data: sigver 7.0 to 7.4.
    #[strum(serialize = "sigver-7")]
    Sigver7,
    /// The messages of sigver 7 and `isKeyOk`: sigver 7.6.
    #[strum(serialize = "sigver-7.6")]
    Sigver7_6,
    /// JSON open/join/id/data and `isKeyOk`: sigver 8.
    #[strum(serialize = "sigver-8")]
    Sigver8,
    /// JSON open/join/id/data and `opened`: sigver 9 and 10.
    #[strum(serialize = "sigver-9")]
    Sigver9,
    /// JSON open/join/id/data and `first`, ids are strings: sigver 11.
    #[strum(serialize = "sigver-11")]
    Sigver11,
    /// The messages of sigver 11 and pings: sigver 12 to 14.
    #[strum(serialize = "sigver-13")]
    Sigver13,
    /// Protobuf isFirst/joined/ping: sigver 15.0.
    #[strum(serialize = "sigver-15")]
    Sigver15,
    /// The messages of sigver 15.0 with another content layout: sigver 15.1.
    #[strum(serialize = "sigver-15.1")]
    Sigver15_1,
    /// Protobuf isFirst/joined/heartbeat: sigver 16 and 17.
    #[strum(serialize = "sigver-16")]
    Sigver16,
    /// Protobuf isFirst/stable/tryAnother: sigver 18.
    #[strum(serialize = "sigver-18")]
    Sigver18,
    /// Protobuf connect/connected: sigver 19.
    #[strum(serialize = "sigver-19")]
    Sigver19,
    /// The messages of sigver 19 with another content layout: sigver 20.
    #[strum(serialize = "sigver-20")]
    Sigver20,
}

impl Dialect {
    /// Returns the row of the dialect.
    pub(in crate::protocol::dialect) const fn facts(self) -> &'static DialectFacts {
        match self {
            Dialect::Sigver1 => &SIGVER_1,
            Dialect::Sigver4 => &SIGVER_4,
            Dialect::Sigver5 => &SIGVER_5,
            Dialect::Sigver6 => &SIGVER_6,
            Dialect::Sigver7 => &SIGVER_7,
            Dialect::Sigver7_6 => &SIGVER_7_6,
            Dialect::Sigver8 => &SIGVER_8,
            Dialect::Sigver9 => &SIGVER_9,
            Dialect::Sigver11 => &SIGVER_11,
            Dialect::Sigver13 => &SIGVER_13,
            Dialect::Sigver15 => &SIGVER_15,
            Dialect::Sigver15_1 => &SIGVER_15_1,
            Dialect::Sigver16 => &SIGVER_16,
            Dialect::Sigver18 => &SIGVER_18,
            Dialect::Sigver19 => &SIGVER_19,
            Dialect::Sigver20 => &SIGVER_20,
        }
    }
}

const NO_KEEPALIVE: &str = "none";
const PINGED: &str = "the server pings members every 5 s";
const MEMBER_HEARTBEATS: &str = "heartbeats of members every 5 s, three may be missed";
const HEARTBEATS: &str = "heartbeats every 5 s, three may be missed";

/// Base of the rows of JSON dialects.
const JSON: DialectFacts = DialectFacts {
    family: Family::Json,
    tag: (0, 0),
    release: Release::V3_0_0,
    peer_protocol: PeerProtocol::Netflux1,
    content_layout: None,
    sdp_encoding: SdpEncoding::Json,
    server_sends_first: false,
    priority: 0,
    docs: DialectDoc { first_message: r#"`{"join":K}`"#, keepalive: NO_KEEPALIVE, clients: "" },
};

/// Base of the rows of sigver 15 to 18.
const V1: DialectFacts = DialectFacts {
    family: Family::ProtobufV1,
    tag: (0, 0),
    release: Release::V18_0_0,
    peer_protocol: PeerProtocol::Netflux3,
    content_layout: Some(ContentLayout::V15_1),
    sdp_encoding: SdpEncoding::BuilderWithEnd,
    server_sends_first: true,
    priority: 0,
    docs: DialectDoc { first_message: "nothing", keepalive: HEARTBEATS, clients: "" },
};

/// Base of the rows of sigver 19 and newer.
const V2: DialectFacts = DialectFacts {
    family: Family::ProtobufV2,
    tag: (0, 0),
    release: Release::V20_1_0,
    peer_protocol: PeerProtocol::Netflux4,
    content_layout: Some(ContentLayout::V20),
    sdp_encoding: SdpEncoding::Services,
    server_sends_first: false,
    priority: 0,
    docs: DialectDoc { first_message: "connect", keepalive: HEARTBEATS, clients: "" },
};

const SIGVER_1: DialectFacts = DialectFacts {
    tag: (1, 0),
    release: Release::V3_0_0,
    peer_protocol: PeerProtocol::Sigver1,
    priority: 14,
    docs: DialectDoc { first_message: r#"`{"type":"join","id":K}`"#, ..JSON.docs },
    ..JSON
};

const SIGVER_4: DialectFacts = DialectFacts {
    tag: (4, 0),
    release: Release::V4_0_0,
    peer_protocol: PeerProtocol::Sigver5,
    priority: 13,
    docs: DialectDoc { first_message: r#"`{"type":"join","key":K}`"#, ..JSON.docs },
    ..JSON
};

const SIGVER_5: DialectFacts = DialectFacts {
    tag: (5, 0),
    release: Release::V5_0_0,
    peer_protocol: PeerProtocol::Sigver5,
    priority: 10,
    docs: DialectDoc { first_message: r#"`{"type":"join","key":K}`"#, ..JSON.docs },
    ..JSON
};

const SIGVER_6: DialectFacts = DialectFacts {
    tag: (6, 0),
    release: Release::V6_0_0,
    priority: 12,
    docs: DialectDoc { first_message: r#"`{"joinkey":K}`"#, ..JSON.docs },
    ..JSON
};

const SIGVER_7: DialectFacts = DialectFacts {
    tag: (7, 0),
    release: Release::V7_1_0,
    peer_protocol: PeerProtocol::Netflux0,
    priority: 7,
    docs: DialectDoc {
        first_message: r#"`{"join":K,"data":D}`"#,
        clients: "0.10.3, (0.4 – 0.9)",
        ..JSON.docs
    },
    ..JSON
};

const SIGVER_7_6: DialectFacts = DialectFacts {
    tag: (7, 6),
    release: Release::V7_6_4,
    priority: 6,
    docs: DialectDoc { clients: "0.10.8, 1.0.0-rc.3", ..JSON.docs },
    ..JSON
};

const SIGVER_8: DialectFacts = DialectFacts { tag: (8, 0), release: Release::V8_1_0, priority: 11, ..JSON };

const SIGVER_9: DialectFacts = DialectFacts {
    tag: (9, 0),
    release: Release::V10_1_0,
    priority: 5,
    docs: DialectDoc { clients: "1.0.0-rc.14", ..JSON.docs },
    ..JSON
};

const SIGVER_11: DialectFacts = DialectFacts {
    tag: (11, 0),
    release: Release::V11_0_0,
    priority: 9,
    docs: DialectDoc { clients: "(1.1.0-beta.0 – beta.5)", ..JSON.docs },
    ..JSON
};

const SIGVER_13: DialectFacts = DialectFacts {
    tag: (13, 0),
    release: Release::V14_0_0,
    server_sends_first: true,
    priority: 8,
    docs: DialectDoc {
        keepalive: "the server pings every 5 s",
        clients: "(1.1.0-beta.0 – beta.5)",
        ..JSON.docs
    },
    ..JSON
};

const SIGVER_15: DialectFacts = DialectFacts {
    tag: (15, 0),
    release: Release::V15_0_4,
    peer_protocol: PeerProtocol::Netflux2,
    content_layout: Some(ContentLayout::V15_0),
    sdp_encoding: SdpEncoding::Builder,
    priority: 2,
    docs: DialectDoc { keepalive: PINGED, clients: "1.1.0-beta.7, beta.8, (1.2, 2.0)", ..V1.docs },
    ..V1
};

const SIGVER_15_1: DialectFacts = DialectFacts {
    tag: (15, 1),
    release: Release::V15_1_0,
    peer_protocol: PeerProtocol::Netflux2,
    sdp_encoding: SdpEncoding::Builder,
    priority: 15,
    docs: DialectDoc { keepalive: PINGED, ..V1.docs },
    ..V1
};

// Not 17, which chooses members at random and has other error texts: 16 named the dialect.
const SIGVER_16: DialectFacts = DialectFacts {
    tag: (16, 0),
    release: Release::V16_0_0,
    priority: 3,
    docs: DialectDoc { keepalive: MEMBER_HEARTBEATS, clients: "(2.1)", ..V1.docs },
    ..V1
};

const SIGVER_18: DialectFacts = DialectFacts {
    tag: (18, 0),
    release: Release::V18_0_0,
    priority: 1,
    docs: DialectDoc { clients: "3.0.0", ..V1.docs },
    ..V1
};

const SIGVER_19: DialectFacts = DialectFacts {
    tag: (19, 0),
    release: Release::V19_1_2,
    content_layout: Some(ContentLayout::V19),
    priority: 4,
    docs: DialectDoc { clients: "(4.0.0 – 4.1.2)", ..V2.docs },
    ..V2
};

const SIGVER_20: DialectFacts = DialectFacts {
    tag: (20, 0),
    release: Release::V20_1_0,
    content_layout: Some(ContentLayout::V20),
    priority: 0,
    docs: DialectDoc { clients: "4.3.0, 4.3.1, (4.1.3 – 4.2)", ..V2.docs },
    ..V2
};
