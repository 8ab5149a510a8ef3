//! The command line: what `sigver` may be told by flags and by the environment, and how it answers.
//!
//! The option table is a `clap` one; how arguments are split, in which order complaints come and how they
//! are worded follow the originals, which scripts already rely on: those of sigver 20 where releases disagree,
//! with the options that only earlier ones had beside them. The command line of `signallerd`, another language
//! for a part of the same options, is in `signallerd`; the text of `--help` in `help`. [`parse`] is pure: it
//! neither reads the process nor prints. What a value must satisfy belongs to `config`, not here.

mod help;
mod signallerd;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command, CommandFactory, Parser};

use crate::config::{
    self, AdminSocketPath, Config, EnabledTransports, LogIp, Rooms, SignallerConfig, TlsFiles,
};

/// What the process has to do about its arguments.
#[derive(Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "there is one of these in the life of a process")]
pub enum Outcome {
    /// Start the gateway, after writing each of these warnings as a line on stderr.
    Run(Config, Vec<String>),
    /// Write this on stdout, with a line end, and exit with status 0.
    Print(String),
    /// Write this on stderr, with a line end, and exit with status 1.
    Fail(String),
    /// The same with status 2, as programs in Go have it.
    UsageError(String),
}

/// Whose command line it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CliFlavor {
    Sigver,
    Signallerd,
}

/// Headings of the help text, each over a part of the option table.
const GATEWAY: &str = "More options, which earlier versions did not have";
const RELAY: &str = "Options of the path relay signaller";
const EARLIER: &str = "Options of earlier versions";

/// The option table, in the order of the help text. `help` and `version` stand here only to be listed.
#[derive(Parser)]
#[command(name = "sigver", disable_help_flag = true, disable_version_flag = true)]
struct Flags {
    #[arg(short = 'V', long, short_alias = 'v', help = "output the version number")]
    version: bool,
    #[arg(short = 'h', long, value_name = "ip", help = "Select host address to bind to")]
    #[arg(default_value = config::DEFAULT_HOST)]
    host: String,
    #[arg(short, long, value_name = "number", help = "Select port to use")]
    #[arg(default_value_t = config::DEFAULT_PORT, value_parser = config::port)]
    port: u16,
    #[arg(short, long, value_name = "file path", help = "Private key for the certificate.")]
    key: Option<PathBuf>,
    #[arg(short, long, value_name = "file path", help = "The server certificate.")]
    cert: Option<PathBuf>,
    #[arg(short = 'a', long, value_name = "file path")]
    #[arg(help = "The additional intermediate certificate or certificates that web browsers will need \
                  in order to validate the server certificate.")]
    ca: Option<PathBuf>,
    #[arg(long, help = "display help for command")]
    help: bool,

