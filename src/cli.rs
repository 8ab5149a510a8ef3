//! The command line: what `sigver` may be told by flags and by the environment, and how it answers.
//!
//! The option table is a `clap` one; how arguments are split, in which order complaints come and how they
//! are worded follow the originals, which scripts already rely on. [`parse`] is pure: it neither reads the
//! process nor prints. What a value must satisfy belongs to `config`, not here.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command, CommandFactory, Parser};

use crate::config::{self, Config, TlsFiles};

/// The columns of the help text, as the originals assume when there is no terminal.
const COLUMNS: usize = 80;

const DESCRIPTION: &str =
    "Signaling server for WebRTC. Used by Netflux API (https://coast-team.github.io/netflux/)";

const ENVIRONMENT: &str = "\
Each option may come from the environment too, SIGVER_PORT for --port or
SIGVER_MAX_MESSAGE for --max-message: the command line wins.";

const EXAMPLES: &str = "\
Examples:

  $ sigver                       # Signaling server is listening on 0.0.0.0:8000
  $ sigver -h 192.168.0.1 -p 80  # Signaling server is listening on 192.168.0.1:80
  $ sigver --key ./private.key --cert ./primary.crt --ca ./intermediate.crt --port 443  # Signaling server is listening on 0.0.0.0:443
  $ sigver -h ::                 # Signaling server is listening on :::8000 (IPv4 and IPv6)";

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
}

/// The option table, in the order of the help text. `help` and `version` stand here only to be listed.
#[derive(Parser)]
#[command(name = "sigver", disable_help_flag = true, disable_version_flag = true)]
struct Flags {
    #[arg(short = 'V', long, help = "output the version number")]
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

    #[arg(long, value_name = "list", help_heading = "Gateway")]
    #[arg(default_value = config::DEFAULT_PROTOCOL, help = "The protocols to serve: auto, json, protobuf-v1, current, signaller, a dialect such as sigver-18, or a release such as sigver-15.0.4; auto finds out")]
    protocol: String,
    #[arg(long, value_name = "bytes", help_heading = "Gateway")]
    #[arg(default_value_t = config::DEFAULT_MAX_MESSAGE, value_parser = config::bytes)]
    #[arg(help = "The largest message accepted from a client")]
    max_message: usize,
    #[arg(long, value_name = "bytes", help_heading = "Gateway")]
    #[arg(default_value_t = config::DEFAULT_MAX_PENDING, value_parser = config::bytes)]
    #[arg(help = "What may wait for a slow receiver before it is disconnected; at least --max-message")]
    max_pending: usize,
    #[arg(long, value_name = "ms", help_heading = "Gateway")]
    #[arg(default_value_t = config::DEFAULT_SILENCE_MARGIN_MS, value_parser = config::milliseconds)]
    #[arg(help = "How long, over the network delay, a client may be silent before it is taken to wait \
                  for the server to speak first")]
    silence_margin: u64,
    #[arg(long, value_name = "ms", help_heading = "Gateway")]
    #[arg(default_value_t = config::DEFAULT_SILENCE_MAX_MS, value_parser = config::milliseconds)]
    #[arg(help = "The longest such wait, whatever the network delay")]
    silence_max: u64,
    #[arg(long, value_name = "seconds", help_heading = "Gateway")]
    #[arg(default_value_t = config::DEFAULT_FIRST_FRAME_TIMEOUT_S, value_parser = config::seconds)]
    #[arg(help = "How long a client may be silent that should speak first")]
    first_frame_timeout: u64,
    #[arg(long, value_name = "filter", help_heading = "Gateway")]
    #[arg(default_value = config::DEFAULT_LOG, value_parser = config::log_filter)]
    #[arg(help = "What is logged on stderr: a level, or levels by module such as info,sigver=debug")]
    log: String,
}

/// Where a value came from: the complaint about it names that.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    CommandLine,
    Environment,
}

/// The winning value of each option, by its long name.
type Values = BTreeMap<String, (OsString, Source)>;

/// What the arguments say, before any value is looked at.
#[derive(Default)]
struct Scan {
    values: Values,
    version: bool,
    help: bool,
    unknown: Option<String>,
    operands: Vec<String>,
}

/// Decides from the arguments, without the name of the program, and from the environment.
///
/// The rules are those of the originals: the last of repeated options wins, an option takes the next argument
/// whatever it looks like, `-V` acts at once, a missing value comes before `--help`, which comes before an
/// unknown option. An empty environment variable counts as absent.
pub fn parse(args: impl IntoIterator<Item = OsString>, env: &dyn Fn(&str) -> Option<String>) -> Outcome {
    let command = Flags::command();
    let scan = match scan(&command, args) {
        Ok(scan) => scan,
        Err(message) => return Outcome::Fail(format!("error: {message}")),
    };
    if scan.version {
        return Outcome::Print(env!("CARGO_PKG_VERSION").to_owned());
    }
    if scan.help {
        return Outcome::Print(help(&command));
    }
    if let Some(unknown) = scan.unknown {
        return Outcome::Fail(format!("error: unknown option '{unknown}'"));
    }
    let mut warnings = Vec::new();
    if !scan.operands.is_empty() {
        let operands: Vec<String> = scan.operands.iter().map(|operand| format!("'{operand}'")).collect();
        warnings.push(format!("warning: extra arguments are ignored: {}", operands.join(" ")));
    }
    let mut values = environment(&command, env, &mut warnings);
    values.extend(scan.values);
    match configure(&command, values) {
        Ok(config) => Outcome::Run(config, warnings),
        Err(message) => Outcome::Fail(format!("error: {message}")),
    }
}

