//! Settings that contradict each other.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

/// Settings that contradict each other. Each message names the option to add or change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A private key without a certificate.
    #[error(
        "'-k, --key <file path>' was given without a certificate: add '-c, --cert <file path>' to serve TLS, \
         or remove it to serve plain text"
    )]
    KeyWithoutCert,
    /// A certificate without a private key.
    #[error(
        "'-c, --cert <file path>' was given without its private key: add '-k, --key <file path>' to serve TLS, \
         or remove it to serve plain text"
    )]
    CertWithoutKey,
    /// Intermediate certificates without a certificate and a private key.
    #[error(
        "'-a, --ca <file path>' was given alone: add '-k, --key <file path>' and '-c, --cert <file path>' \
         to serve TLS, or remove it to serve plain text"
    )]
    CaAlone,
    /// Authorities of clients' certificates without TLS.
    #[error(
        "'--client-ca <file path>' was given without TLS: add '-k, --key <file path>' and \
         '-c, --cert <file path>', or remove it to admit clients without a certificate"
    )]
    ClientCaAlone,
    /// The send queue has no room for one message of the largest size.
    #[error(
        "'--max-pending <bytes>' ({max_pending}) must not be less than '--max-message <bytes>' ({max_message}): \
         add --max-pending {max_message} or more"
    )]
    PendingBelowMessage {
        /// Longest message, in bytes.
        max_message: usize,
        /// Longest send queue, in bytes.
        max_pending: usize,
    },
    /// A message of the largest size would take longer than clients wait for an answer to a heartbeat.
    #[error(
        "'--max-byte-rate <bytes>' ({max_byte_rate}) must not be less than '--max-message <bytes>' ({max_message}): \
         add --max-message {max_byte_rate} or less"
    )]
    RateBelowMessage {
        /// Longest message, in bytes.
        max_message: usize,
        /// Bytes in a second.
        max_byte_rate: u32,
    },
    /// Settings of a bridge without one.
    #[error(
        "'--bridge-rooms' and '--bridge-public-address' need a bridge: add '--bridge <udp address>', or \
         '--bridge-socket <path>' for the former"
    )]
    BridgeMissing,
    /// No client can send to an address of the bridge.
    #[error("'--bridge {0}': no client can send there; name an address of this machine")]
    BridgeAddress(SocketAddr),
    /// No session description would have an address, or no client could send to it.
    #[error(
        "'--bridge-public-address {0}' needs a '--bridge' address of the same IP version, and is one that \
         clients can send to"
    )]
    BridgePublicAddress(IpAddr),
    /// Two public addresses of one IP version.
    #[error("'--bridge-public-address {0}' is the second one of its IP version: one is named to clients")]
    BridgePublicAddresses(IpAddr),
    /// The limits are those of a process that the gateway does not start.
    #[error(
        "'--bridge-max-members' and the other limits of the bridge need one that the gateway starts: add \
         '--bridge <udp address>', or give the limit to 'sigver bridge'"
    )]
    BridgeLimitsWithoutProcess,
    /// The program has no clusters.
    #[error("this program was built without the feature cluster: remove '--cluster <url>'")]
    ClusterNotBuilt,
    /// The program has no bridge that it could start.
    #[error("'--bridge' needs a program that is built with the feature bridge: remove it")]
    BridgeNotBuilt,
    /// The rooms of one key can be at several nodes, which a bridge does not follow.
    #[error("'--cluster' cannot be combined with a bridge: remove '--bridge' and '--bridge-socket'")]
    BridgeInCluster,
    /// The bridge needs the translation of session descriptions.
    #[error(
        "'--transcode off' cannot be combined with a bridge: remove it, or '--bridge' and '--bridge-socket'"
    )]
    BridgeWithoutTranscoding,
    /// The PROXY protocol without proxies whose headers are trusted.
    #[error("'--proxy-protocol' needs the addresses of the proxies: add '--trusted-proxies <list>'")]
    ProxyProtocolWithoutProxies,
    /// A setting of tokens of another kind than clients need, if they need any.
    #[error("'--{option}' is for '--auth {method}': add that, or remove it")]
    AuthMethodMissing {
        /// Long name of the option.
        option: &'static str,
        /// Notation of the method.
        method: &'static str,
    },
    /// A setting of a node without a cluster.
    #[error("'--{0}' is for the node of a cluster: add '--cluster <url>', or remove it")]
    NodeWithoutCluster(&'static str),
    /// The margin is longer than the whole wait may be.
    #[error(
        "'--silence-margin <ms>' ({margin}) must not be more than '--silence-max <ms>' ({max}): \
         add --silence-max {margin} or more"
    )]
    MarginAboveMax {
        /// Margin, in milliseconds.
        margin: u128,
        /// Longest wait, in milliseconds.
        max: u128,
    },
}