    #[arg(long, value_name = "list", help_heading = GATEWAY)]
    #[arg(default_value = config::DEFAULT_PROTOCOL, help = "The protocols to serve: auto, json, protobuf-v1, current, signaller, a dialect such as sigver-18, or a release such as sigver-15.0.4; auto finds out")]
    protocol: String,
    #[arg(long, value_name = "bytes", help_heading = GATEWAY)]
    #[arg(default_value_t = config::DEFAULT_MAX_MESSAGE, value_parser = config::bytes)]
    #[arg(help = "The largest message accepted from a client")]
    max_message: usize,
    #[arg(long, value_name = "bytes", help_heading = GATEWAY)]
    #[arg(default_value_t = config::DEFAULT_MAX_PENDING, value_parser = config::bytes)]
    #[arg(help = "What may wait for a slow receiver before it is disconnected; at least --max-message")]
    max_pending: usize,
    #[arg(long, value_name = "ms", help_heading = GATEWAY)]
    #[arg(default_value_t = config::DEFAULT_SILENCE_MARGIN_MS, value_parser = config::milliseconds)]
    #[arg(help = "How long, over the network delay, a client may be silent before it is taken to wait \
                  for the server to speak first")]
    silence_margin: u64,
    #[arg(long, value_name = "ms", help_heading = GATEWAY)]
    #[arg(default_value_t = config::DEFAULT_SILENCE_MAX_MS, value_parser = config::milliseconds)]
    #[arg(help = "The longest such wait, whatever the network delay")]
    silence_max: u64,
    #[arg(long, value_name = "seconds", help_heading = GATEWAY)]
    #[arg(default_value_t = config::DEFAULT_FIRST_FRAME_TIMEOUT_S, value_parser = config::seconds)]
    #[arg(help = "How long a client may be silent that should speak first")]
    first_frame_timeout: u64,
    #[arg(long, value_name = "filter", help_heading = GATEWAY)]
    #[arg(default_value = config::DEFAULT_LOG, value_parser = config::log_filter)]
    #[arg(help = "What is logged on stderr: a level, or levels by module such as info,sigver=debug")]
    log: String,
    #[arg(long, value_name = "full|prefix|off", help_heading = GATEWAY)]
    #[arg(default_value = "off", value_parser = config::log_ip)]
    #[arg(help = "The part of clients' addresses that is logged: prefix is 24 bits of IPv4 and 48 of IPv6")]
    log_ip: LogIp,
    #[arg(long, value_name = "path", help_heading = GATEWAY)]
    #[arg(default_value = "auto", value_parser = config::control)]
    #[arg(
        help = "The socket that answers sigver status: auto is sigver-<port>.sock where such things are, off is none"
    )]
    control: AdminSocketPath,
    #[arg(long, value_name = "on|off", help_heading = GATEWAY)]
    #[arg(default_value = "on", value_parser = config::on_off, action = ArgAction::Set)]
    #[arg(help = "Whether what builds a WebRTC data channel is translated between the generations of \
                  netflux; anything else passes unchanged")]
    transcode: bool,
    #[arg(long, value_name = "shared|by-generation", help_heading = GATEWAY)]
    #[arg(default_value = "shared", value_parser = config::rooms)]
    #[arg(help = "Whether everyone under a key meets, or only clients whose peer-to-peer layers \
                  understand one another; by-generation=<expression> is for keys that match it")]
    rooms: Rooms,
    #[arg(long, value_name = "name", help_heading = GATEWAY)]
    #[arg(help = "As the first argument: whose command line follows, sigver or signallerd; by itself, \
                  it is signallerd's if the program is called so")]
    compat_cli: Option<String>,

    #[arg(long, value_name = "expression", help_heading = RELAY, value_parser = config::origin)]
    #[arg(help = "The origins whose pages may come, as a regular expression; without it, only the \
                  server's own")]
    signaller_origin: Option<String>,
    #[arg(long, value_name = "seconds", help_heading = RELAY)]
    #[arg(default_value_t = config::DEFAULT_LISTEN_DEADLINE_S, value_parser = config::deadline)]
    #[arg(help = "How long a listener may wait")]
    signaller_listen_deadline: u64,
    #[arg(long, value_name = "seconds", help_heading = RELAY)]
    #[arg(default_value_t = config::DEFAULT_PIPE_DEADLINE_S, value_parser = config::deadline)]
    #[arg(help = "How long a pipe may last")]
    signaller_pipe_deadline: u64,
    #[arg(long, value_name = "bytes", help_heading = RELAY)]
    #[arg(default_value_t = config::DEFAULT_RELAY_SIZE, value_parser = config::bytes)]
    #[arg(help = "The longest message")]
    signaller_max_size: usize,
    #[arg(long, value_name = "number", help_heading = RELAY)]
    #[arg(default_value_t = config::DEFAULT_RELAY_MESSAGES, value_parser = config::messages)]
    #[arg(help = "With so many messages in one direction a pipe ends")]
    signaller_max_messages: u32,

    #[arg(short = 't', long = "type", value_name = "value", help_heading = EARLIER)]
    #[arg(default_value = "all", value_parser = config::transports)]
    #[arg(
        help = "Over what clients may come: ws for WebSocket only, sse for Server-Sent-Event only, or all"
    )]
    transports: EnabledTransports,
    #[arg(short, long, help_heading = EARLIER, help = "Not needed any more: a key and a certificate are enough")]
    secure: bool,
    #[arg(short, long = "wsLib", value_name = "value", help_heading = EARLIER)]
    #[arg(help = "Ignored: there is one WebSocket library")]
    ws_lib: Option<String>,
}

