//! Messages of the two clients: ICE candidates as real clients of each generation send them, an offer in
//! sigver 6, which has no candidates, or a content other than WebRTC signaling.

use sigver::protocol::dialect::{Dialect, Family};
use sigver::tools::client::dialects::{ClientFrame, JoinerId, Role, SyntheticClient};
use sigver::tools::client::message::{MessageKind, TestMessage};
use sigver::tools::protobuf::{delimited, number};

const CANDIDATE: &str = "candidate:842163049 1 udp 1677729535 203.0.113.7 46154 typ srflx raddr 0.0.0.0 rport 0 \
                         generation 0 ufrag EEtu network-id 1 network-cost 999";
const SDP: &str = r"v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:EEtu\r\na=ice-pwd:9oAGSjWLlcPXgVGMgwKzXKqr\r\na=ice-options:trickle\r\na=fingerprint:sha-256 12:DF:3E:5A:0B:6C:99:A1:42:77:0D:1E:84:C3:5F:A0:12:DF:3E:5A:0B:6C:99:A1:42:77:0D:1E:84:C3:5F:A0\r\na=setup:actpass\r\na=mid:0\r\na=sctp-port:5000\r\n";

/// Service id of netflux 4's channel builder.
const BUILDER: u32 = 7431;

/// A kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageSet {
    /// An ICE candidate, which is transcoded between netflux generations.
    Candidate,
    /// A JSON object as long as those of `sigver bench cross`, which is passed unchanged.
    Content,
}

/// Length of a content, in bytes.
const CONTENT: usize = 64;

/// Returns the message that the synthetic client frames; its content is inserted afterwards.
fn test_message(dialect: Dialect) -> TestMessage {
    let shape = if dialect == Dialect::Sigver6 { MessageKind::Offer } else { MessageKind::Candidate };
    TestMessage::new(shape, "hotpath")
}

/// Returns the message that a joiner sends with its request to join, if it sends any.
pub fn first(dialect: Dialect) -> Option<TestMessage> {
    (dialect == Dialect::Sigver7).then(|| test_message(dialect))
}

/// Returns the client's frame for the other; `None` if the dialect lacks the message.
///
/// A member addresses its only joiner, which it knows as `from`.
pub fn frame(
    dialect: Dialect,
    client: &mut dyn SyntheticClient,
    role: Role,
    from: Option<&JoinerId>,
    messages: MessageSet,
) -> Option<ClientFrame> {
    // Messages of these joiners carry no sender: members count their joiners.
    let counted = matches!(dialect, Dialect::Sigver1 | Dialect::Sigver4) && role == Role::Member;
    let counted = counted.then(|| JoinerId::from_number(0));
    let to = from.or(counted.as_ref());
    if messages == MessageSet::Content {
        return client.encode(to, &TestMessage::with_size(MessageKind::Json, CONTENT));
    }
    if dialect.family() != Family::Json {
        return client.encode(to, &TestMessage::from_bytes(candidate(dialect, role, to)));
    }
    let test_message = test_message(dialect);
    let ClientFrame::Text(text) = client.encode(to, &test_message)? else { return None };
    let body = match dialect {
        Dialect::Sigver6 => format!(r#"{{"type":"offer","sdp":"{SDP}"}}"#),
        _ => format!(r#"{{"candidate":"{CANDIDATE}","sdpMid":"0","sdpMLineIndex":0}}"#),
    };
    Some(ClientFrame::Text(text.replace(&test_message.body().to_string(), &body)))
}

/// Returns a candidate as the protobuf clients of the dialect encode it.
fn candidate(dialect: Dialect, role: Role, to: Option<&JoinerId>) -> Vec<u8> {
    let candidate = [delimited(1, CANDIDATE.as_bytes()), delimited(2, b"0"), number(3, 0)].concat();
    if dialect.family() == Family::ProtobufV1 {
        return delimited(4, &candidate);
    }
    let to = to.and_then(|to| to.0.as_u64()).and_then(|to| u32::try_from(to).ok()).unwrap_or(0);
    let from = if role == Role::Joiner { 300_000_012 } else { 0 };
    [number(1, from), number(2, to), number(3, BUILDER), delimited(4, &delimited(3, &candidate))].concat()
}
