//! The configuration of a gateway: the [`Config`], its defaults, and the rules for its values.
//!
//! The values are typed, and parsed once, by `parse`. The names under which an operator sets them (flags,
//! environment variables) are in `cli`. Nothing here reads the process, a file or the network.

mod access;
mod admin_socket;
mod bridge;
mod cluster;
mod config_error;
pub(crate) mod io_text;
mod limits;
mod listen_address;
mod log_format;
mod log_ip;
pub(crate) mod parse;
mod pem_source;
pub(crate) mod redact;
mod reload;

use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::protocol::detect::Policy;
pub use crate::protocol::detect::{DetectionTimeouts, ProtocolSet, ProtocolSetError, RoomPolicy};
pub use crate::protocol::signaller::PipeLimits;
pub use access::{
    AccessConfig, AllowedOrigins, AuthConfig, AuthMethod, DEFAULT_CALLOUT_CACHE, DEFAULT_CALLOUT_TIMEOUT,
    DEFAULT_JWT_CLAIM, IpNetwork, OriginPattern, ProxyProtocol, TrustedProxies,
};
pub use admin_socket::AdminSocketPath;
#[cfg(feature = "bridge")]
pub(crate) use bridge::check_bridge_addresses;
pub use bridge::{BridgeConfig, BridgeLimits};
pub(crate) use cluster::parse_name;
pub use cluster::{ClusterConfig, DEFAULT_CLUSTER_NAME, EngineLoss, EngineServers, EngineUrl, NodeAddress};
pub use config_error::ConfigError;
pub use limits::{DEFAULT_MAX_ROOM_SIZE, DEFAULT_MAX_ROOMS, DEFAULT_MAX_ROOMS_PER_CONNECTION, ServerLimits};
pub use listen_address::ListenAddress;
pub use log_format::LogFormat;
pub use log_ip::LogIp;
pub use pem_source::PemSource;

/// Every IPv4 interface, as for the Node.js servers. IPv6 takes `::`.
pub const DEFAULT_HOST: &str = "0.0.0.0";

/// Port of the Node.js servers. Above 1024, so that no privilege is needed.
pub const DEFAULT_PORT: u16 = 8000;

/// Longest message, in bytes: 1 MiB, hundreds of times a usual session description.
///
/// The Node.js servers took up to 100 MiB, which lets one client hold that much memory with a single message.
pub const DEFAULT_MAX_MESSAGE: usize = 1 << 20;

/// Longest send queue of a client, in bytes: 4 MiB, which is four messages of the largest size.
///
/// The Node.js servers had no bound: one receiver that stopped reading could exhaust the memory of the
/// process.
pub const DEFAULT_MAX_PENDING: usize = 4 << 20;

/// Time over which connections are closed when the gateway stops. netflux comes back a fixed time after a
/// close, so that closes at one time would be joins at one time.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Time without a frame after which a client is sent a WebSocket ping. After twice that time it is
/// disconnected.
pub const PING_AFTER: Duration = Duration::from_secs(45);

/// Longest time from the first byte of a message to its last, and longest time in which a client reads
/// nothing of what waits for it. Real clients send and read messages of some kB at once.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings of one gateway. Each is within its own range; [`Config::check`] relates them to each other.
///
/// ```
/// let mut config = sigver::Config::default().with_address("127.0.0.1", 0);
/// config.protocol = "sigver-20".parse()?;
/// # Ok::<(), sigver::config::ProtocolSetError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Addresses to listen on. By default one, of [`DEFAULT_HOST`] and [`DEFAULT_PORT`].
    pub listen: Vec<ListenAddress>,
    /// PEM files for TLS, for all but Unix sockets. `None` (the default) serves plain text.
    pub tls: Option<TlsFiles>,
    /// Protocols that are served. By default all.
    pub protocol: ProtocolSet,
    /// Longest message that a client may send, in bytes. See [`DEFAULT_MAX_MESSAGE`].
    pub max_message: usize,
    /// Longest send queue of a client, in bytes; a client with a longer one is disconnected. See
    /// [`DEFAULT_MAX_PENDING`].
    pub max_pending: usize,
    /// Limits of what clients may use, but for those of single messages and queues.
    pub limits: ServerLimits,
    /// True (the default) if WebRTC payloads are translated between the netflux generations.
    pub transcode: bool,
    /// The clients that meet under one key. By default all.
    pub rooms: RoomPolicy,
    /// Waiting times of the protocol detection.
    pub detection: DetectionTimeouts,
    /// Time without a frame after which a client is sent a WebSocket ping. See [`PING_AFTER`].
    pub ping_after: Duration,
    /// Time after which a client that does not finish a message or does not read is disconnected. See
    /// [`STALL_TIMEOUT`].
    pub stall_timeout: Duration,
    /// Time over which connections are closed when the gateway stops. See [`DEFAULT_DRAIN_TIMEOUT`].
    pub drain_timeout: Duration,
    /// Log filter of the program; the gateway itself does not read it. By default `info`.
    pub log: Targets,
    /// Form of the program's log; the gateway itself does not read it. By default text.
    pub log_format: LogFormat,
    /// Part of clients' addresses that is logged. By default none.
    pub log_ip: LogIp,
    /// Location of the control socket. By default there is none.
    pub admin_socket: AdminSocketPath,
    /// Address of the admin listener, which has no authentication. By default there is none.
    pub admin: Option<ListenAddress>,
    /// Transports that are served. By default all.
    pub transports: EnabledTransports,
    /// Settings of the signaller protocol.
    pub signaller: SignallerConfig,
    /// Settings of who may connect. By default every client may.
    pub access: AccessConfig,
    /// Settings of the bridge between the generations of clients. By default there is none.
    pub bridge: BridgeConfig,
    /// Settings of a cluster. By default the server is in none.
    pub cluster: ClusterConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![ListenAddress::Tcp { host: DEFAULT_HOST.to_owned(), port: DEFAULT_PORT }],
            tls: None,
            protocol: ProtocolSet::default(),
            max_message: DEFAULT_MAX_MESSAGE,
            max_pending: DEFAULT_MAX_PENDING,
            limits: ServerLimits::default(),
            transcode: true,
            rooms: RoomPolicy::default(),
            detection: DetectionTimeouts::default(),
            ping_after: PING_AFTER,
            stall_timeout: STALL_TIMEOUT,
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
            log: Targets::new().with_default(LevelFilter::INFO),
            log_format: LogFormat::Text,
            log_ip: LogIp::Off,
            admin_socket: AdminSocketPath::default(),
            admin: None,
            transports: EnabledTransports::default(),
            signaller: SignallerConfig::default(),
            access: AccessConfig::default(),
            bridge: BridgeConfig::default(),
            cluster: ClusterConfig::default(),
        }
    }
}

