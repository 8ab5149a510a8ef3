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

pub(super) const BRIDGE_MAX_MEMBERS: OptionSpec = set("bridge-max-members", "number", "16", |d, v| {
    parse::bridged_members(v).map(|v| d.config.bridge.limits.max_members = v)
})
.help(Bridge, "Most members of a room that are bridged. Newcomers beyond it are among their own generation");

pub(super) const BRIDGE_MAX_CONNECTIONS: OptionSpec = set(
    "bridge-max-connections",
    "number",
    "2000",
    |d, v| parse::bridge_connections(v).map(|v| d.config.bridge.limits.max_connections = v),
)
.help(
    Bridge,
    "Most connections of the bridge to clients: one per client and member of another generation in its room",
);

pub(super) const BRIDGE_MAX_MEMBER_RATE: OptionSpec =
    set("bridge-max-member-rate", "bytes", "8388608", |d, v| {
        parse::bridge_rate(v).map(|v| d.config.bridge.limits.max_member_rate = v)
    })
    .help(
        Bridge,
        "Most bytes per second that are carried for one member, to all others together. What is beyond waits",
    );

pub(super) const BRIDGE_MAX_ROOM_RATE: OptionSpec =
    set("bridge-max-room-rate", "bytes", "16777216", |d, v| {
        parse::bridge_rate(v).map(|v| d.config.bridge.limits.max_room_rate = v)
    })
    .help(Bridge, "Most bytes per second that are carried in one room. What is beyond waits");
