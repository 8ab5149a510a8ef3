//! The options of the gateway: one table, from which the arguments, the environment variables, `--help` and
//! the reference documentation are derived.

mod access;
mod bridge;
mod cluster;

use std::ffi::OsString;

use crate::config::parse::{self, ValueError};
use crate::config::{
    self, AdminSocketPath, Config, ConfigError, ListenAddress, OriginPattern, PemSource, TlsFiles,
};
use Section::{Earlier, Gateway, Limits, Signaller, Standard};

/// One option.
#[derive(Clone, Copy)]
pub(super) struct OptionSpec {
    pub(super) long: &'static str,
    pub(super) short: Option<char>,
    /// Placeholder of the value in help texts. `None` if the option takes no value.
    pub(super) value_name: Option<&'static str>,
    /// Empty if there is none.
    pub(super) default: &'static str,
    pub(super) section: Section,
    pub(super) help: &'static str,
    /// Consequence of a limit that is reached. Empty if the option is no limit.
    pub(super) exceeded: &'static str,
    /// Names under which a limit that is reached is counted. Empty if the option is no limit.
    pub(super) counted_as: &'static [&'static str],
    /// True if each value adds to the previous ones; false if the last one wins.
    pub(super) repeatable: bool,
    pub(super) effect: Effect,
}

/// Parts of the help text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// Options of sigver 20.
    Standard,
    Gateway,
    /// Access of clients.
    Access,
    /// Several servers with common rooms.
    Cluster,
    /// The bridge between the generations of clients.
    Bridge,
    /// Limits of what clients may use.
    Limits,
    Signaller,
    Earlier,
}

/// Effect of an option.
#[derive(Clone, Copy)]
pub(super) enum Effect {
    Help,
    Version,
    Secure,
    /// Selects the flavor of the command line, before the arguments are split.
    Flavor,
    /// Names the configuration file, which is read before the values are parsed.
    ConfigFile,
    Ignored,
    /// Parses the value into the configuration.
    Set(fn(&mut Draft, &str) -> Result<(), ValueError>),
    /// The same; an empty value, which only some sources may have, means that the option is absent.
    SetUnlessEmpty(fn(&mut Draft, &str) -> Result<(), ValueError>),
    /// Sets a file name, which need not be Unicode; an empty one means the same.
    SetFile(fn(&mut Draft) -> &mut Option<PemSource>),
}

impl OptionSpec {
    const fn new(long: &'static str, value_name: Option<&'static str>, effect: Effect) -> Self {
        OptionSpec {
            long,
            short: None,
            value_name,
            default: "",
            section: Standard,
            help: "",
            exceeded: "",
            counted_as: &[],
            repeatable: false,
            effect,
        }
    }

    const fn short(self, short: char) -> Self {
        OptionSpec { short: Some(short), ..self }
    }

    const fn help(self, section: Section, help: &'static str) -> Self {
        OptionSpec { section, help, ..self }
    }

    /// Sets the consequence of a limit that is reached, and the names under which it is counted.
    const fn exceeded(self, exceeded: &'static str, counted_as: &'static [&'static str]) -> Self {
        OptionSpec { exceeded, counted_as, ..self }
    }

    /// Makes each value add to the previous ones.
    const fn repeatable(self) -> Self {
        OptionSpec { repeatable: true, ..self }
    }

    /// Returns true if a configuration file may have the option as a key.
    pub(super) fn is_file_key(&self) -> bool {
        matches!(self.effect, Effect::Set(_) | Effect::SetUnlessEmpty(_) | Effect::SetFile(_))
    }

    /// Returns the values in the value of an environment variable: of a repeatable option, those between
    /// commas.
    pub(super) fn split_list(&self, value: &str) -> Vec<OsString> {
        match self.repeatable {
            true => value.split(',').map(|part| part.trim().into()).collect(),
            false => vec![value.into()],
        }
    }

    /// Returns the notation of help and error texts: `-p, --port <number>`.
    pub(super) fn display(&self) -> String {
        let short = self.short.map(|short| format!("-{short}, ")).unwrap_or_default();
        let value = self.value_name.map(|name| format!(" <{name}>")).unwrap_or_default();
        format!("{short}--{}{value}", self.long)
    }

    /// Returns the environment variable of the option, if it has one: `SIGVER_MAX_MESSAGE` for
    /// `--max-message`.
    pub(super) fn variable(&self) -> Option<String> {
        let name = || format!("SIGVER_{}", self.long.to_uppercase().replace('-', "_"));
        match self.effect {
            Effect::Help | Effect::Version | Effect::Secure | Effect::Ignored => None,
            Effect::Flavor
            | Effect::ConfigFile
            | Effect::Set(_)
            | Effect::SetUnlessEmpty(_)
            | Effect::SetFile(_) => Some(name()),
        }
    }
}

/// Returns the option with this long name.
pub(super) fn find_long(long: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|option| option.long == long)
}

