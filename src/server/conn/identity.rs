//! Identity of a connection, and the cause of its end: one tracing span, and one line at its end.
//!
//! Close reasons are not logged: those of the dialects name keys and repeat messages.

use std::io;

use tracing::Span;

use crate::config::LogIp;
use crate::protocol::dialect::MessageLimit;
use crate::protocol::frame::Close;
use crate::protocol::model::{PeerId, Reason};
use crate::server::auth::Grant;
use crate::server::client_endpoint::ClientEndpoint;
use crate::server::telemetry::LimitKind;
use crate::server::transport::TransportKind;

/// A client that may connect.
#[derive(Clone, Debug)]
pub struct AdmittedClient {
    /// The client's end of the connection.
    pub(crate) endpoint: ClientEndpoint,
    /// The rights of the client; `None` if all have all.
    pub(crate) grant: Option<Box<Grant>>,
}

impl From<ClientEndpoint> for AdmittedClient {
    fn from(endpoint: ClientEndpoint) -> Self {
        AdmittedClient { endpoint, grant: None }
    }
}

/// Returns the span of a connection: only at `debug`, unless addresses are asked for.
pub(crate) fn connection_span(
    id: PeerId,
    endpoint: ClientEndpoint,
    transport: TransportKind,
    log_ip: LogIp,
) -> Span {
    let (id, transport, tls) = (id.0, transport.name(), endpoint.tls);
    match endpoint.remote.and_then(|remote| log_ip.format(remote)) {
        Some(remote) => {
            tracing::info_span!("connection", id, %remote, transport, tls, dialect = tracing::field::Empty)
        }
        None => tracing::debug_span!("connection", id, transport, tls, dialect = tracing::field::Empty),
    }
}

/// Condition in which the server closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseTrigger {
    /// A rule of the client's dialect, a timeout among them.
    Dialect,
    /// A message nested deeper than allowed.
    MessageTooDeep,
    /// A room key longer than allowed.
    KeyTooLong,
    /// A message longer than allowed.
    MessageTooBig,
    /// A violation of the transport's protocol.
    ProtocolError,
    /// A client that does not read what it is sent.
    SlowConsumer,
    /// A message whose rest did not arrive in time.
    MessageTimeout,
    /// A client whose messages have no room in the queue of their receiver.
    ReceiverFull,
    /// A client that makes the server hold more than it may.
    MemoryLimit,
    /// A room too many.
    RoomLimit,
    /// A member too many in a room.
    MemberLimit,
    /// A joiner too many in a room.
    JoinerLimit,
    /// A client that would have replaced the only member of its room.
    MemberKept,
    /// A client that should have sent the first frame.
    FirstFrameTimeout,
    /// A room that the client's token is not for.
    ForbiddenKey,
    /// The time of the client's token.
    TokenExpired,
    /// The end of the server.
    Shutdown,
}

impl CloseTrigger {
    /// Returns the trigger of a refusal by the rooms.
    pub(super) fn from_refusal(reason: &Reason) -> Self {
        match reason {
            Reason::ReceiverFull => CloseTrigger::ReceiverFull,
            Reason::TooManyRooms => CloseTrigger::RoomLimit,
            Reason::TooManyMembers => CloseTrigger::MemberLimit,
            Reason::TooManyJoiners => CloseTrigger::JoinerLimit,
            Reason::MemberKept => CloseTrigger::MemberKept,
            Reason::KeyForbidden => CloseTrigger::ForbiddenKey,
            Reason::TokenExpired => CloseTrigger::TokenExpired,
            Reason::Overloaded => CloseTrigger::MemoryLimit,
            Reason::SlowConsumer => CloseTrigger::SlowConsumer,
            Reason::MessageTimeout => CloseTrigger::MessageTimeout,
            Reason::MessageTooBig => CloseTrigger::MessageTooBig,
            Reason::NoFirstFrame => CloseTrigger::FirstFrameTimeout,
            Reason::ShuttingDown => CloseTrigger::Shutdown,
            Reason::Moved
            | Reason::Unreachable
            | Reason::KeyEmpty
            | Reason::KeyTooLong
            | Reason::KeyTaken
            | Reason::KeyUnknown
            | Reason::DecodeError(_)
            | Reason::UnknownMessage
            | Reason::WrongFrameKind
            | Reason::EmptyContent { .. }
            | Reason::UnknownRecipient
            | Reason::RecipientGone
            | Reason::NotJoined
            | Reason::Unresponsive
            | Reason::Replaced => CloseTrigger::Dialect,
        }
    }

    /// Returns the trigger of a close frame that would be sent because of this one.
    pub(super) fn refined(self, close: &Close) -> Self {
        match (self, MessageLimit::from_close(close)) {
            (CloseTrigger::Dialect, Some(MessageLimit::Depth)) => CloseTrigger::MessageTooDeep,
            (CloseTrigger::Dialect, Some(MessageLimit::KeyLength)) => CloseTrigger::KeyTooLong,
            (trigger, _) => trigger,
        }
    }

