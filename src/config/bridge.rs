//! Settings of the bridge between the generations of clients.

use std::net::{IpAddr, SocketAddr};

use super::{AdminSocketPath, ConfigError};
use crate::protocol::detect::RoomPolicy;

/// Settings of the bridge between the generations of clients. By default there is none.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BridgeConfig {
    /// UDP addresses of the process that the gateway starts. By default none, and it starts no process.
    pub listen: Vec<SocketAddr>,
    /// Addresses at which clients reach them, if they are others.
    pub public_addresses: Vec<IpAddr>,
    /// Location of the socket at which a bridge connects. By default there is none, and no bridge.
    pub socket: AdminSocketPath,
    /// Keys whose rooms are bridged: all of them ([`RoomPolicy::Partitioned`], the default), or those that
    /// match.
    pub rooms: RoomPolicy,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        BridgeConfig {
            listen: Vec::new(),
            public_addresses: Vec::new(),
            socket: AdminSocketPath::Off,
            rooms: RoomPolicy::Partitioned,
        }
    }
}

impl BridgeConfig {
    /// Returns true if there can be a bridge.
    pub fn is_enabled(&self) -> bool {
        self.socket != AdminSocketPath::Off
    }

    /// Returns the keys whose rooms are bridged.
    pub(super) fn bridged_rooms(&self) -> RoomPolicy {
        if self.is_enabled() { self.rooms.clone() } else { RoomPolicy::Shared }
    }

    /// Checks the settings against each other.
    pub(super) fn check(&self, transcode: bool) -> Result<(), ConfigError> {
        let is_given = !self.listen.is_empty()
            || !self.public_addresses.is_empty()
            || self.rooms != RoomPolicy::Partitioned;
        match self.is_enabled() {
            false if is_given => Err(ConfigError::BridgeMissing),
            true if !transcode => Err(ConfigError::BridgeWithoutTranscoding),
            true | false => Ok(()),
        }
    }

    /// Returns the long names of the options by which this configuration differs from another one.
    pub(super) fn differences(&self, other: &BridgeConfig) -> [(&'static str, bool); 4] {
        [
            ("bridge", self.listen != other.listen),
            ("bridge-public-address", self.public_addresses != other.public_addresses),
            ("bridge-rooms", self.rooms != other.rooms),
            ("bridge-socket", self.socket != other.socket),
        ]
    }
}