/// Returns the option with this short name. `-v` is the `-V` of earlier versions.
pub(super) fn find_short(short: char) -> Option<&'static OptionSpec> {
    let short = if short == 'v' { 'V' } else { short };
    OPTIONS.iter().find(|option| option.short == Some(short))
}

/// A configuration that options are being applied to.
pub(super) struct Draft {
    config: Config,
    host: Option<String>,
    port: Option<u16>,
    listen: Vec<ListenAddress>,
    key: Option<PemSource>,
    cert: Option<PemSource>,
    ca: Option<PemSource>,
    client_ca: Option<PemSource>,
    auto_admin_socket: AdminSocketPath,
}

impl Draft {
    /// Returns the defaults of the command line.
    pub(super) fn new(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let auto_admin_socket = AdminSocketPath::auto_for_server(env);
        let config = Config { admin_socket: auto_admin_socket.clone(), ..Config::default() };
        Draft {
            config,
            host: None,
            port: None,
            listen: Vec::new(),
            key: None,
            cert: None,
            ca: None,
            client_ca: None,
            auto_admin_socket,
        }
    }

    pub(super) fn finish(self) -> Result<Config, ConfigError> {
        let tls = TlsFiles::from_parts(self.key, self.cert, self.ca, self.client_ca)?;
        let mut listen = self.listen;
        if self.host.is_some() || self.port.is_some() || listen.is_empty() {
            let host = self.host.unwrap_or_else(|| config::DEFAULT_HOST.to_owned());
            listen.insert(0, ListenAddress::Tcp { host, port: self.port.unwrap_or(config::DEFAULT_PORT) });
        }
        let config = Config { listen, tls, ..self.config };
        config.check()?;
        Ok(config)
    }
}

const fn set(
    long: &'static str,
    value_name: &'static str,
    default: &'static str,
    set: fn(&mut Draft, &str) -> Result<(), ValueError>,
) -> OptionSpec {
    OptionSpec { default, ..OptionSpec::new(long, Some(value_name), Effect::Set(set)) }
}

const fn file(long: &'static str, field: fn(&mut Draft) -> &mut Option<PemSource>) -> OptionSpec {
    OptionSpec::new(long, Some("file path"), Effect::SetFile(field))
}

