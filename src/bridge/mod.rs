//! The process `sigver bridge`: a WebRTC peer of each netflux group in rooms where there are several.
//!
//! The gateway has no WebRTC stack and no UDP port. It reports to this process who is in mixed rooms and
//! carries session descriptions, over a Unix socket; frames on data channels go between clients and this
//! process. Who is there and what is sent is decided by `protocol::mesh`; `engine` connects that to
//! peer connections, without sockets and clocks, and `process` has these.

mod args;
mod client_shares;
mod connection_limits;
mod connections;
mod deadlines;
mod engine;
mod peer_connection;
mod process;
mod send_queue;
mod str0m_connection;
mod stun;

pub(crate) use args::BridgeArgs;
pub(crate) use process::run;
