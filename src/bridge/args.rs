//! Arguments of `sigver bridge`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use tracing_subscriber::filter::Targets;

use super::engine::EngineLimits;
use crate::config::{BridgeLimits, LogFormat, parse};

const DEFAULT: BridgeLimits = BridgeLimits::DEFAULT;

/// Arguments of `sigver bridge`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BridgeArgs {
    /// Socket of the gateway
    #[arg(long, value_name = "path")]
    pub(crate) socket: PathBuf,
    /// UDP address to receive at, which session descriptions name; repeatable
    #[arg(long, value_name = "address", required = true)]
    pub(crate) listen: Vec<SocketAddr>,
    /// Address that session descriptions name instead, behind a NAT that keeps the port; repeatable, one per
    /// IP version
    #[arg(long, value_name = "ip")]
    pub(crate) public_address: Vec<IpAddr>,
    /// Most members of a room that are bridged
    #[arg(long, value_name = "number", default_value_t = DEFAULT.max_members, value_parser = parse::bridged_members)]
    pub(crate) max_members: u32,
    /// Most connections to clients in all
    #[arg(long, value_name = "number", default_value_t = DEFAULT.max_connections, value_parser = parse::bridge_connections)]
    pub(crate) max_connections: u32,
    /// Most bytes per second that are carried for one member, to all others together; what is beyond waits
    #[arg(long, value_name = "bytes", default_value_t = DEFAULT.max_member_rate, value_parser = parse::bridge_rate)]
    pub(crate) max_member_rate: u32,
    /// Most bytes per second that are carried in one room; what is beyond waits
    #[arg(long, value_name = "bytes", default_value_t = DEFAULT.max_room_rate, value_parser = parse::bridge_rate)]
    pub(crate) max_room_rate: u32,
    /// Stop when the standard input ends, which the gateway that starts the process holds open
    #[arg(long, hide = true)]
    pub(crate) supervised: bool,
    /// Events to log, as for the gateway
    #[arg(long, value_name = "filter", default_value = "info", value_parser = parse::log_filter)]
    pub(crate) log: Targets,
    /// Form of the log: text, json or journald
    #[arg(long, value_name = "format", default_value = "text", value_parser = parse::log_format)]
    pub(crate) log_format: LogFormat,
}

impl BridgeArgs {
    /// Returns the bounds that the arguments set.
    pub(super) fn limits(&self) -> EngineLimits {
        let mut limits = EngineLimits::default();
        let number = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        limits.room.presence.max_members = number(self.max_members);
        limits.room.member_rate = self.max_member_rate;
        limits.room.room_rate = self.max_room_rate;
        limits.connections.max_connections = number(self.max_connections);
        // One for each of two members, if all are of different groups.
        limits.connections.max_connections_per_room =
            number(self.max_members.saturating_mul(self.max_members));
        limits
    }
}
