//! The command line of the gateway: options from arguments and the environment, and the texts that answer
//! them.
//!
//! Splitting, the order of errors and their texts are those of the Node.js servers, which scripts rely on: of
//! sigver 20 where releases disagree, with the options that only earlier ones had. The command line of
//! signallerd, with other names for a part of the options, is in `signallerd`. [`parse()`] neither reads the
//! process nor prints.

mod config_file;
mod effective;
mod help;
pub(crate) mod mistyped;
mod options;
mod signallerd;
mod split;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::parse::{self, ValueError};
use crate::config::redact::{displayed, displayed_path, may_be_secret};
use crate::config::{Config, ConfigError, PemSource};
use config_file::ConfigFileError;
use options::{Draft, Effect, OPTIONS, OptionSpec, find_long};
use split::split_args;

pub(crate) use help::clap_command;
pub use help::markdown;

/// First argument that has the configuration checked and printed instead of served.
const CHECK_CONFIG: &str = "check-config";

/// Longest configuration file, in bytes.
pub const MAX_CONFIG_FILE: u64 = 1 << 20;

/// Parts of the process that the command line depends on.
#[derive(Clone, Copy)]
pub struct ProcessInputs<'a> {
    /// Returns the value of an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Returns the names of all environment variables.
    pub env_names: &'a dyn Fn() -> Vec<String>,
    /// Reads a text file.
    pub read_file: &'a dyn Fn(&Path) -> io::Result<String>,
}

impl fmt::Debug for ProcessInputs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProcessInputs")
    }
}

/// Task of the process.
#[derive(Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "there is one of these in the life of a process")]
pub enum Outcome {
    /// Start the gateway, after writing each of these warnings as a line on stderr.
    Run(Config, Vec<String>),
    /// Check the files that the configuration names, and print this text on stdout, after writing each of the
    /// warnings as a line on stderr.
    Check(Config, String, Vec<String>),
    /// Write this on stdout, with a line end, and exit with status 0.
    Print(String),
    /// Write this on stderr, with a line end, and exit with status 1.
    Fail(String),
    /// Write this on stderr, with a line end, and exit with status 2, as programs in Go do.
    UsageError(String),
}

/// Syntax of the arguments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CliFlavor {
    Sigver,
    Signallerd,
}

impl CliFlavor {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "sigver" => Some(CliFlavor::Sigver),
            "signallerd" => Some(CliFlavor::Signallerd),
            _ => None,
        }
    }
}

