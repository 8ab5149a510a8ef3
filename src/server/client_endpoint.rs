//! The client's end of a connection, as limits, logs and refusals use it.

use std::net::IpAddr;

/// The client's end of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientEndpoint {
    /// The client's address, or that of the last proxy if it is not trusted or reports no other. `None` on a
    /// Unix socket.
    pub remote: Option<IpAddr>,
    /// The connection is encrypted by this server.
    pub tls: bool,
    /// The connection is that of a trusted proxy, which may be for several clients: limits by address are for
    /// requests, and not for the connection.
    pub behind_proxy: bool,
}
