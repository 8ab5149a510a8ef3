//! The types of a question that a node asks another for one connection, and of a call to it.

use std::future::Future;
use std::pin::Pin;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// An event stream, by the form of its requests and its random id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct StreamName {
    /// The major version of sigver whose form it has.
    pub(crate) form: u8,
    /// The id.
    pub(crate) id: u64,
}

/// A question of one node to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::VariantNames))]
pub(crate) enum Question {
    /// The receiver has this event stream.
    HasStream(StreamName),
    /// The stream takes this message of its client.
    Post(StreamName, ByteString),
    /// The receiver has a listener under this handle of signaller.
    HasListener(ByteString),
    /// The receiver has a listener under this handle, or has reserved it with no higher rank than this one,
    /// with which the asker has.
    KeepsHandle(ByteString, u64),
}

/// The answer to a question, once it is known.
pub(crate) type Answer = Pin<Box<dyn Future<Output = bool> + Send>>;

/// The connection to another node. Rustls reads a few kilobytes at a time, each of which would be a system
/// call without a buffer.
pub(super) type NodeSocket = BufReader<TcpStream>;

/// Buffer of a connection between nodes, in bytes: two TLS records. A busy link has more waiting.
pub(crate) const SOCKET_BUFFER: usize = 32 * 1024;

/// The stream of a call.
pub(crate) type CallStream = TlsStream<NodeSocket>;

/// The receiver of the stream of a call. Dropping it ends the call.
pub(crate) type AcceptedCall = Box<dyn FnOnce(CallStream) + Send>;
