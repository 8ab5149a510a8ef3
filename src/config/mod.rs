//! What the gateway runs with: the [`Config`], its defaults, and every rule a value must satisfy.
//!
//! The rules live here, whoever supplies the value; how a value is *spelled* (flags, environment) is the
//! business of `cli`, and nothing here reads the process, a file or the network. The one thing this module
//! does not check is `protocol`, whose vocabulary belongs to the negotiation.

mod admin_socket;
mod log_ip;

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use regex_lite::Regex;
use thiserror::Error;
use tracing_subscriber::filter::Targets;

pub use admin_socket::{AdminSocketPath, control};
pub use log_ip::LogIp;

/// Listens on every IPv4 interface, as the originals do. IPv6 is not included: that takes `::`.
pub const DEFAULT_HOST: &str = "0.0.0.0";

/// The port of the originals. Above 1024, so no privilege is needed.
pub const DEFAULT_PORT: u16 = 8000;

/// Serve every protocol, and find out which one each client speaks.
pub const DEFAULT_PROTOCOL: &str = "auto";

/// Bytes of the largest message accepted: 1 MiB, hundreds of times a usual session description.
///
/// The originals took up to 100 MiB, which lets one client hold that much memory with a single message.
pub const DEFAULT_MAX_MESSAGE: usize = 1 << 20;

/// Bytes that may wait for one slow receiver: 4 MiB, that is four messages of the largest size.
///
/// The originals had no bound: one receiver that stopped reading could exhaust the whole process.
pub const DEFAULT_MAX_PENDING: usize = 4 << 20;

/// Milliseconds granted over the network delay before a silent client is taken to wait for the server.
///
/// Shorter speeds up the clients which wait; too short takes a busy client that was about to speak for one
/// which waits.
pub const DEFAULT_SILENCE_MARGIN_MS: u64 = 150;

/// Milliseconds after which silence is conclusive however slow the network is. Clients which wait to be
/// spoken to are delayed at most that long.
pub const DEFAULT_SILENCE_MAX_MS: u64 = 500;

/// Seconds a connection may stay open without a first frame. Idle sockets cost memory and a descriptor each;
/// the slowest honest client needs a few seconds.
pub const DEFAULT_FIRST_FRAME_TIMEOUT_S: u64 = 60;

/// Informative messages and worse, no debugging output.
pub const DEFAULT_LOG: &str = "info";

/// Seconds a listener of the path relay may wait for somebody to connect: as `signallerd`.
pub const DEFAULT_LISTEN_DEADLINE_S: u64 = 60;

/// Seconds a pipe of the path relay may last: as `signallerd`.
pub const DEFAULT_PIPE_DEADLINE_S: u64 = 10;

/// Bytes of the longest message of the path relay: as `signallerd`.
pub const DEFAULT_RELAY_SIZE: usize = 1024;

/// Messages in one direction with which a pipe of the path relay ends: as `signallerd`.
pub const DEFAULT_RELAY_MESSAGES: u32 = 8;

/// A GiB: beyond it a length is a mistake rather than a setting.
const BYTES: RangeInclusive<usize> = 1..=1 << 30;
/// Up to a minute; 0 is meaningful (do not wait).
const MILLISECONDS: RangeInclusive<u64> = 0..=60_000;
/// From a second to a day.
const SECONDS: RangeInclusive<u64> = 1..=86_400;
/// From a second to a lifetime: `signallerd` had no upper bound, and some want none.
const DEADLINE: RangeInclusive<u64> = 1..=0x7fff_ffff;
/// A pipe ends with a message: there is no less than one.
const MESSAGES: RangeInclusive<u32> = 1..=u32::MAX;