/// Splits the arguments, up to `-V` if there is one. `Err` complains of a missing value.
fn scan(command: &Command, args: impl IntoIterator<Item = OsString>) -> Result<Scan, String> {
    let mut scan = Scan::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        // An option is Unicode; its value need not be, provided it is an argument of its own.
        let text = arg.to_string_lossy();
        if text == "--" {
            scan.operands.extend(args.by_ref().map(|operand| operand.to_string_lossy().into_owned()));
        } else if text == "--help" {
            scan.help = true;
        } else if !text.starts_with('-') || text == "-" {
            scan.operands.push(text.into_owned());
        } else if let Some(option) = find(command, &text) {
            if !takes_value(option) {
                scan.version = true;
                break;
            }
            let Some(value) = args.next() else {
                return Err(format!("option '{}' argument missing", spelling(option)));
            };
            scan.values.insert(long(option).to_owned(), (value, Source::CommandLine));
        } else if arg.to_str().is_some()
            && let Some((option, value)) = attached(command, &text)
        {
            if !takes_value(option) {
                scan.version = true;
                break;
            }
            scan.values.insert(long(option).to_owned(), (value.into(), Source::CommandLine));
        } else if scan.unknown.is_none() {
            scan.unknown = Some(text.into_owned());
        }
    }
    Ok(scan)
}

/// An option and what is written in the same argument: `-p9000`, `--port=9000`, `-Vp` (which is `-V -p`).
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
        None => option
            .get_short()
            .is_some_and(|short| name.strip_prefix('-').is_some_and(|n| n.chars().eq([short]))),
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

fn environment(
    command: &Command,
    env: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Values {
    let mut values = Values::new();
    for option in command.get_arguments().filter(|option| takes_value(option)).map(long) {
        let name = variable(option);
        let Some(value) = env(&name).filter(|value| !value.is_empty()) else {
            continue;
        };
        // Kubernetes describes a service called `sigver` to every container in a variable of that name.
        if option == "port" && (value.starts_with("tcp://") || value.starts_with("udp://")) {
            warnings.push(format!("warning: {name} is ignored, '{value}' describes a service"));
            continue;
        }
        values.insert(option.to_owned(), (value.into(), Source::Environment));
    }
    values
}

/// Gives the values their types and relates them to each other.
fn configure(command: &Command, mut values: Values) -> Result<Config, String> {
    // What a script passes for a file it does not have: `--ca "$CA"`. The originals took it for no file too.
    values.retain(|option, (value, _)| !(["key", "cert", "ca"].contains(&&**option) && value.is_empty()));
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
        silence_margin: Duration::from_millis(flags.silence_margin),
        silence_max: Duration::from_millis(flags.silence_max),
        first_frame_timeout: Duration::from_secs(flags.first_frame_timeout),
        log: flags.log,
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
    let (value, source) = match values.get(option) {
        Some((value, source)) => (value.as_os_str(), *source),
        None => (OsStr::new(""), Source::CommandLine),
    };
    let value = value.to_string_lossy();
    match source {
        Source::CommandLine => format!("option '{spelled}' argument '{value}' is invalid. {reason}"),
        Source::Environment => {
            let name = variable(option);
            format!("option '{spelled}' value '{value}' from env '{name}' is invalid. {reason}")
        }
    }
}

/// The text of `--help`, without a last line end.
fn help(command: &Command) -> String {
    let mut text = format!("Usage: sigver [options]\n\n{DESCRIPTION}\n\nOptions:\n");
    let (ours, original): (Vec<&Arg>, Vec<&Arg>) =
        command.get_arguments().partition(|option| option.get_help_heading().is_some());
    list(&mut text, &original);
    text.push_str("\nMore options, which earlier versions did not have:\n");
    list(&mut text, &ours);
    format!("{text}\n{ENVIRONMENT}\n\n{EXAMPLES}")
}

/// Lists options in two columns, the second one wrapped at [`COLUMNS`].
fn list(text: &mut String, options: &[&Arg]) {
    let width = options.iter().map(|option| spelling(option).len()).max().unwrap_or_default();
    for option in options {
        let mut about = option.get_help().map(ToString::to_string).unwrap_or_default();
        if let [default] = option.get_default_values()
            && takes_value(option)
        {
            about.push_str(&format!(" (default: \"{}\")", default.to_string_lossy()));
        }
        let mut line = format!("  {:width$} ", spelling(option));
        for word in about.split(' ') {
            if line.len() + 1 + word.len() > COLUMNS {
                text.push_str(&line);
                text.push('\n');
                line = " ".repeat(width + 3);
            }
            line.push(' ');
            line.push_str(word);
        }
        text.push_str(&line);
        text.push('\n');
    }
}

#[cfg(test)]
mod tests;