/// The table, in the order of the help text. The texts of the first part are those of sigver 20.1.0.
pub(super) static OPTIONS: [OptionSpec; 70] = [
    OptionSpec::new("version", None, Effect::Version).short('V').help(Standard, "output the version number"),
    set("host", "ip", config::DEFAULT_HOST, |d, v| {
        d.host = Some(v.to_owned());
        Ok(())
    })
        .short('h')
        .help(Standard, "Select host address to bind to"),
    set("port", "number", "8000", |d, v| parse::port(v).map(|v| d.port = Some(v)))
        .short('p')
        .help(Standard, "Select port to use"),
    file("key", |d| &mut d.key).short('k').help(Standard, "Private key for the certificate."),
    file("cert", |d| &mut d.cert).short('c').help(Standard, "The server certificate."),
    file("ca", |d| &mut d.ca).short('a').help(
        Standard,
        "The additional intermediate certificate or certificates that web browsers will need in order to \
         validate the server certificate.",
    ),
    OptionSpec::new("help", None, Effect::Help).help(Standard, "display help for command"),
    OptionSpec::new("config", Some("file path"), Effect::ConfigFile).help(
        Gateway,
        "Configuration file in TOML: a key for each option, such as max-message. The command line and the \
         environment win over it",
    ),
    set("protocol", "list", "auto", |d, v| parse::protocols(v).map(|v| d.config.protocol = v)).help(
        Gateway,
        "Protocols to serve, with commas: auto (all, detected), json, protobuf-v1, protobuf-v2, signaller, a \
         dialect such as sigver-18, or a release such as sigver-15.0.4",
    ),
    set("silence-margin", "ms", "150", |d, v| parse::milliseconds(v).map(|v| d.config.detection.margin = v))
        .help(
            Gateway,
            "After one round trip, wait this long for the client's first frame before assuming a \
             server-first protocol",
        ),
    set("silence-max", "ms", "500", |d, v| parse::milliseconds(v).map(|v| d.config.detection.silence = v))
        .help(Gateway, "Longest such wait, whatever the round trip"),
    set("drain-timeout", "seconds", "10", |d, v| parse::short_seconds(v).map(|v| d.config.drain_timeout = v))
        .help(
            Gateway,
            "Time over which the connections are closed after SIGTERM or SIGINT, at random moments; a second \
             signal closes the rest at once",
        ),
    set("log", "filter", "info", |d, v| parse::log_filter(v).map(|v| d.config.log = v))
        .help(Gateway, "Log filter for stderr: a level, or levels by module such as info,sigver=debug"),
    set("log-format", "text|json|journald", "text", |d, v| {
        parse::log_format(v).map(|v| d.config.log_format = v)
    })
    .help(
        Gateway,
        "Form of the log: text or json, a line each on stderr, or journald, entries of the journal of systemd",
    ),
    set("log-ip", "full|prefix|off", "off", |d, v| parse::log_ip(v).map(|v| d.config.log_ip = v))
        .help(Gateway, "Part of clients' addresses that is logged; prefix is 24 bits of IPv4 and 48 of IPv6"),
    set("control", "path", "auto", |d, v| {
        parse::admin_socket(v, &d.auto_admin_socket).map(|v| d.config.admin_socket = v)
    })
    .help(
        Gateway,
        "Path of the socket for sigver status, auto (sigver-<port>.sock in the first of $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR and /tmp), or off",
    ),
    set("transcode", "on|off", "on", |d, v| parse::on_off(v).map(|v| d.config.transcode = v)).help(
        Gateway,
        "Translate WebRTC payloads between the generations of netflux; other payloads are never changed",
    ),
    set("rooms", "shared|by-generation", "shared", |d, v| parse::rooms(v).map(|v| d.config.rooms = v)).help(
        Gateway,
        "Clients that meet under one key: all of them, or only those with compatible peer-to-peer layers; \
         by-generation=<expression> is for keys that match it",
    ),
    set("listen", "address", "", |d, v| parse::listen_address(v).map(|v| d.listen.push(v)))
        .help(
            Gateway,
            "Address to listen on: <host>:<port>, unix:<path> (without TLS), or fd:<name> for a socket of \
             systemd. May be given several times; --host and --port add one more if either is given",
        )
        .repeatable(),
    set("admin", "address", "", |d, v| parse::listen_address(v).map(|v| d.config.admin = Some(v))).help(
        Gateway,
        "Address of the admin listener, in the notations of --listen: health checks, metrics, status, drain, and \
         a page for people. It has no authentication: use a loopback address, or unix:<path>, which only the owner \
         may open",
    ),
    OptionSpec::new("compat-cli", Some("name"), Effect::Flavor).help(
        Gateway,
        "As the first argument: flavor of the other arguments, sigver or signallerd. Without it, the name of \
         the program decides",
    ),
    access::ALLOWED_ORIGINS,
    access::TRUSTED_PROXIES,
    access::PROXY_PROTOCOL,
    access::CLIENT_CA,
    access::AUTH,
    access::AUTH_JWT_CLAIM,
    access::AUTH_JWT_AUDIENCE,
    access::AUTH_CALLOUT_TIMEOUT,
    access::AUTH_CALLOUT_CACHE,
    cluster::CLUSTER,
    cluster::CLUSTER_PASSWORD_FILE,
    cluster::CLUSTER_NAME,
    cluster::NODE_ADDRESS,
    cluster::NODE_PORT,
    cluster::NODE_NAME,
    cluster::ENGINE_LOSS,
    bridge::BRIDGE,
    bridge::BRIDGE_PUBLIC_ADDRESS,
    bridge::BRIDGE_ROOMS,
    bridge::BRIDGE_SOCKET,
    bridge::BRIDGE_MAX_MEMBERS,
    bridge::BRIDGE_MAX_CONNECTIONS,
    bridge::BRIDGE_MAX_MEMBER_RATE,
    bridge::BRIDGE_MAX_ROOM_RATE,
    set("max-message", "bytes", "1048576", |d, v| parse::BYTES.parse(v).map(|v| d.config.max_message = v))
        .help(Limits, "Longest message accepted from a client")
        .exceeded("closes the connection with 1009; a POST is answered with 413", &["message_size"]),
    set("max-pending", "bytes", "4194304", |d, v| parse::BYTES.parse(v).map(|v| d.config.max_pending = v))
        .help(Limits, "Longest send queue of a client. At least --max-message")
        .exceeded("its senders are not read from a quarter of it on, and closed with 1008 beyond it", &["receiver_full", "slow_consumer"]),
    set("first-frame-timeout", "seconds", "60", |d, v| {
        parse::seconds(v).map(|v| d.config.detection.first_frame = v)
    })
    .help(Limits, "Longest wait for the first frame of a client that should send first")
    .exceeded("closes the connection with 1008", &["first_frame_timeout"]),
    set("tls-timeout", "seconds", "10", |d, v| parse::seconds(v).map(|v| d.config.limits.tls_timeout = v))
        .help(Limits, "Longest TLS handshake")
        .exceeded("drops the connection", &["tls_timeout"]),
    set("head-timeout", "seconds", "10", |d, v| parse::seconds(v).map(|v| d.config.limits.head_timeout = v))
        .help(Limits, "Longest wait for a request head, also on a connection that was used before")
        .exceeded("drops the connection", &["head_timeout"]),
    set("max-connections", "number", "auto", |d, v| {
        parse::CONNECTIONS.parse_or("auto", v).map(|v| d.config.limits.max_connections = v)
    })
    .help(Limits, "Connections at the same time; auto is the limit of open files, less 64")
    .exceeded("answers new ones with 503 before they are read; drops them if they are TLS", &["connections"]),
    set("max-connections-per-address", "number", "off", |d, v| {
        parse::limit(v, "connections").map(|v| d.config.limits.max_connections_per_address = v)
    })
    .help(Limits, "Connections of one address at the same time; of IPv6, of one /64. Not for Unix sockets")
    .exceeded("answers new ones with 429 before they are read; drops them if they are TLS", &["connections_per_address"]),
    set("max-connection-rate", "number", "off", |d, v| {
        parse::limit(v, "connections").map(|v| d.config.limits.max_connection_rate = v)
    })
    .help(Limits, "New connections of one address in a second")
    .exceeded("answers new ones with 429 before they are read; drops them if they are TLS", &["connection_rate"]),
    set("max-streams-per-address", "number", "off", |d, v| {
        parse::limit(v, "event streams").map(|v| d.config.limits.max_streams_per_address = v)
    })
    .help(Limits, "Event streams of one address at the same time")
    .exceeded("answers new ones with 429", &["streams_per_address"]),
    set("max-message-rate", "number", "off", |d, v| {
        parse::limit(v, "messages").map(|v| d.config.limits.max_message_rate = v)
    })
    .help(Limits, "Messages, pings and pongs that are read from one connection in a second")
    .exceeded("the connection is not read until its rate allows it", &["message_rate"]),
    set("max-byte-rate", "bytes", "off", |d, v| {
        parse::limit(v, "bytes").map(|v| d.config.limits.max_byte_rate = v)
    })
    .help(Limits, "Bytes of messages that are read from one connection in a second. At least --max-message")
    .exceeded("the connection is not read until its rate allows it", &["message_rate"]),
    set("max-rooms", "number", "1000000", |d, v| parse::ROOMS.parse(v).map(|v| d.config.limits.max_rooms = v))
        .help(Limits, "Rooms at the same time")
        .exceeded("closes the client that would open one more, with 1013", &["rooms"]),
    set("max-rooms-per-connection", "number", "18", |d, v| {
        parse::ROOMS_PER_CONNECTION.parse(v).map(|v| d.config.limits.max_rooms_per_connection = v)
    })
    .help(Limits, "Rooms of one connection at the same time, which only clients of sigver 8 to 14 have several of")
    .exceeded("the connection leaves the room that it entered first", &["rooms_per_connection"]),
    set("max-members", "number", "65536", |d, v| parse::ROOM_SIZE.parse(v).map(|v| d.config.limits.max_members = v))
        .help(Limits, "Members of one room")
        .exceeded("closes the client that would become one more, with 1013", &["members"]),
    set("max-joiners", "number", "65536", |d, v| parse::ROOM_SIZE.parse(v).map(|v| d.config.limits.max_joiners = v))
        .help(Limits, "Clients in one room that are not members yet")
        .exceeded("closes the client that would join, with 1013", &["joiners"]),
    set("replace-members", "on|off", "on", |d, v| parse::on_off(v).map(|v| d.config.limits.replace_members = v))
        .help(
            Limits,
            "Let a client that cannot connect to the only member of a room take its place, as sigver 18 to 20 did",
        )
        .exceeded("off: closes that client with 1013, and the member stays", &["replacements"]),
    set("max-memory", "bytes", "auto", |d, v| parse::MEMORY.parse_or("auto", v).map(|v| d.config.limits.max_memory = v))
        .help(
            Limits,
            "Memory of the process; half of it is for begun messages, bodies and queues. auto is four fifths \
             of what the system or the control group has",
        )
        .exceeded("near it, answers new clients with 503, and closes those that hold most with 1013", &["memory"]),
    OptionSpec::new(
        "signaller-origin",
        Some("expression"),
        Effect::SetUnlessEmpty(|d, v| parse::regex(v).map(|v| d.config.signaller.origin = Some(OriginPattern::Expression(v)))),
    )
    .help(
        Signaller,
        "Origins of the pages that may connect, as a regular expression; without it, those of --allowed-origins, or \
         only the server's own",
    ),
    set("signaller-listen-deadline", "seconds", "60", |d, v| {
        parse::long_seconds(v).map(|v| d.config.signaller.limits.listen_deadline = v)
    })
    .help(Signaller, "Longest wait of a listener for a connector"),
    set("signaller-pipe-deadline", "seconds", "10", |d, v| {
        parse::long_seconds(v).map(|v| d.config.signaller.limits.pipe_deadline = v)
    })
    .help(Signaller, "Longest duration of a pipe"),
    set("signaller-max-size", "bytes", "1024", |d, v| {
        parse::BYTES.parse(v).map(|v| d.config.signaller.limits.max_size = v)
    })
    .help(Signaller, "Longest message"),
    set("signaller-max-messages", "number", "8", |d, v| {
        parse::MESSAGES.parse(v).map(|v| d.config.signaller.limits.max_messages = v)
    })
    .help(Signaller, "Maximum messages per direction; the pipe closes after the last"),
    set("type", "value", "all", |d, v| parse::transports(v).map(|v| d.config.transports = v))
        .short('t')
        .help(Earlier, "Transports to serve: ws for WebSocket, sse for server-sent events, or all"),
    OptionSpec::new("secure", None, Effect::Secure)
        .short('s')
        .help(Earlier, "Not needed any more: a key and a certificate are enough"),
    OptionSpec::new("wsLib", Some("value"), Effect::Ignored)
        .short('w')
        .help(Earlier, "Ignored: there is one WebSocket library"),
];