/// The settings of one gateway, each within its own range; [`Config::check`] relates them to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where to listen: an IPv4 or IPv6 address, or a name to resolve. Empty means every interface of both
    /// families. See [`DEFAULT_HOST`].
    pub host: String,
    /// The TCP port; 0 lets the system choose one. See [`DEFAULT_PORT`].
    pub port: u16,
    /// The files to serve TLS with; `None` serves plain text (the default).
    pub tls: Option<TlsFiles>,
    /// Which protocols are served, as given: validated by the negotiation. See [`DEFAULT_PROTOCOL`].
    pub protocol: String,
    /// Bytes of the largest message accepted from a client. See [`DEFAULT_MAX_MESSAGE`].
    pub max_message: usize,
    /// Bytes that may wait for one slow receiver before it is disconnected. See [`DEFAULT_MAX_PENDING`].
    pub max_pending: usize,
    /// Whether what builds a data channel is translated between the generations of netflux.
    pub transcode: bool,
    /// Who meets under one key.
    pub rooms: Rooms,
    /// Wait granted over the network delay to a silent client. See [`DEFAULT_SILENCE_MARGIN_MS`].
    pub silence_margin: Duration,
    /// Upper bound of the wait for a silent client. See [`DEFAULT_SILENCE_MAX_MS`].
    pub silence_max: Duration,
    /// How long a connection may stay without a first frame. See [`DEFAULT_FIRST_FRAME_TIMEOUT_S`].
    pub first_frame_timeout: Duration,
    /// What is logged, in the syntax of [`Targets`]. See [`DEFAULT_LOG`].
    pub log: String,
    /// The part of clients' addresses that is logged.
    pub log_ip: LogIp,
    /// Where the server can be asked for its status.
    pub control: AdminSocketPath,
    /// Over what clients may come.
    pub transports: EnabledTransports,
    /// The path relay, where it is served.
    pub relay: SignallerConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: DEFAULT_HOST.to_owned(),
            port: DEFAULT_PORT,
            tls: None,
            protocol: DEFAULT_PROTOCOL.to_owned(),
            max_message: DEFAULT_MAX_MESSAGE,
            max_pending: DEFAULT_MAX_PENDING,
            transcode: true,
            rooms: Rooms::Shared,
            silence_margin: Duration::from_millis(DEFAULT_SILENCE_MARGIN_MS),
            silence_max: Duration::from_millis(DEFAULT_SILENCE_MAX_MS),
            first_frame_timeout: Duration::from_secs(DEFAULT_FIRST_FRAME_TIMEOUT_S),
            log: DEFAULT_LOG.to_owned(),
            log_ip: LogIp::Off,
            control: AdminSocketPath::default(),
            transports: EnabledTransports::default(),
            relay: SignallerConfig::default(),
        }
    }
}

/// Who meets under one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rooms {
    /// Everyone.
    Shared,
    /// Those whose peer-to-peer layers understand one another.
    ByGeneration,
    /// The same under keys that this expression matches, and everyone under the others.
    ByGenerationIn(String),
}

/// Over what clients may come. The originals served one or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EnabledTransports {
    /// Over each there is.
    #[default]
    All,
    /// Over WebSockets only.
    WebSocket,
    /// Over event streams (server-sent events) only.
    EventStream,
}

/// The path relay's settings, which are `signallerd`'s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignallerConfig {
    /// Which origins may come, as a regular expression; without one, the origin of the server itself.
    pub origin: Option<String>,
    /// How long a listener may wait. See [`DEFAULT_LISTEN_DEADLINE_S`].
    pub listen_deadline: Duration,
    /// How long a pipe may last. See [`DEFAULT_PIPE_DEADLINE_S`].
    pub pipe_deadline: Duration,
    /// Bytes of the longest message. See [`DEFAULT_RELAY_SIZE`].
    pub max_size: usize,
    /// Messages in one direction with which a pipe ends. See [`DEFAULT_RELAY_MESSAGES`].
    pub max_messages: u32,
}

impl Default for SignallerConfig {
    fn default() -> Self {
        Self {
            origin: None,
            listen_deadline: Duration::from_secs(DEFAULT_LISTEN_DEADLINE_S),
            pipe_deadline: Duration::from_secs(DEFAULT_PIPE_DEADLINE_S),
            max_size: DEFAULT_RELAY_SIZE,
            max_messages: DEFAULT_RELAY_MESSAGES,
        }
    }
}

