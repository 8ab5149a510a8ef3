//! Parsers of the configuration's values, as an operator writes them. Their errors state the valid values.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use regex_lite::Regex;
use thiserror::Error;
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};

use super::redact::displayed;
use super::{AdminSocketPath, EnabledTransports, ListenAddress, LogFormat, LogIp};
use crate::protocol::detect::{ProtocolSet, ProtocolSetError, RoomPolicy};

/// Whole numbers of a unit, of which some are valid.
pub(crate) struct Quantity {
    unit: &'static str,
    valid: RangeInclusive<u64>,
}

const fn quantity(unit: &'static str, valid: RangeInclusive<u64>) -> Quantity {
    Quantity { unit, valid }
}

/// Up to four billion.
const COUNT: RangeInclusive<u64> = 1..=u32::MAX as u64;
/// Up to a GiB: a greater length is a mistake rather than a setting.
pub(crate) const BYTES: Quantity = quantity("bytes", 1..=1 << 30);
/// Up to a minute; 0 means no wait.
const MILLISECONDS: Quantity = quantity("milliseconds", 0..=60_000);
/// From a second to a day.
const SECONDS: Quantity = quantity("seconds", 1..=86_400);
/// Up to an hour; 0 means no wait.
const SHORT_SECONDS: Quantity = quantity("seconds", 0..=3600);
/// From a second to a lifetime: signallerd had no upper bound.
const LONG_SECONDS: Quantity = quantity("seconds", 1..=0x7fff_ffff);
/// A pipe closes after its last message, so there is at least one.
pub(crate) const MESSAGES: Quantity = quantity("messages", COUNT);
/// Connections of the process.
pub(crate) const CONNECTIONS: Quantity = quantity("connections", COUNT);
/// Rooms of the process.
pub(crate) const ROOMS: Quantity = quantity("rooms", COUNT);
/// Peers of a room. One of a single member is that of its dialect.
pub(crate) const ROOM_SIZE: Quantity = quantity("peers", 2..=u32::MAX as u64);
/// One as a member, one as a joiner. Those of one connection are a list that is searched.
pub(crate) const ROOMS_PER_CONNECTION: Quantity = quantity("rooms", 2..=1000);
/// Beyond them, the gateway reports none, and a peer of the bridge has no channel left.
const BRIDGED_MEMBERS: Quantity = quantity("members", 1..=32);
/// The memory of each is about 72 KiB.
const BRIDGE_CONNECTIONS: Quantity = quantity("connections", 1..=65_536);
/// The longest parts of messages must not take seconds.
const BRIDGE_RATE: Quantity = quantity("bytes per second", 64 << 10..=u32::MAX as u64);
/// From four times what the server needs without clients to a PiB.
pub(crate) const MEMORY: Quantity = quantity("bytes", 32 << 20..=1 << 50);

impl Quantity {
    /// Parses a valid number.
    pub(crate) fn parse<N: TryFrom<u64>>(&self, text: &str) -> Result<N, ValueError> {
        let number = u64::from_str(text.trim()).ok().filter(|number| self.valid.contains(number));
        let (unit, min, max) = (self.unit, *self.valid.start(), *self.valid.end());
        number.and_then(|number| N::try_from(number).ok()).ok_or(ValueError::Range { unit, min, max })
    }

    /// Parses `word`, which stands for no number, or a valid number.
    pub(crate) fn parse_or<N: TryFrom<u64>>(
        &self,
        word: &'static str,
        text: &str,
    ) -> Result<Option<N>, ValueError> {
        if text.trim() == word {
            return Ok(None);
        }
        let (unit, min, max) = (self.unit, *self.valid.start(), *self.valid.end());
        let error = |_| ValueError::WordOrRange(Box::new(WordOrRangeError { word, unit, min, max }));
        self.parse(text).map(Some).map_err(error)
    }
}