/// Where a value came from: the complaint about it names that.
#[derive(Clone, PartialEq, Eq)]
enum Source {
    CommandLine,
    /// A variable of this name.
    Environment(String),
    /// A flag of `signallerd`.
    Signallerd(&'static str),
}

/// The winning value of each option, by its long name.
type Values = BTreeMap<String, (OsString, Source)>;

/// What the arguments say, before any value is looked at.
#[derive(Default)]
struct Scan {
    values: Values,
    version: bool,
    help: bool,
    secure: bool,
    unknown: Option<String>,
    operands: Vec<String>,
}

/// Decides from the name under which the program was called, its arguments, and the environment.
pub fn parse(
    program: &OsStr,
    args: impl IntoIterator<Item = OsString>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Outcome {
    let args: Vec<OsString> = args.into_iter().collect();
    match style(program, &args, env) {
        Ok((CliFlavor::Sigver, taken)) => parse_sigver(args.into_iter().skip(taken), env),
        Ok((CliFlavor::Signallerd, taken)) => signallerd::parse(args.into_iter().skip(taken), env),
        Err(message) => Outcome::Fail(format!("error: {message}")),
    }
}

/// Whose command line it is, and how many arguments said so.
fn style(
    program: &OsStr,
    args: &[OsString],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(CliFlavor, usize), String> {
    const SPELLED: &str = "option '--compat-cli <name>'";
    let known = |name: &str| match name {
        "sigver" => Some(CliFlavor::Sigver),
        "signallerd" => Some(CliFlavor::Signallerd),
        _ => None,
    };
    let argument = |name: &str, taken| (name.to_owned(), format!("argument '{name}'"), taken);
    let first = args.first().map(|arg| arg.to_string_lossy()).unwrap_or_default();
    let (name, written, taken) = match first.strip_prefix("--compat-cli") {
        Some("") => match args.get(1) {
            Some(name) => argument(&name.to_string_lossy(), 2),
            None => return Err(format!("{SPELLED} argument missing")),
        },
        Some(attached) if attached.starts_with('=') => argument(&attached[1..], 1),
        _ => {
            let variable = variable("compat-cli");
            let Some(name) = env(&variable).filter(|name| !name.is_empty()) else {
                let called = Path::new(program).file_name().and_then(OsStr::to_str).and_then(known);
                return Ok((called.unwrap_or(CliFlavor::Sigver), 0));
            };
            let written = format!("value '{name}' from env '{variable}'");
            (name, written, 0)
        }
    };
    match known(&name) {
        Some(style) => Ok((style, taken)),
        None => Err(format!("{SPELLED} {written} is invalid. It is sigver or signallerd.")),
    }
}

/// Reads arguments as sigver did.
///
/// The rules are those of the originals: the last of repeated options wins, an option takes the next argument
/// whatever it looks like, `-V` acts at once, a missing value comes before `--help`, which comes before an
/// unknown option. An empty environment variable counts as absent.
fn parse_sigver(args: impl Iterator<Item = OsString>, env: &dyn Fn(&str) -> Option<String>) -> Outcome {
    let command = Flags::command();
    let scan = match scan(&command, args) {
        Ok(scan) => scan,
        Err(message) => return Outcome::Fail(format!("error: {message}")),
    };
    if scan.version {
        return Outcome::Print(env!("CARGO_PKG_VERSION").to_owned());
    }
    if scan.help {
        return Outcome::Print(help::text(&command));
    }
    if let Some(unknown) = scan.unknown {
        return Outcome::Fail(format!("error: unknown option '{unknown}'"));
    }
    let mut warnings = Vec::new();
    warnings.extend(extra(&scan.operands));
    let mut values = scan.values;
    if values.remove("wsLib").is_some() {
        warnings.push("warning: '-w, --wsLib <value>' is ignored: there is one WebSocket library".to_owned());
    }
    environment(&command, &mut values, env, &mut warnings);
    node_environment(&mut values, env, &mut warnings);
    match configure(&command, values) {
        Ok(config) => {
            if scan.secure && config.tls.is_none() {
                return Outcome::Fail(NOT_SECURE.to_owned());
            }
            if scan.secure {
                warnings.push(
                    "warning: '-s, --secure' is not needed any more: a key and a certificate are enough"
                        .to_owned(),
                );
            }
            Outcome::Run(config, warnings)
        }
        Err(message) => Outcome::Fail(format!("error: {message}")),
    }
}

/// Who asks for TLS must not get plain text.
const NOT_SECURE: &str = "error: '-s, --secure' was given without a private key: add '-k, --key <file path>' and \
                          '-c, --cert <file path>' to serve TLS, or remove it to serve plain text";

/// The warning about arguments that are no options and no values, if there are any.
fn extra(operands: &[String]) -> Option<String> {
    let quoted: Vec<String> = operands.iter().map(|operand| format!("'{operand}'")).collect();
    (!quoted.is_empty()).then(|| format!("warning: extra arguments are ignored: {}", quoted.join(" ")))
}

/// Splits the arguments, up to `-V` if there is one. `Err` complains of a missing value.
fn scan(command: &Command, mut args: impl Iterator<Item = OsString>) -> Result<Scan, String> {
    let mut scan = Scan::default();
    // What follows a flag in the same argument: `-sp` is `-s -p`.
    let mut rest: Option<OsString> = None;
    while let Some(arg) = rest.take().or_else(|| args.next()) {
        // An option is Unicode; its value need not be, provided it is an argument of its own.
        let text = arg.to_string_lossy();
        if text == "--" {
            scan.operands.extend(args.by_ref().map(|operand| operand.to_string_lossy().into_owned()));
            break;
        }
        if text == "--help" {
            scan.help = true;
            continue;
        }
        if !text.starts_with('-') || text == "-" {
            scan.operands.push(text.into_owned());
            continue;
        }
        let found = match find(command, &text) {
            Some(option) => Some((option, None)),
            None if arg.to_str().is_some() => {
                attached(command, &text).map(|(option, more)| (option, Some(more)))
            }
            None => None,
        };
        let Some((option, more)) = found else {
            scan.unknown.get_or_insert(text.into_owned());
            continue;
        };
        if takes_value(option) {
            let Some(value) = more.map(OsString::from).or_else(|| args.next()) else {
                return Err(format!("option '{}' argument missing", spelling(option)));
            };
            if long(option) == "compat-cli" {
                return Err(format!("option '{}' must be the first argument", spelling(option)));
            }
            scan.values.insert(long(option).to_owned(), (value, Source::CommandLine));
        } else if long(option) == "secure" {
            scan.secure = true;
            rest = more.map(|more| format!("-{more}").into());
        } else {
            scan.version = true;
            break;
        }
    }
    Ok(scan)
}

/// An option and what is written in the same argument: `-p9000`, `--port=9000`, `-sp` (which is `-s -p`).
fn attached<'a, 'b>(command: &'a Command, text: &'b str) -> Option<(&'a Arg, &'b str)> {
    if text.starts_with("--") {
        let (name, value) = text.split_once('=')?;
        return find(command, name).filter(|option| takes_value(option)).map(|option| (option, value));
    }
    let end = text.char_indices().nth(2)?.0;
    find(command, &text[..end]).map(|option| (option, &text[end..]))
}

/// The option with this very name; abbreviations do not count, nor does `--help`, which is no option proper.
fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let is_it = |option: &&Arg| match name.strip_prefix("--") {
        Some(name) => option.get_long() == Some(name) && name != "help",
        None => {
            let shorts =
                option.get_short().into_iter().chain(option.get_all_short_aliases().unwrap_or_default());
            let is_it = |short| name.strip_prefix('-').is_some_and(|name| name.chars().eq([short]));
            shorts.into_iter().any(is_it)
        }
    };
    command.get_arguments().find(is_it)
}

fn takes_value(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::Set)
}

fn long(option: &Arg) -> &str {
    option.get_long().unwrap_or_default()
}

/// How the help and the complaints write an option: `-p, --port <number>`.
fn spelling(option: &Arg) -> String {
    let short = option.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let value = match option.get_value_names() {
        Some([name, ..]) if takes_value(option) => format!(" <{name}>"),
        _ => String::new(),
    };
    format!("{short}--{}{value}", long(option))
}

/// The environment variable of an option: `SIGVER_MAX_MESSAGE` for `--max-message`.
fn variable(option: &str) -> String {
    format!("SIGVER_{}", option.to_uppercase().replace('-', "_"))
}

/// Adds what the environment says about options that are not given.
fn environment(
    command: &Command,
    values: &mut Values,
    env: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) {
    for option in command.get_arguments().filter(|option| takes_value(option)).map(long) {
        if !["wsLib", "compat-cli"].contains(&option) {
            from_variable(values, option, variable(option), env, warnings);
        }
    }
}

/// Adds what the variables of sigver 7.6 to 11 say. Later releases did not read them, so whoever comes from there may
/// have them for other reasons, and is told.
fn node_environment(values: &mut Values, env: &dyn Fn(&str) -> Option<String>, warnings: &mut Vec<String>) {
    for (option, name) in [("host", "NODE_IP"), ("port", "NODE_PORT")] {
        if let Some(value) = from_variable(values, option, name.to_owned(), env, warnings) {
            warnings.push(format!(
                "warning: --{option} is '{value}' from {name}, which only sigver 7.6 to 11 read: its name is {} now",
                variable(option)
            ));
        }
    }
}

/// Takes the value of an option that has none yet from a variable, if that is set.
fn from_variable(
    values: &mut Values,
    option: &str,
    name: String,
    env: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Option<String> {
    if values.contains_key(option) {
        return None;
    }
    let value = env(&name).filter(|value| !value.is_empty())?;
    // Kubernetes describes a service called `sigver` to every container in a variable of that name.
    if option == "port" && (value.starts_with("tcp://") || value.starts_with("udp://")) {
        warnings.push(format!("warning: {name} is ignored, '{value}' describes a service"));
        return None;
    }
    values.insert(option.to_owned(), (value.clone().into(), Source::Environment(name)));
    Some(value)
}

/// Gives the values their types and relates them to each other.
fn configure(command: &Command, mut values: Values) -> Result<Config, String> {
    // What a script passes for a file it does not have: `--ca "$CA"`. The originals took it for no file too.
    const MAY_BE_EMPTY: [&str; 4] = ["key", "cert", "ca", "signaller-origin"];
    values.retain(|option, (value, _)| !(MAY_BE_EMPTY.contains(&&**option) && value.is_empty()));
    let tokens = values.iter().map(|(option, (value, _))| {
        let mut token = OsString::from(format!("--{option}="));
        token.push(value);
        token
    });
    let flags = Flags::try_parse_from([OsString::from("sigver")].into_iter().chain(tokens))
        .map_err(|error| complaint(command, &values, &error))?;
    let tls = TlsFiles::from_parts(flags.key, flags.cert, flags.ca).map_err(|error| error.to_string())?;
    let config = Config {
        host: flags.host,
        port: flags.port,
        tls,
        protocol: flags.protocol,
        max_message: flags.max_message,
        max_pending: flags.max_pending,
        transcode: flags.transcode,
        rooms: flags.rooms,
        silence_margin: Duration::from_millis(flags.silence_margin),
        silence_max: Duration::from_millis(flags.silence_max),
        first_frame_timeout: Duration::from_secs(flags.first_frame_timeout),
        log: flags.log,
        log_ip: flags.log_ip,
        control: flags.control,
        transports: flags.transports,
        relay: SignallerConfig {
            origin: flags.signaller_origin,
            listen_deadline: Duration::from_secs(flags.signaller_listen_deadline),
            pipe_deadline: Duration::from_secs(flags.signaller_pipe_deadline),
            max_size: flags.signaller_max_size,
            max_messages: flags.signaller_max_messages,
        },
    };
    config.check().map_err(|error| error.to_string())?;
    Ok(config)
}

/// A value that does not suit, in the words of the originals' family of parsers.
fn complaint(command: &Command, values: &Values, error: &clap::Error) -> String {
    let reason = std::error::Error::source(error).map_or("It is not Unicode.".into(), ToString::to_string);
    let option = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(written)) => written.split([' ', '=']).next(),
        // Text that is not Unicode: the error does not say whose.
        _ => values.iter().find(|(_, (value, _))| value.to_str().is_none()).map(|(option, _)| &**option),
    };
    let option = option.map(|option| option.trim_start_matches("--")).unwrap_or_default();
    let spelled = find(command, &format!("--{option}")).map(spelling).unwrap_or_default();
    let nothing = (OsString::new(), Source::CommandLine);
    let (value, source) = values.get(option).unwrap_or(&nothing);
    let value = value.to_string_lossy();
    match source {
        Source::CommandLine => format!("option '{spelled}' argument '{value}' is invalid. {reason}"),
        Source::Environment(name) => {
            format!("option '{spelled}' value '{value}' from env '{name}' is invalid. {reason}")
        }
        Source::Signallerd(flag) => format!("invalid value \"{value}\" for flag -{flag}: {reason}"),
    }
}

#[cfg(test)]
mod tests;