impl Config {
    /// Checks the settings against each other.
    ///
    /// # Errors
    ///
    /// [`ConfigError::PendingBelowMessage`] and [`ConfigError::MarginAboveMax`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.max_pending < self.max_message {
            return Err(ConfigError::PendingBelowMessage {
                max_message: self.max_message,
                max_pending: self.max_pending,
            });
        }
        if self.silence_margin > self.silence_max {
            return Err(ConfigError::MarginAboveMax {
                margin: self.silence_margin.as_millis(),
                max: self.silence_max.as_millis(),
            });
        }
        Ok(())
    }
}

/// The PEM files TLS is served with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The private key.
    pub key: PathBuf,
    /// The certificate of the server, maybe followed by those which lead to a root.
    pub cert: PathBuf,
    /// More intermediate certificates, sent after those of `cert`.
    pub ca: Option<PathBuf>,
}

impl TlsFiles {
    /// Puts together what was given of the three files: nothing at all is plain text.
    ///
    /// # Errors
    ///
    /// When a file without which the given ones are useless is missing. (The originals silently served plain
    /// text then, and also with a key and a certificate but no `ca`, which is fine here.)
    pub fn from_parts(
        key: Option<PathBuf>,
        cert: Option<PathBuf>,
        ca: Option<PathBuf>,
    ) -> Result<Option<Self>, ConfigError> {
        match (key, cert, ca) {
            (None, None, None) => Ok(None),
            (Some(key), Some(cert), ca) => Ok(Some(Self { key, cert, ca })),
            (Some(_), None, _) => Err(ConfigError::KeyWithoutCert),
            (None, Some(_), _) => Err(ConfigError::CertWithoutKey),
            (None, None, Some(_)) => Err(ConfigError::CaAlone),
        }
    }
}

/// Settings which make no sense together. Each message says what to add or change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A private key, and no certificate to go with it.
    #[error(
        "'-k, --key <file path>' was given without a certificate: add '-c, --cert <file path>' to serve TLS, \
         or remove it to serve plain text"
    )]
    KeyWithoutCert,
    /// A certificate, and no private key to go with it.
    #[error(
        "'-c, --cert <file path>' was given without its private key: add '-k, --key <file path>' to serve TLS, \
         or remove it to serve plain text"
    )]
    CertWithoutKey,
    /// Intermediate certificates, and nothing to go with them.
    #[error(
        "'-a, --ca <file path>' was given alone: add '-k, --key <file path>' and '-c, --cert <file path>' \
         to serve TLS, or remove it to serve plain text"
    )]
    CaAlone,
    /// A receiver could not be sent one message of the largest size.
    #[error(
        "'--max-pending <bytes>' ({max_pending}) must not be less than '--max-message <bytes>' ({max_message}): \
         add --max-pending {max_message} or more"
    )]
    PendingBelowMessage {
        /// Bytes of the largest message.
        max_message: usize,
        /// Bytes that may wait.
        max_pending: usize,
    },
    /// The margin alone is beyond the bound of the whole wait.
    #[error(
        "'--silence-margin <ms>' ({margin}) must not be more than '--silence-max <ms>' ({max}): \
         add --silence-max {margin} or more"
    )]
    MarginAboveMax {
        /// Milliseconds.
        margin: u128,
        /// Milliseconds.
        max: u128,
    },
}

/// Reads a port as the originals do, which take any spelling of a JavaScript number (`0x1f40`, `8e3`, ` 80 `).
///
/// # Errors
///
/// Says so when it is not a whole number from 0 to 65535. The originals took a text which is no number for
/// the path of a Unix socket: that is refused, since it was a typing error far more often.
pub fn port(text: &str) -> Result<u16, String> {
    let text = text.trim();
    let radix = |prefix: [&str; 2], radix| {
        let digits = prefix.iter().find_map(|prefix| text.strip_prefix(prefix))?;
        // `from_str_radix` takes a sign, JavaScript does not.
        digits
            .starts_with(|c: char| c.is_ascii_hexdigit())
            .then(|| u64::from_str_radix(digits, radix).ok())?
    };
    let prefixed =
        radix(["0x", "0X"], 16).or_else(|| radix(["0o", "0O"], 8)).or_else(|| radix(["0b", "0B"], 2));
    let number = match prefixed {
        Some(number) => u16::try_from(number).ok(),
        // The range is tested before the cast, NaN and the infinities fail it.
        None => text
            .parse::<f64>()
            .ok()
            .filter(|n| (0.0..=65535.0).contains(n) && n.fract() == 0.0)
            .map(|n| n as u16),
    };
    number.ok_or_else(|| "A port is a whole number from 0 to 65535.".to_owned())
}

