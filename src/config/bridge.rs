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
    pub(super) fn check(&self, transcode: bool, in_cluster: bool) -> Result<(), ConfigError> {
        let is_given = !self.listen.is_empty()
            || !self.public_addresses.is_empty()
            || self.rooms != RoomPolicy::Partitioned;
        if cfg!(not(feature = "bridge")) && !self.listen.is_empty() {
            return Err(ConfigError::BridgeNotBuilt);
        }
        match self.is_enabled() {
            false if is_given => Err(ConfigError::BridgeMissing),
            true if !transcode => Err(ConfigError::BridgeWithoutTranscoding),
            true if in_cluster => Err(ConfigError::BridgeInCluster),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn check(configure: impl FnOnce(&mut Config)) -> Result<(), ConfigError> {
        let mut config = Config::default();
        configure(&mut config);
        config.check()
    }

    #[test]
    fn bridge_needs_what_it_cannot_work_without() {
        let socket = || AdminSocketPath::At("bridge.sock".into());
        assert_eq!(check(|config| config.bridge.socket = socket()), Ok(()));
        let keys = RoomPolicy::PartitionedFor("x".parse().unwrap());
        assert_eq!(check(|config| config.bridge.rooms = keys), Err(ConfigError::BridgeMissing));
        let public = vec!["192.0.2.1".parse().unwrap()];
        assert_eq!(check(|config| config.bridge.public_addresses = public), Err(ConfigError::BridgeMissing));
        let error = check(|config| {
            config.bridge.socket = socket();
            config.transcode = false;
        });
        assert_eq!(error, Err(ConfigError::BridgeWithoutTranscoding));
        let error = check(|config| {
            config.bridge.socket = socket();
            config.cluster.url = Some(crate::config::EngineUrl::parse("redis://localhost").unwrap());
        });
        assert_eq!(error, Err(ConfigError::BridgeInCluster));
        let error = check(|config| {
            config.bridge.socket = socket();
            config.bridge.listen = vec!["127.0.0.1:0".parse().unwrap()];
        });
        assert_eq!(error.is_ok(), cfg!(feature = "bridge"));
    }

    #[test]
    fn keys_are_bridged_only_with_a_bridge() {
        let mut config = Config::default();
        assert!(!config.policy().is_bridged("k"));
        config.bridge.socket = AdminSocketPath::At("bridge.sock".into());
        assert!(config.policy().is_bridged("k"));
        config.bridge.rooms = RoomPolicy::PartitionedFor("^b-".parse().unwrap());
        assert!(config.policy().is_bridged("b-k") && !config.policy().is_bridged("k"));
    }
}