/// An invalid value. The text is a sentence that states the valid ones.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The text is no port number.
    #[error("A port is a whole number from 0 to 65535.")]
    Port,
    /// The text is no whole number, or out of range.
    #[error("It must be a whole number of {unit} from {min} to {max}.")]
    Range {
        /// Unit of the number.
        unit: &'static str,
        /// Least valid number.
        min: u64,
        /// Greatest valid number.
        max: u64,
    },
    /// The text is neither a word nor a whole number in a range.
    #[error(transparent)]
    WordOrRange(Box<WordOrRangeError>),
    /// The text is none of a few words, which this lists.
    #[error("It must be {0}.")]
    Word(&'static str),
    /// The text is no regular expression.
    #[error("Not a regular expression: {0}.")]
    Regex(#[from] regex_lite::Error),
    /// The text is no origin of a page, nor a pattern of origins.
    #[error(
        "'{}' is no origin: write https://example.org, example.org, *.example.org, null, or an expression \
         between slashes.",
        displayed(.0)
    )]
    Origin(String),
    /// The text is no network of addresses.
    #[error("'{}' is no address, no network such as 10.0.0.0/8, and not the word unix.", displayed(.0))]
    Network(String),
    /// The text is no log filter.
    #[error("Not a log filter: {0}.")]
    LogFilter(#[from] ParseError),
    /// A part of a log filter is no level.
    #[error("'{}' is no log level{}; the levels are {LEVELS}.", displayed(.0), level_suggestion(.0))]
    LogLevel(String),
    /// A part of a log filter is for a module that logs nothing.
    #[error("'{}' is no module of this program: their names begin with sigver::.", displayed(.0))]
    LogModule(String),
    /// The text is a log filter of a kind that is not supported.
    #[error("Not a log filter: filters of spans and fields ('[…]') are not supported.")]
    SpanFilter,
    /// The text is no list of protocols.
    #[error("Not a list of protocols: {0}.")]
    Protocol(#[from] ProtocolSetError),
    /// The text looks like a secret, so that no parser's error may quote it.
    #[error("It looks like a key or a token.")]
    NotShown,
    /// The text is empty, where a value may be empty but is not by itself.
    #[error("It is empty, as a variable of a shell that is not set: give a value, or remove the option.")]
    Empty,
    /// The value is no text.
    #[error("It is not Unicode.")]
    NotUnicode,
}

/// A value that is neither a word nor a whole number in a range.
#[derive(Debug, Error)]
#[error("It must be {word}, or a whole number of {unit} from {min} to {max}.")]
#[non_exhaustive]
pub struct WordOrRangeError {
    /// Valid word.
    pub word: &'static str,
    /// Unit of the number.
    pub unit: &'static str,
    /// Least valid number.
    pub min: u64,
    /// Greatest valid number.
    pub max: u64,
}

/// Parses a port, in any notation of a JavaScript number (`0x1f40`, `8e3`, ` 80 `), as the Node.js servers
/// do. Those took another text as the path of a Unix socket; it is far more often a typing error.
pub(crate) fn port(text: &str) -> Result<u16, ValueError> {
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
        // NaN and the infinities are out of range, so that the cast is exact.
        None => text
            .parse::<f64>()
            .ok()
            .filter(|n| (0.0..=65535.0).contains(n) && n.fract() == 0.0)
            .map(|n| n as u16),
    };
    number.ok_or(ValueError::Port)
}

/// Parses an address to listen on, in one of the notations of [`ListenAddress::parse`].
pub(crate) fn listen_address(text: &str) -> Result<ListenAddress, ValueError> {
    ListenAddress::parse(text).ok_or(ValueError::Word(
        "an address and a port such as 127.0.0.1:8000 or [::1]:8000, unix:PATH, or fd:NAME",
    ))
}

/// Parses a time in milliseconds.
pub(crate) fn milliseconds(text: &str) -> Result<Duration, ValueError> {
    MILLISECONDS.parse(text).map(Duration::from_millis)
}

/// Parses a time in seconds.
pub(crate) fn seconds(text: &str) -> Result<Duration, ValueError> {
    SECONDS.parse(text).map(Duration::from_secs)
}

/// Parses a time in seconds that may be zero.
pub(crate) fn short_seconds(text: &str) -> Result<Duration, ValueError> {
    SHORT_SECONDS.parse(text).map(Duration::from_secs)
}

/// Parses a time in seconds that may be much longer than a day.
pub(crate) fn long_seconds(text: &str) -> Result<Duration, ValueError> {
    LONG_SECONDS.parse(text).map(Duration::from_secs)
}

/// Parses `off`, or the maximum of a number of `unit`.
pub(crate) fn limit(text: &str, unit: &'static str) -> Result<Option<u32>, ValueError> {
    quantity(unit, COUNT).parse_or("off", text)
}

/// Parses a regular expression.
pub(crate) fn regex(text: &str) -> Result<Regex, ValueError> {
    Ok(Regex::new(text)?)
}

/// Parses a list of protocols, which must not be empty or contradictory.
pub(crate) fn protocols(text: &str) -> Result<ProtocolSet, ValueError> {
    Ok(text.parse::<ProtocolSet>()?)
}

/// Returns the warnings about a list of protocols.
pub(crate) fn protocol_warnings(text: &str) -> Vec<String> {
    ProtocolSet::warnings(text)
}

/// Parses `ws` or `sse`, as the Node.js servers had it, or `all`. (With another text those ran without
/// listening.)
pub(crate) fn transports(text: &str) -> Result<EnabledTransports, ValueError> {
    match text {
        "all" => Ok(EnabledTransports::All),
        "ws" => Ok(EnabledTransports::WebSocket),
        "sse" => Ok(EnabledTransports::EventStream),
        _ => Err(ValueError::Word("ws, sse or all")),
    }
}

/// Parses `on` or `off`.
pub(crate) fn on_off(text: &str) -> Result<bool, ValueError> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(ValueError::Word("on or off")),
    }
}

/// Parses `shared`, `by-generation`, or `by-generation=` with an expression for the keys that are
/// partitioned.
pub(crate) fn rooms(text: &str) -> Result<RoomPolicy, ValueError> {
    match text.split_once('=') {
        None if text == "shared" => Ok(RoomPolicy::Shared),
        None if text == "by-generation" => Ok(RoomPolicy::Partitioned),
        Some(("by-generation", keys)) => Ok(RoomPolicy::PartitionedFor(regex(keys)?)),
        _ => Err(ValueError::Word("shared, by-generation, or by-generation=<expression for keys>")),
    }
}

