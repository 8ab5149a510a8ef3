//! Options of the bridge between the generations of clients.

use super::Section::Bridge;
use super::{OptionSpec, set};
use crate::config::{AdminSocketPath, RoomPolicy, parse};

pub(super) const BRIDGE: OptionSpec = set("bridge", "udp address", "", |d, v| {
    d.config.bridge.listen.push(parse::udp_address(v)?);
    if d.config.bridge.socket == AdminSocketPath::Off {
        d.config.bridge.socket = d.auto_admin_socket.clone();
    }
    Ok(())
})
.help(
    Bridge,
    "Start the bridge, sigver bridge, at this UDP address: <ip>:<port>, which clients must reach. It connects clients of \
     different generations in one room, and ends end-to-end encryption between these. May be given several times",
)
.repeatable();

pub(super) const BRIDGE_PUBLIC_ADDRESS: OptionSpec = set("bridge-public-address", "ip", "", |d, v| {
    parse::ip_address(v).map(|v| d.config.bridge.public_addresses.push(v))
})
.help(
    Bridge,
    "Address at which clients reach the bridge, if it is another one, with the same port. May be given once for IPv4 and \
     once for IPv6",
)
.repeatable();

pub(super) const BRIDGE_ROOMS: OptionSpec = set("bridge-rooms", "expression", "", |d, v| {
    parse::regex(v).map(|v| d.config.bridge.rooms = RoomPolicy::PartitionedFor(v))
})
.help(
    Bridge,
    "Keys whose rooms are bridged, as a regular expression; without it, all. These keys have rooms by generation",
);

pub(super) const BRIDGE_SOCKET: OptionSpec = set("bridge-socket", "path", "", |d, v| {
    parse::bridge_socket(v).map(|v| d.config.bridge.socket = v)
})
.help(
    Bridge,
    "Socket for the bridge. Without --bridge, the gateway waits there for one that is started by hand or by systemd",
);