    /// Returns the limit that was reached.
    pub(super) const fn limit(self) -> Option<LimitKind> {
        Some(match self {
            CloseTrigger::Dialect
            | CloseTrigger::ProtocolError
            | CloseTrigger::ForbiddenKey
            | CloseTrigger::TokenExpired
            | CloseTrigger::Shutdown => return None,
            CloseTrigger::MessageTooDeep => LimitKind::MessageDepth,
            CloseTrigger::KeyTooLong => LimitKind::KeyLength,
            CloseTrigger::MessageTooBig => LimitKind::MessageSize,
            CloseTrigger::SlowConsumer => LimitKind::SlowConsumer,
            CloseTrigger::MessageTimeout => LimitKind::MessageTimeout,
            CloseTrigger::ReceiverFull => LimitKind::ReceiverFull,
            CloseTrigger::MemoryLimit => LimitKind::Memory,
            CloseTrigger::RoomLimit => LimitKind::Rooms,
            CloseTrigger::MemberLimit => LimitKind::Members,
            CloseTrigger::JoinerLimit => LimitKind::Joiners,
            CloseTrigger::MemberKept => LimitKind::Replacements,
            CloseTrigger::FirstFrameTimeout => LimitKind::FirstFrameTimeout,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            CloseTrigger::Dialect => "dialect",
            CloseTrigger::MessageTooDeep => "message too deep",
            CloseTrigger::KeyTooLong => "key too long",
            CloseTrigger::MessageTooBig => "message too big",
            CloseTrigger::ProtocolError => "protocol error",
            CloseTrigger::SlowConsumer => "slow consumer",
            CloseTrigger::MessageTimeout => "message timeout",
            CloseTrigger::ReceiverFull => "receiver full",
            CloseTrigger::MemoryLimit => "memory limit",
            CloseTrigger::RoomLimit => "room limit",
            CloseTrigger::MemberLimit => "member limit",
            CloseTrigger::JoinerLimit => "joiner limit",
            CloseTrigger::MemberKept => "member kept",
            CloseTrigger::FirstFrameTimeout => "first frame timeout",
            CloseTrigger::ForbiddenKey => "forbidden key",
            CloseTrigger::TokenExpired => "token expired",
            CloseTrigger::Shutdown => "shutdown",
        }
    }
}

/// Cause of the end of a connection.
#[derive(Debug)]
pub(super) enum EndCause {
    /// The server sent a close frame with this code.
    ServerClosed(CloseTrigger, Option<u16>),
    /// The client sent a close frame with this code.
    ClientClosed(Option<u16>),
    /// The client disconnected without a close frame.
    Disconnected,
    /// The client did not answer the WebSocket ping.
    PingTimeout,
    /// The connection broke.
    Io(io::Error),
    /// A bug.
    Panicked,
}

impl EndCause {
    /// Returns true if the server closed the connection, and the close frame has to arrive.
    pub(super) fn is_server_close(&self) -> bool {
        matches!(self, EndCause::ServerClosed(..))
    }

    /// Returns the side that ended the connection, for logs and metrics.
    pub(super) const fn side(&self) -> &'static str {
        match self {
            EndCause::ServerClosed(..) | EndCause::PingTimeout | EndCause::Panicked => "server",
            EndCause::ClientClosed(_) | EndCause::Disconnected => "client",
            EndCause::Io(_) => "network",
        }
    }

    /// Returns the reason, for logs and metrics.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            EndCause::ServerClosed(trigger, _) => trigger.name(),
            EndCause::ClientClosed(_) => "close frame",
            EndCause::Disconnected => "disconnected",
            EndCause::PingTimeout => "ping timeout",
            EndCause::Io(_) => "I/O error",
            EndCause::Panicked => "panic",
        }
    }

    /// Logs the one line about the end of a connection.
    pub(super) fn log(&self, id: PeerId, lasted_s: u32) {
        let (id, by, cause) = (id.0, self.side(), self.name());
        match self {
            // More than debugging: the operator can raise the limit.
            EndCause::ServerClosed(CloseTrigger::SlowConsumer, code) => {
                tracing::info!(id, code, lasted_s, "closed a client that does not read what it is sent");
            }
            EndCause::ServerClosed(_, code) | EndCause::ClientClosed(code) => {
                tracing::debug!(id, by, cause, code, lasted_s, "connection ended");
            }
            EndCause::Disconnected | EndCause::PingTimeout => {
                tracing::debug!(id, by, cause, lasted_s, "connection ended");
            }
            EndCause::Io(error) => {
                let error: &dyn std::error::Error = error;
                tracing::debug!(id, by, cause, error, lasted_s, "connection ended");
            }
            EndCause::Panicked => {
                tracing::error!(id, lasted_s, "connection ended by a panic: this is a bug of the server");
            }
        }
    }
}