/// Parses the location of the control socket: `off`, a path, or `auto`, which stands for the location in the
/// second argument.
pub(crate) fn admin_socket(text: &str, auto: &AdminSocketPath) -> Result<AdminSocketPath, ValueError> {
    match text {
        "" => Err(ValueError::Word("auto, off, or the path of a socket")),
        "auto" => Ok(auto.clone()),
        "off" => Ok(AdminSocketPath::Off),
        path => Ok(AdminSocketPath::At(path.into())),
    }
}

/// Parses the path of the socket of the bridge.
pub(crate) fn bridge_socket(text: &str) -> Result<AdminSocketPath, ValueError> {
    match text {
        "" => Err(ValueError::Word("the path of a socket")),
        path => Ok(AdminSocketPath::At(path.into())),
    }
}

/// Parses the most members of a room that are bridged.
pub(crate) fn bridged_members(text: &str) -> Result<u32, ValueError> {
    BRIDGED_MEMBERS.parse(text)
}

/// Parses the most connections of the bridge.
pub(crate) fn bridge_connections(text: &str) -> Result<u32, ValueError> {
    BRIDGE_CONNECTIONS.parse(text)
}

/// Parses a number of bytes per second that the bridge carries.
pub(crate) fn bridge_rate(text: &str) -> Result<u32, ValueError> {
    BRIDGE_RATE.parse(text)
}

/// Parses an address for UDP: an IP address and a port.
pub(crate) fn udp_address(text: &str) -> Result<SocketAddr, ValueError> {
    text.parse().map_err(|_| ValueError::Word("an IP address and a port, such as 0.0.0.0:3478 or [::]:3478"))
}

/// Parses an IP address.
pub(crate) fn ip_address(text: &str) -> Result<IpAddr, ValueError> {
    text.parse().map_err(|_| ValueError::Word("an IP address"))
}

/// Parses the form of the log.
pub(crate) fn log_format(text: &str) -> Result<LogFormat, ValueError> {
    text.parse().map_err(|_| ValueError::Word("text, json or journald"))
}

/// Parses the part of clients' addresses that is logged.
pub(crate) fn log_ip(text: &str) -> Result<LogIp, ValueError> {
    text.parse().map_err(|_| ValueError::Word("full, prefix or off"))
}

/// Parses a log filter. Empty parts are left out: [`Targets`] would take them as "everything", and a word
/// that is no level as the name of a module. Errors of modules without a level are logged, so that only `off`
/// silences the program.
pub(crate) fn log_filter(text: &str) -> Result<Targets, ValueError> {
    if text.contains('[') {
        return Err(ValueError::SpanFilter);
    }
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let mut has_default = false;
    for part in &parts {
        match part.split_once('=') {
            Some((module, _)) if !is_own_module(module) => {
                return Err(ValueError::LogModule(module.to_owned()));
            }
            Some((_, level)) if level.parse::<LevelFilter>().is_err() => {
                return Err(ValueError::LogLevel(level.to_owned()));
            }
            Some(_) => {}
            None if is_own_module(part) => {}
            None if part.parse::<LevelFilter>().is_ok() => has_default = true,
            None => return Err(ValueError::LogLevel((*part).to_owned())),
        }
    }
    if parts.is_empty() {
        return Err(ValueError::LogLevel(String::new()));
    }
    let targets = parts.join(",").parse::<Targets>()?;
    Ok(if has_default { targets } else { targets.with_default(LevelFilter::ERROR) })
}

/// Returns true for the name of this crate or of one of its modules. No dependency logs.
fn is_own_module(name: &str) -> bool {
    name == "sigver" || name.starts_with("sigver::")
}

const LEVELS: &str = "off, error, warn, info, debug and trace";

/// Returns a suggestion in place of a word that is no level.
fn level_suggestion(word: &str) -> String {
    let level = match word.to_ascii_lowercase().as_str() {
        "warning" | "warnings" => "warn",
        "err" | "errors" | "fatal" | "critical" | "crit" | "emerg" | "alert" => "error",
        "information" | "inf" | "notice" | "default" | "normal" | "on" | "true" => "info",
        "verbose" | "dbg" | "fine" => "debug",
        "all" | "silly" | "finest" => "trace",
        "none" | "no" | "false" | "quiet" | "silent" | "disabled" => "off",
        word => {
            let levels = ["off", "error", "warn", "info", "debug", "trace"];
            let similar = levels.map(|level| (strsim::jaro_winkler(word, level), level));
            let best = similar.into_iter().max_by(|(a, _), (b, _)| a.total_cmp(b));
            best.filter(|(similarity, _)| *similarity >= 0.8).map(|(_, level)| level).unwrap_or_default()
        }
    };
    if level.is_empty() { String::new() } else { format!(" (is '{level}' meant?)") }
}
