//! The limits of what clients may use, but for those of single messages and queues.

use std::time::Duration;

/// Longest TLS handshake, and longest wait for a request head. Real clients take a few round trips.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Rooms at the same time.
pub const DEFAULT_MAX_ROOMS: u32 = 1_000_000;

/// Rooms of one connection at the same time. Clients of most releases are in one; those of sigver 8 to 14
/// may open several.
pub const DEFAULT_MAX_ROOMS_PER_CONNECTION: u32 = 18;

/// Members of a room, and peers in it that are no members.
pub const DEFAULT_MAX_ROOM_SIZE: u32 = 65_536;

/// Limits of what clients may use. `None` is no limit, unless stated otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerLimits {
    /// Connections at the same time. `None` (the default) is the limit of open files, less a reserve.
    pub max_connections: Option<u32>,
    /// Connections of one address at the same time; IPv6 addresses count by their first 64 bits. Those over a
    /// Unix socket have no address.
    pub max_connections_per_address: Option<u32>,
    /// New connections of one address in a second.
    pub max_connection_rate: Option<u32>,
    /// Event streams of one address at the same time.
    pub max_streams_per_address: Option<u32>,
    /// Longest time for a TLS handshake.
    pub tls_timeout: Duration,
    /// Longest time for a request head, also on a connection that was used before.
    pub head_timeout: Duration,
    /// Frames that are read from one connection in a second.
    pub max_message_rate: Option<u32>,
    /// Bytes of messages that are read from one connection in a second. At least
    /// [`max_message`](super::Config::max_message).
    pub max_byte_rate: Option<u32>,
    /// Rooms at the same time. See [`DEFAULT_MAX_ROOMS`].
    pub max_rooms: u32,
    /// Rooms of one connection at the same time, at least 2: beyond it, the connection leaves the one that it
    /// entered first. See [`DEFAULT_MAX_ROOMS_PER_CONNECTION`].
    pub max_rooms_per_connection: u32,
    /// Members of one room, at least 2. See [`DEFAULT_MAX_ROOM_SIZE`].
    pub max_members: u32,
    /// Peers in one room that are no members. See [`DEFAULT_MAX_ROOM_SIZE`].
    pub max_joiners: u32,
    /// True (the default) if a client takes the place of the only member of a room through which it cannot
    /// enter, by the rules of sigver 18 to 20. Otherwise it is closed.
    pub replace_members: bool,
    /// Memory of the process, in bytes. `None` (the default) is four fifths of what the system or the control
    /// group has.
    pub max_memory: Option<u64>,
    /// Memory that all clients together may make the server hold in begun messages, bodies of requests and
    /// queues, in bytes. `None` (the default) is half of `max_memory`.
    pub max_buffered: Option<usize>,
}

impl Default for ServerLimits {
    fn default() -> Self {
        ServerLimits {
            max_connections: None,
            max_connections_per_address: None,
            max_connection_rate: None,
            max_streams_per_address: None,
            tls_timeout: HANDSHAKE_TIMEOUT,
            head_timeout: HANDSHAKE_TIMEOUT,
            max_message_rate: None,
            max_byte_rate: None,
            max_rooms: DEFAULT_MAX_ROOMS,
            max_rooms_per_connection: DEFAULT_MAX_ROOMS_PER_CONNECTION,
            max_members: DEFAULT_MAX_ROOM_SIZE,
            max_joiners: DEFAULT_MAX_ROOM_SIZE,
            replace_members: true,
            max_memory: None,
            max_buffered: None,
        }
    }
}