/// Reads a number of bytes.
///
/// # Errors
///
/// Says so when it is not a whole number from 1 to 2³⁰.
pub fn bytes(text: &str) -> Result<usize, String> {
    whole(text, BYTES, "bytes")
}

/// Reads a number of milliseconds.
///
/// # Errors
///
/// Says so when it is not a whole number from 0 to 60000.
pub fn milliseconds(text: &str) -> Result<u64, String> {
    whole(text, MILLISECONDS, "milliseconds")
}

/// Reads a number of seconds.
///
/// # Errors
///
/// Says so when it is not a whole number from 1 to 86400.
pub fn seconds(text: &str) -> Result<u64, String> {
    whole(text, SECONDS, "seconds")
}

/// Reads a deadline of the path relay, in seconds.
///
/// # Errors
///
/// Says so when it is not a whole number from 1 to 2³¹ - 1.
pub fn deadline(text: &str) -> Result<u64, String> {
    whole(text, DEADLINE, "seconds")
}

/// Reads a number of messages.
///
/// # Errors
///
/// Says so when it is not a whole number from 1 to 2³² - 1.
pub fn messages(text: &str) -> Result<u32, String> {
    whole(text, MESSAGES, "messages")
}

/// Accepts an expression for origins, unchanged.
///
/// # Errors
///
/// Says what [`Regex`] does not understand in it.
pub fn origin(text: &str) -> Result<String, String> {
    match Regex::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("Not a regular expression: {error}.")),
    }
}

/// Reads over what clients may come, as the originals spell it; they had no word for everything.
///
/// # Errors
///
/// Says which there are. (The originals ran then, and listened nowhere.)
pub fn transports(text: &str) -> Result<EnabledTransports, String> {
    match text {
        "all" => Ok(EnabledTransports::All),
        "ws" => Ok(EnabledTransports::WebSocket),
        "sse" => Ok(EnabledTransports::EventStream),
        _ => Err("It is ws, sse or all.".to_owned()),
    }
}

/// Reads `on` or `off`.
///
/// # Errors
///
/// Says that it is neither.
pub fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("It is on or off.".to_owned()),
    }
}

/// Reads who meets under one key: `shared`, `by-generation`, or `by-generation=` and an expression for the keys that it
/// holds for.
///
/// # Errors
///
/// Says which there are, or what is wrong with the expression.
pub fn rooms(text: &str) -> Result<Rooms, String> {
    match text.split_once('=') {
        None if text == "shared" => Ok(Rooms::Shared),
        None if text == "by-generation" => Ok(Rooms::ByGeneration),
        Some(("by-generation", keys)) => match regex_lite::Regex::new(keys) {
            Ok(_) => Ok(Rooms::ByGenerationIn(keys.to_owned())),
            Err(error) => Err(format!("Not an expression: {error}.")),
        },
        _ => Err("It is shared, by-generation, or by-generation=<expression for keys>.".to_owned()),
    }
}

/// Parses the part of clients' addresses that is logged.
///
/// # Errors
///
/// It is none of the values.
pub fn log_ip(text: &str) -> Result<LogIp, String> {
    LogIp::from_name(text).ok_or_else(|| "It is full, prefix, or off.".to_owned())
}

/// Accepts a log filter, without its empty parts, which [`Targets`] would take for "everything".
///
/// # Errors
///
/// Says what [`Targets`] does not understand in it.
pub fn log_filter(text: &str) -> Result<String, String> {
    if text.contains('[') {
        return Err("Not a log filter: filters of spans and fields ('[…]') are not supported.".to_owned());
    }
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let text = parts.join(",");
    match text.parse::<Targets>() {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("Not a log filter: {error}.")),
    }
}

fn whole<N>(text: &str, range: RangeInclusive<N>, unit: &str) -> Result<N, String>
where
    N: FromStr + PartialOrd + Display,
{
    text.trim()
        .parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("It is a whole number of {unit} from {} to {}.", range.start(), range.end()))
}

#[cfg(test)]
mod tests;