impl Config {
    /// Returns this configuration with one TCP address to listen on.
    #[must_use]
    pub fn with_address(self, host: impl Into<String>, port: u16) -> Self {
        Self { listen: vec![ListenAddress::Tcp { host: host.into(), port }], ..self }
    }

    /// Returns the part that concerns the protocol detection.
    pub fn policy(&self) -> Policy {
        Policy {
            timeouts: self.detection,
            transcode: self.transcode,
            rooms: self.rooms.clone(),
            bridged: self.bridge.bridged_rooms(),
            ..Policy::new(self.protocol.releases)
        }
    }

    /// Checks the settings against each other.
    ///
    /// # Errors
    ///
    /// Any but contradictions of the options for TLS.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.max_pending < self.max_message {
            return Err(ConfigError::PendingBelowMessage {
                max_message: self.max_message,
                max_pending: self.max_pending,
            });
        }
        if let Some(rate) = self.limits.max_byte_rate
            && (rate as usize) < self.max_message
        {
            return Err(ConfigError::RateBelowMessage { max_message: self.max_message, max_byte_rate: rate });
        }
        if self.detection.margin > self.detection.silence {
            return Err(ConfigError::MarginAboveMax {
                margin: self.detection.margin.as_millis(),
                max: self.detection.silence.as_millis(),
            });
        }
        self.bridge.check(self.transcode, self.cluster.url.is_some())?;
        self.cluster.check()?;
        self.access.check()
    }
}

/// Transports that are served. A Node.js server had one or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EnabledTransports {
    /// WebSockets and event streams.
    #[default]
    All,
    /// WebSockets only.
    WebSocket,
    /// Event streams (server-sent events) only.
    EventStream,
}

/// Settings of the signaller protocol, with the defaults of that program.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SignallerConfig {
    /// Origins of pages that may connect: the expression has to match somewhere in the `Origin` header, so
    /// that the operator has to anchor it. Without one, [`AccessConfig::allowed_origins`] decides; without
    /// these, the server's own origin and clients that send none.
    pub origin: Option<OriginPattern>,
    /// Limits of a pipe.
    pub limits: PipeLimits,
}

/// PEM files for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Private key.
    pub key: PemSource,
    /// Certificate of the server; intermediate certificates may follow in the same file.
    pub cert: PemSource,
    /// More intermediate certificates, sent after those of `cert`.
    pub ca: Option<PemSource>,
    /// Certificates of the authorities by which a client's certificate has to be signed, and revocation lists
    /// of these. `None` asks clients for no certificate.
    pub client_ca: Option<PemSource>,
}

impl TlsFiles {
    /// Combines the files that were given. No file at all is plain text, `None`.
    ///
    /// # Errors
    ///
    /// The file that is missing.
    pub(crate) fn from_parts(
        key: Option<PemSource>,
        cert: Option<PemSource>,
        ca: Option<PemSource>,
        client_ca: Option<PemSource>,
    ) -> Result<Option<Self>, ConfigError> {
        match (key, cert, ca, client_ca) {
            (Some(key), Some(cert), ca, client_ca) => Ok(Some(Self { key, cert, ca, client_ca })),
            (None, None, None, None) => Ok(None),
            (Some(_), None, _, _) => Err(ConfigError::KeyWithoutCert),
            (None, Some(_), _, _) => Err(ConfigError::CertWithoutKey),
            (None, None, Some(_), _) => Err(ConfigError::CaAlone),
            (None, None, None, Some(_)) => Err(ConfigError::ClientCaAlone),
        }
    }
}

#[cfg(test)]
mod tests;