/// Origin of a value, which errors name.
#[derive(Clone, PartialEq, Eq)]
enum Source {
    CommandLine,
    /// A variable of this name.
    Environment(String),
    /// A configuration file.
    File(PathBuf),
    /// A flag of signallerd.
    Signallerd(&'static str),
}

/// Values of an option, of which there are several only if it is repeatable.
#[derive(Clone)]
struct GivenValue {
    texts: Vec<OsString>,
    source: Source,
}

/// The winning value of each option, by its long name.
type Values = BTreeMap<&'static str, GivenValue>;

/// An error in the arguments or the environment. The first field is the option as [`OptionSpec::display`]
/// writes it.
#[derive(Debug, Error)]
enum CliError {
    #[error("option '{0}' argument missing")]
    ArgumentMissing(String),
    #[error("option '{0}' must be the first argument")]
    NotFirst(String),
    #[error("'{0}' is no argument of the server: {1}")]
    UnknownCommand(String, String),
    /// The first line is that of upstream.
    #[error("unknown option '{0}'{suggestion}", suggestion = mistyped::suggested_option(.0))]
    UnknownOption(String),
    #[error("option '{0}' argument '{1}' is invalid. {2}")]
    InvalidArgument(String, String, ValueError),
    #[error("option '{0}' value '{1}' from env '{2}' is invalid. {3}")]
    InvalidVariable(String, String, String, ValueError),
    #[error("option '{0}' value '{1}' in {path} is invalid. {3}", path = displayed_path(.2))]
    InvalidInFile(String, String, Box<Path>, ValueError),
    #[error(transparent)]
    File(#[from] ConfigFileError),
    #[error("invalid value \"{1}\" for flag -{0}: {2}")]
    InvalidFlag(&'static str, String, ValueError),
    #[error(
        "'-s, --secure' was given without a private key: add '-k, --key <file path>' and '-c, --cert <file path>' to \
         serve TLS, or remove it to serve plain text"
    )]
    NotSecure,
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// One call of the program.
#[derive(Clone, Copy)]
struct Invocation<'a> {
    inputs: ProcessInputs<'a>,
    /// True if the configuration is to be printed.
    check: bool,
}

/// Returns the outcome for the name under which the program was called, its arguments, and what it reads of
/// the process.
pub fn parse(
    program: &OsStr,
    args: impl IntoIterator<Item = OsString>,
    inputs: ProcessInputs<'_>,
) -> Outcome {
    let mut args = args.into_iter().peekable();
    let check = args.next_if(|first| first == CHECK_CONFIG).is_some();
    let args: Vec<OsString> = args.collect();
    let invocation = Invocation { inputs, check };
    let outcome = match detect_flavor(program, &args, inputs.env) {
        Ok((CliFlavor::Sigver, taken)) => parse_sigver(args.into_iter().skip(taken), invocation),
        Ok((CliFlavor::Signallerd, taken)) => Ok(signallerd::parse(args.into_iter().skip(taken), invocation)),
        Err(error) => Err(error),
    };
    outcome.unwrap_or_else(|error| Outcome::Fail(format!("error: {error}")))
}

/// Returns the flavor of the command line, and the number of arguments that select it.
fn detect_flavor(
    program: &OsStr,
    args: &[OsString],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(CliFlavor, usize), CliError> {
    const OPTION: &str = "--compat-cli";
    const DISPLAY: &str = "--compat-cli <name>";
    let choices = || ValueError::Word("sigver or signallerd");
    let from_argument = |name: &str, taken| match CliFlavor::from_name(name) {
        Some(flavor) => Ok((flavor, taken)),
        None => Err(CliError::InvalidArgument(DISPLAY.to_owned(), displayed(name).into_owned(), choices())),
    };
    let first = args.first().map(|arg| arg.to_string_lossy()).unwrap_or_default();
    match first.strip_prefix(OPTION) {
        Some("") => {
            let name = args.get(1).ok_or_else(|| CliError::ArgumentMissing(DISPLAY.to_owned()))?;
            return from_argument(&name.to_string_lossy(), 2);
        }
        Some(inline) if inline.starts_with('=') => return from_argument(&inline[1..], 1),
        _ => {}
    }
    let variable = "SIGVER_COMPAT_CLI";
    if let Some(name) = env(variable).filter(|name| !name.is_empty()) {
        return match CliFlavor::from_name(&name) {
            Some(flavor) => Ok((flavor, 0)),
            None => Err(CliError::InvalidVariable(
                DISPLAY.to_owned(),
                displayed(&name).into_owned(),
                variable.to_owned(),
                choices(),
            )),
        };
    }
    let called = Path::new(program).file_name().and_then(OsStr::to_str).and_then(CliFlavor::from_name);
    Ok((called.unwrap_or(CliFlavor::Sigver), 0))
}

/// Parses arguments in the syntax of sigver. An error of splitting comes before `-V`, that before `--help`,
/// and that before an unknown option.
fn parse_sigver(
    args: impl Iterator<Item = OsString>,
    invocation: Invocation<'_>,
) -> Result<Outcome, CliError> {
    let split = split_args(args)?;
    if split.version {
        return Ok(Outcome::Print(env!("CARGO_PKG_VERSION").to_owned()));
    }
    if split.help {
        let text = if invocation.check { help::CHECK_CONFIG.to_owned() } else { help::text() };
        return Ok(Outcome::Print(text));
    }
    if let Some(unknown) = split.unknown {
        return Err(CliError::UnknownOption(displayed(&unknown).into_owned()));
    }
    let mut warnings = Vec::new();
    reject_mistyped_command(&split.operands, split.begins_with_operand)?;
    warnings.extend(extra_args_warning(&split.operands));
    let mut values = split.values;
    if values.remove("wsLib").is_some() {
        warnings.push("warning: '-w, --wsLib <value>' is ignored: there is one WebSocket library".to_owned());
    }
    add_environment(&mut values, invocation.inputs, &mut warnings);
    config_file::add_values(&mut values, invocation.inputs.read_file)?;
    add_node_environment(&mut values, invocation.inputs.env, &mut warnings);
    let config = configure(&values, invocation.inputs.env)?;
    if split.secure {
        // Plain text must not be served where TLS was asked for.
        if config.tls.is_none() {
            return Err(CliError::NotSecure);
        }
        warnings.push(
            "warning: '-s, --secure' is not needed any more: a key and a certificate are enough".to_owned(),
        );
    }
    Ok(invocation.outcome(config, &values, warnings))
}

impl Invocation<'_> {
    /// Returns the outcome for a valid configuration and the values that it was made of.
    fn outcome(self, config: Config, values: &Values, mut warnings: Vec<String>) -> Outcome {
        let lists = values.get("protocol").into_iter().flat_map(|given| &given.texts);
        warnings.extend(lists.filter_map(|list| list.to_str()).flat_map(parse::protocol_warnings));
        warnings.extend(visible_password_warning(&config, values));
        if config.bridge.is_without_effect(&config.protocol) {
            warnings.push(
                "warning: the bridge has no effect, as '--protocol <list>' names clients of one generation only"
                    .to_owned(),
            );
        }
        match self.check {
            true => Outcome::Check(config, effective::text(values), warnings),
            false => Outcome::Run(config, warnings),
        }
    }
}

/// Returns the warning about a password on the command line, if there is one.
fn visible_password_warning(config: &Config, values: &Values) -> Option<String> {
    let url = config.cluster.url.as_ref()?;
    let is_visible = values.get("cluster").is_some_and(|given| given.source == Source::CommandLine);
    (is_visible && url.has_password()).then(|| {
        "warning: lists of processes show the password in '--cluster <url>': use '--cluster-password-file <file path>' \
         or the environment variable SIGVER_CLUSTER"
            .to_owned()
    })
}

/// Rejects operands that are meant as a command.
fn reject_mistyped_command(operands: &[String], begins_with_operand: bool) -> Result<(), CliError> {
    for (index, operand) in operands.iter().enumerate() {
        if let Some(advice) = mistyped::meant_by(operand, index == 0 && begins_with_operand) {
            return Err(CliError::UnknownCommand(operand.clone(), advice));
        }
    }
    Ok(())
}

/// Returns the warning about operands, if there are any.
fn extra_args_warning(operands: &[String]) -> Option<String> {
    // The rest of a key that the shell split at its blanks: its last line may be short.
    if operands.iter().any(|operand| may_be_secret(operand)) {
        return Some(format!("warning: {} extra arguments are ignored", operands.len()));
    }
    let quoted: Vec<String> = operands.iter().map(|operand| format!("'{}'", displayed(operand))).collect();
    (!quoted.is_empty()).then(|| format!("warning: extra arguments are ignored: {}", quoted.join(" ")))
}

/// Adds the values of environment variables for options that are absent.
fn add_environment(values: &mut Values, inputs: ProcessInputs<'_>, warnings: &mut Vec<String>) {
    for option in OPTIONS.iter().filter(|option| !matches!(option.effect, Effect::Flavor)) {
        if let Some(name) = option.variable() {
            add_variable(values, option, name, inputs.env, warnings);
        }
    }
    for name in (inputs.env_names)() {
        let value = (inputs.env)(&name).unwrap_or_default();
        let similar = mistyped::similar_variable(&name, &value);
        warnings.extend(similar.map(|similar| {
            format!(
                "warning: {} is ignored, as no option has this variable: is {similar} meant?",
                displayed(&name)
            )
        }));
    }
}

/// Adds the variables of sigver 7.6 to 11, with a warning: later releases did not read them, so that they may
/// be set for another reason.
fn add_node_environment(
    values: &mut Values,
    env: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) {
    for (long, name) in [("host", "NODE_IP"), ("port", "NODE_PORT")] {
        if let Some(option) = find_long(long)
            && let Some(value) = add_variable(values, option, name.to_owned(), env, warnings)
        {
            warnings.push(format!(
                "warning: --{long} is '{}' from {name}, which only sigver 7.6 to 11 read: its name is {} now",
                displayed(&value),
                option.variable().unwrap_or_default()
            ));
        }
    }
}

/// Adds the value of a variable if the variable is set and the option is absent. Returns the value if it was
/// added.
fn add_variable(
    values: &mut Values,
    option: &OptionSpec,
    name: String,
    env: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Option<String> {
    if values.contains_key(option.long) {
        return None;
    }
    let value = env(&name).filter(|value| !value.is_empty())?;
    // Kubernetes describes a service called `sigver` to every container in a variable of that name.
    if option.long == "port" && (value.starts_with("tcp://") || value.starts_with("udp://")) {
        warnings.push(format!("warning: {name} is ignored, '{}' describes a service", displayed(&value)));
        return None;
    }
    let texts = option.split_list(&value);
    values.insert(option.long, GivenValue { texts, source: Source::Environment(name) });
    Some(value)
}

/// Parses the values into a configuration.
fn configure(values: &Values, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, CliError> {
    let mut draft = Draft::new(env);
    for option in &OPTIONS {
        let Some(GivenValue { texts, source }) = values.get(option.long) else { continue };
        for value in texts {
            let is_empty = value.is_empty() && !may_be_empty(option, source);
            let applied = apply(option, value, &mut draft);
            let applied = applied.and_then(|()| if is_empty { Err(ValueError::Empty) } else { Ok(()) });
            applied.map_err(|error| {
                let (name, value) = (option.display(), value.to_string_lossy());
                // The reason may quote the value as well.
                let error = if may_be_secret(&value) { ValueError::NotShown } else { error };
                let value = displayed(&value).into_owned();
                match source {
                    Source::CommandLine => CliError::InvalidArgument(name, value, error),
                    Source::Environment(variable) => {
                        CliError::InvalidVariable(name, value, variable.clone(), error)
                    }
                    Source::File(path) => CliError::InvalidInFile(name, value, path.as_path().into(), error),
                    Source::Signallerd(flag) => CliError::InvalidFlag(flag, value, error),
                }
            })?;
        }
    }
    Ok(draft.finish()?)
}

/// Returns true if an empty value of the option, if it is valid, means that the option is absent. A server
/// whose certificate is in a variable that is not set would serve plain text.
fn may_be_empty(option: &OptionSpec, source: &Source) -> bool {
    match (source, option.effect) {
        // As in `--ca "$CA"`: intermediate certificates are not always needed.
        _ if option.long == "ca" => true,
        (Source::CommandLine, _) | (Source::File(_), Effect::SetFile(_)) => false,
        (Source::File(_) | Source::Environment(_) | Source::Signallerd(_), _) => true,
    }
}

/// Parses one value into the configuration.
fn apply(option: &OptionSpec, value: &OsStr, draft: &mut Draft) -> Result<(), ValueError> {
    let text = || value.to_str().ok_or(ValueError::NotUnicode);
    match option.effect {
        Effect::Set(set) => set(draft, text()?),
        Effect::SetUnlessEmpty(set) if !value.is_empty() => set(draft, text()?),
        Effect::SetFile(field) if !value.is_empty() => {
            *field(draft) = Some(PemSource::parse(value));
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
