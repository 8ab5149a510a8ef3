//! Settings of the bridge between the generations of clients.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use super::{AdminSocketPath, ConfigError};
use crate::protocol::detect::{ProtocolSet, RoomPolicy};

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
    /// Limits of the process that the gateway starts.
    pub limits: BridgeLimits,
}

/// Limits of the process of the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BridgeLimits {
    /// Most members of a room that are bridged.
    pub max_members: u32,
    /// Most connections to clients in all.
    pub max_connections: u32,
    /// Most bytes per second that are carried for one member.
    pub max_member_rate: u32,
    /// Most bytes per second that are carried in one room.
    pub max_room_rate: u32,
}

/// Address of a bridge at which it cannot serve clients, by the options of `sigver bridge`.
#[derive(Debug, Error)]
pub(crate) enum BridgeAddressError {
    #[error("'--listen {0}': no client can send there; name an address of this machine")]
    Listen(SocketAddr),
    #[error(
        "'--public-address {0}' needs a '--listen' address of the same IP version, and is one that clients can \
         send to"
    )]
    Public(IpAddr),
    #[error("'--public-address {0}' is the second one of its IP version: one is named to clients")]
    SecondPublic(IpAddr),
}

impl From<BridgeAddressError> for ConfigError {
    fn from(error: BridgeAddressError) -> Self {
        match error {
            BridgeAddressError::Listen(address) => ConfigError::BridgeAddress(address),
            BridgeAddressError::Public(address) => ConfigError::BridgePublicAddress(address),
            BridgeAddressError::SecondPublic(address) => ConfigError::BridgePublicAddresses(address),
        }
    }
}

/// Checks that a client can send to each address, and that none is left out of session descriptions.
pub(crate) fn check_bridge_addresses(
    listen: &[SocketAddr],
    public: &[IpAddr],
) -> Result<(), BridgeAddressError> {
    if let Some(address) = listen.iter().find(|address| address.ip().is_multicast()) {
        return Err(BridgeAddressError::Listen(*address));
    }
    for (at, address) in public.iter().enumerate() {
        let is_same = |ip: &IpAddr| ip.is_ipv4() == address.is_ipv4();
        let is_used = listen.iter().any(|address| is_same(&address.ip()));
        if address.is_unspecified() || address.is_multicast() || !is_used {
            return Err(BridgeAddressError::Public(*address));
        }
        if public.iter().take(at).any(is_same) {
            return Err(BridgeAddressError::SecondPublic(*address));
        }
    }
    Ok(())
}

impl Default for BridgeConfig {
    fn default() -> Self {
        BridgeConfig {
            listen: Vec::new(),
            public_addresses: Vec::new(),
            socket: AdminSocketPath::Off,
            rooms: RoomPolicy::Partitioned,
            limits: BridgeLimits::DEFAULT,
        }
    }
}

impl BridgeLimits {
    /// The limits of a bridge that is started without any.
    pub(crate) const DEFAULT: BridgeLimits = BridgeLimits {
        max_members: 16,
        max_connections: 2_000,
        max_member_rate: 8 << 20,
        max_room_rate: 16 << 20,
    };

    /// Returns the arguments of `sigver bridge` that set the limits, with their values.
    pub(crate) fn arguments(self) -> [(&'static str, u32); 4] {
        [
            ("--max-members", self.max_members),
            ("--max-connections", self.max_connections),
            ("--max-member-rate", self.max_member_rate),
            ("--max-room-rate", self.max_room_rate),
        ]
    }
}

impl BridgeConfig {
    /// Returns true if there can be a bridge.
    pub(crate) fn is_enabled(&self) -> bool {
        self.socket != AdminSocketPath::Off
    }

    /// Returns the keys whose rooms are bridged.
    pub(super) fn bridged_rooms(&self) -> RoomPolicy {
        if self.is_enabled() { self.rooms.clone() } else { RoomPolicy::Shared }
    }

    /// Returns true if there can be a bridge, but all clients are of one generation, by the releases served.
    pub(crate) fn is_without_effect(&self, protocol: &ProtocolSet) -> bool {
        self.is_enabled() && protocol.releases.peer_protocols().count_ones() < 2
    }

    /// Checks the settings against each other.
    pub(super) fn check(&self, transcode: bool, in_cluster: bool) -> Result<(), ConfigError> {
        let is_given = !self.listen.is_empty()
            || !self.public_addresses.is_empty()
            || self.rooms != RoomPolicy::Partitioned;
        if cfg!(not(feature = "bridge")) && !self.listen.is_empty() {
            return Err(ConfigError::BridgeNotBuilt);
        }
        if self.limits != BridgeLimits::DEFAULT && self.listen.is_empty() {
            return Err(ConfigError::BridgeLimitsWithoutProcess);
        }
        match self.is_enabled() {
            false if is_given => Err(ConfigError::BridgeMissing),
            true if !transcode => Err(ConfigError::BridgeWithoutTranscoding),
            true if in_cluster => Err(ConfigError::BridgeInCluster),
            true | false => Ok(check_bridge_addresses(&self.listen, &self.public_addresses)?),
        }
    }

    /// Returns the long names of the options by which this configuration differs from another one.
    pub(super) fn differences(&self, other: &BridgeConfig) -> [(&'static str, bool); 8] {
        let (limits, others) = (self.limits, other.limits);
        [
            ("bridge", self.listen != other.listen),
            ("bridge-public-address", self.public_addresses != other.public_addresses),
            ("bridge-rooms", self.rooms != other.rooms),
            ("bridge-socket", self.socket != other.socket),
            ("bridge-max-members", limits.max_members != others.max_members),
            ("bridge-max-connections", limits.max_connections != others.max_connections),
            ("bridge-max-member-rate", limits.max_member_rate != others.max_member_rate),
            ("bridge-max-room-rate", limits.max_room_rate != others.max_room_rate),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, parse};

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
        let error = check(|config| config.bridge.public_addresses = public).unwrap_err();
        assert_eq!(error, ConfigError::BridgeMissing);
        assert!(error.to_string().contains("'--bridge-public-address' need a bridge"), "{error}");
        let error = check(|config| {
            config.bridge.socket = socket();
            config.bridge.limits.max_members = 3;
        });
        assert_eq!(error, Err(ConfigError::BridgeLimitsWithoutProcess));
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

    #[cfg(feature = "bridge")]
    #[test]
    fn addresses_to_which_no_client_can_send_are_errors() {
        let check = |listen: &str, public: &[&str]| {
            let mut config = Config::default();
            config.bridge.socket = AdminSocketPath::At("bridge.sock".into());
            config.bridge.listen = vec![listen.parse().unwrap()];
            config.bridge.public_addresses = public.iter().map(|ip| ip.parse().unwrap()).collect();
            config.check().map_err(|error| error.to_string())
        };
        assert_eq!(check("0.0.0.0:3478", &["192.0.2.1"]), Ok(()));
        for (listen, public, text) in [
            ("224.0.0.1:3478", vec![], "'--bridge 224.0.0.1:3478'"),
            ("0.0.0.0:3478", vec!["::1"], "'--bridge-public-address ::1' needs"),
            ("0.0.0.0:3478", vec!["0.0.0.0"], "'--bridge-public-address 0.0.0.0' needs"),
            (
                "0.0.0.0:3478",
                vec!["192.0.2.1", "192.0.2.2"],
                "'--bridge-public-address 192.0.2.2' is the second",
            ),
        ] {
            let error = check(listen, &public).unwrap_err();
            assert!(error.starts_with(text), "{error}");
        }
    }

    #[test]
    fn limits_are_those_that_can_be_reached() {
        for (members, is_valid) in [("0", false), ("1", true), ("32", true), ("33", false), ("many", false)] {
            assert_eq!(parse::bridged_members(members).is_ok(), is_valid, "{members}");
        }
        assert!(parse::bridge_connections("65536").is_ok() && parse::bridge_connections("65537").is_err());
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
