//! The command line of signallerd: flags in the syntax of Go programs. Each sets one of the gateway's
//! options.

use std::ffi::OsString;

use thiserror::Error;

use super::options::find_long;
use super::{
    CliError, GivenValue, Invocation, Outcome, Source, Values, add_environment, config_file, configure,
    extra_args_warning, reject_mistyped_command,
};
use crate::config::redact::displayed;

/// Host and port without `-addr`: every interface.
const DEFAULT_ADDRESS: (&str, &str) = ("", "8080");
/// Shortest deadline, in seconds.
const MIN_DEADLINE: u64 = 6;

/// One flag.
struct GoFlag {
    name: &'static str,
    value_type: &'static str,
    /// Long name of the option that the flag sets.
    option: &'static str,
    help: &'static str,
}

/// The flags, in the order of the usage text.
const FLAGS: [GoFlag; 6] = [
    GoFlag { name: "addr", value_type: "string", option: "host", help: "address to listen on, host:port" },
    GoFlag {
        name: "listenDL",
        value_type: "int",
        option: "signaller-listen-deadline",
        help: "longest wait of a listener for a connector, in seconds",
    },
    GoFlag {
        name: "maxMsg",
        value_type: "int",
        option: "signaller-max-messages",
        help: "maximum messages per direction; the pipe closes after the last",
    },
    GoFlag {
        name: "maxSize",
        value_type: "int",
        option: "signaller-max-size",
        help: "longest message, in bytes",
    },
    GoFlag {
        name: "originRE",
        value_type: "string",
        option: "signaller-origin",
        help: "origins of the pages that may connect, as a regular expression; without it, only the server's own",
    },
    GoFlag {
        name: "pipeDL",
        value_type: "int",
        option: "signaller-pipe-deadline",
        help: "longest duration of a pipe, in seconds",
    },
];

/// A mistake in the flags, in the words of Go's `flag` package.
#[derive(Debug, Error)]
enum GoFlagError {
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    #[error("flag provided but not defined: -{0}")]
    Undefined(String),
    #[error("flag needs an argument: -{0}")]
    ArgumentMissing(String),
    #[error("invalid value {0:?} for flag -addr: missing port in address")]
    PortMissing(String),
    #[error(
        "invalid value {1:?} for flag -{0}: It must be a whole number of seconds from {MIN_DEADLINE} to 2147483647."
    )]
    DeadlineTooShort(&'static str, String),
    #[error(transparent)]
    Cli(#[from] CliError),
}

/// Parses arguments in the syntax of signallerd. Settings without a flag (TLS, the log) come from the
/// environment or the configuration file.
pub(super) fn parse(args: impl Iterator<Item = OsString>, invocation: Invocation<'_>) -> Outcome {
    parse_flags(args, invocation).unwrap_or_else(|error| Outcome::UsageError(format!("{error}\n{}", usage())))
}

fn parse_flags(
    args: impl Iterator<Item = OsString>,
    invocation: Invocation<'_>,
) -> Result<Outcome, GoFlagError> {
    let Some((mut values, operands)) = split_flags(args)? else {
        return Ok(Outcome::Print(usage()));
    };
    reject_mistyped_command(&operands, true)?;
    let mut warnings: Vec<String> = extra_args_warning(&operands).into_iter().collect();
    let only_signaller = GivenValue { texts: vec!["signaller".into()], source: Source::CommandLine };
    values.insert("protocol", only_signaller);
    add_environment(&mut values, invocation.inputs, &mut warnings);
    config_file::add_values(&mut values, invocation.inputs.read_file).map_err(CliError::from)?;
    if !values.contains_key("listen") {
        for (option, default) in [("host", DEFAULT_ADDRESS.0), ("port", DEFAULT_ADDRESS.1)] {
            let given = || GivenValue { texts: vec![default.into()], source: Source::Signallerd("addr") };
            values.entry(option).or_insert_with(given);
        }
    }
    let config = configure(&values, invocation.inputs.env)?;
    Ok(invocation.outcome(config, &values, warnings))
}

/// Splits the arguments by the rules of Go: one dash or two, the value after `=` or in the next argument, and
/// no flags after `--` or the first operand. Returns `None` if they ask for help.
fn split_flags(args: impl Iterator<Item = OsString>) -> Result<Option<(Values, Vec<String>)>, GoFlagError> {
    let mut args = args.map(|arg| arg.to_string_lossy().into_owned());
    let (mut values, mut operands) = (Values::new(), Vec::new());
    while let Some(arg) = args.next() {
        let Some(text) = arg.strip_prefix('-').filter(|text| !text.is_empty()) else {
            operands.push(arg);
            break;
        };
        if text == "-" {
            break;
        }
        let text = text.strip_prefix('-').unwrap_or(text);
        if text.is_empty() || text.starts_with(['-', '=']) {
            return Err(GoFlagError::Syntax(displayed(&arg).into_owned()));
        }
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let Some(flag) = FLAGS.iter().find(|flag| flag.name == name) else {
            if ["h", "help"].contains(&name) {
                return Ok(None);
            }
            return Err(GoFlagError::Undefined(displayed(name).into_owned()));
        };
        let Some(value) = inline.or_else(|| args.next()) else {
            return Err(GoFlagError::ArgumentMissing(name.to_owned()));
        };
        set(&mut values, flag, &value)?;
    }
    operands.extend(args);
    Ok(Some((values, operands)))
}

/// Sets the option of a flag. `-addr` sets two.
fn set(values: &mut Values, flag: &GoFlag, value: &str) -> Result<(), GoFlagError> {
    let mut set = |option: &'static str, value: &str| {
        let given = GivenValue { texts: vec![value.into()], source: Source::Signallerd(flag.name) };
        values.insert(option, given);
    };
    let is_deadline = flag.name.ends_with("DL");
    if is_deadline && value.parse().is_ok_and(|seconds: u64| seconds < MIN_DEADLINE) {
        return Err(GoFlagError::DeadlineTooShort(flag.name, value.to_owned()));
    }
    if flag.name != "addr" {
        set(flag.option, value);
        return Ok(());
    }
    let (host, port) =
        value.rsplit_once(':').ok_or_else(|| GoFlagError::PortMissing(displayed(value).into_owned()))?;
    set("host", host);
    set("port", port);
    Ok(())
}

/// Returns the usage text, in the form of Go's `flag` package, without a line end.
fn usage() -> String {
    let mut text = "Usage of signallerd:".to_owned();
    for GoFlag { name, value_type, option, help } in FLAGS {
        text.push_str(&format!("\n  -{name} {value_type}\n    \t{help}"));
        let default = match name {
            "addr" => format!("\"{}:{}\"", DEFAULT_ADDRESS.0, DEFAULT_ADDRESS.1),
            _ => find_long(option).map(|option| option.default.to_owned()).unwrap_or_default(),
        };
        if !default.is_empty() {
            text.push_str(&format!(" (default {default})"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{self, called, defaults};
    use super::*;
    use crate::config::{Config, OriginPattern, PipeLimits, SignallerConfig};
    use regex_lite::Regex;
    use std::time::Duration;

    fn run(args: &[&str]) -> (Config, Vec<String>) {
        match called("/opt/bin/signallerd", args, &[("NODE_PORT", "9000")]) {
            Outcome::Run(config, warnings) => (config, warnings),
            other => panic!("{args:?}: {other:?}"),
        }
    }

    fn alone() -> Config {
        let protocol = "signaller".parse().unwrap();
        Config { protocol, ..defaults() }.with_address("", 8080)
    }

    #[test]
    fn flavor_is_chosen_by_argument_variable_or_program_name() {
        let expected = Outcome::Run(alone().with_address("0.0.0.0", 80), vec![]);
        for (program, args, variable) in [
            ("signallerd", &["-addr", "0.0.0.0:80"][..], ""),
            ("/opt/signallerd", &["--addr=0.0.0.0:80"], ""),
            ("sigver", &["--compat-cli", "signallerd", "-addr=0.0.0.0:80"], ""),
            ("sigver", &["--compat-cli=signallerd", "--addr", "0.0.0.0:80"], "sigver"),
            ("sigver", &["-addr", "0.0.0.0:80"], "signallerd"),
        ] {
            assert_eq!(
                called(program, args, &[("SIGVER_COMPAT_CLI", variable)]),
                expected,
                "{program} {args:?}"
            );
        }
        let ours = called("signallerd", &["--compat-cli", "sigver", "-p", "80"], &[]);
        assert_eq!(ours, Outcome::Run(defaults().with_address("0.0.0.0", 80), vec![]));
        for (args, variable, message) in [
            (&["--compat-cli"][..], "", "option '--compat-cli <name>' argument missing"),
            (
                &["--compat-cli", "x"],
                "",
                "option '--compat-cli <name>' argument 'x' is invalid. It must be sigver or signallerd.",
            ),
            (
                &["--compat-cli="],
                "",
                "option '--compat-cli <name>' argument '' is invalid. It must be sigver or signallerd.",
            ),
            (&["--compat-clix"], "", "unknown option '--compat-clix'\n(is '--compat-cli' meant?)"),
            (
                &[],
                "x",
                "option '--compat-cli <name>' value 'x' from env 'SIGVER_COMPAT_CLI' is invalid. It must be sigver or signallerd.",
            ),
        ] {
            let refused = called("sigver", args, &[("SIGVER_COMPAT_CLI", variable)]);
            assert_eq!(refused, Outcome::Fail(format!("error: {message}")), "{args:?}");
        }
    }

    #[test]
    fn every_flag_reaches_the_configuration() {
        assert_eq!(run(&[]), (alone(), vec![]));
        let expected = Config {
            signaller: SignallerConfig {
                origin: Some(OriginPattern::Expression(Regex::new(r"^https://ok\.example$").unwrap())),
                limits: PipeLimits {
                    listen_deadline: Duration::from_secs(6),
                    pipe_deadline: Duration::from_secs(604_800),
                    max_size: 4096,
                    max_messages: 100,
                },
            },
            ..alone()
        }
        .with_address("127.0.0.1", 8081);
        let given = [
            "-addr",
            "127.0.0.1:8081",
            "-originRE",
            r"^https://ok\.example$",
            "--listenDL",
            "6",
            "-pipeDL=604800",
            "--maxSize=4096",
            "-maxMsg",
            "1",
            "-maxMsg",
            "100",
        ];
        assert_eq!(run(&given), (expected, vec![]));
        for (address, host, port) in
            [(":9000", "", 9000), ("[::1]:80", "[::1]", 80), ("localhost:0", "localhost", 0)]
        {
            let (config, _) = run(&["-addr", address]);
            assert_eq!(tests::address(&config), (host.to_owned(), port));
        }
        // An expression may begin with a dash, and have an equals sign.
        for args in [&["-originRE", "-a=b"][..], &["-originRE=-a=b"]] {
            assert_eq!(run(args).0.signaller.origin.unwrap().to_string(), "/-a=b/");
        }
        assert_eq!(run(&["-originRE", ""]).0, alone());
        // Without the flag, the environment decides.
        let port = called("signallerd", &[], &[("SIGVER_PORT", "9000")]);
        assert_eq!(port, Outcome::Run(alone().with_address("", 9000), vec![]));
        // TLS and the log have no flag.
        let log = called("signallerd", &[], &[("SIGVER_LOG", "warn"), ("SIGVER_PROTOCOL", "auto")]);
        assert_eq!(log, Outcome::Run(Config { log: "warn".parse().unwrap(), ..alone() }, vec![]));
    }

    #[test]
    fn flags_end_at_the_first_operand() {
        for (args, ignored) in [
            (&["x", "-maxMsg", "1"][..], "'x' '-maxMsg' '1'"),
            (&["-", "-h"], "'-' '-h'"),
            (&["", "-h"], "'' '-h'"),
            (&["--", "-h"], "'-h'"),
        ] {
            let warning = format!("warning: extra arguments are ignored: {ignored}");
            assert_eq!(run(args), (alone(), vec![warning]), "{args:?}");
        }
        assert_eq!(run(&["--"]), (alone(), vec![]));
    }

    #[test]
    fn errors_are_those_of_go() {
        for (args, message) in [
            (&["-x"][..], "flag provided but not defined: -x"),
            (&["--port=80"], "flag provided but not defined: -port"),
            (&["-V"], "flag provided but not defined: -V"),
            (&["-maxmsg", "1"], "flag provided but not defined: -maxmsg"),
            (&["-maxMsg"], "flag needs an argument: -maxMsg"),
            (&["---maxMsg"], "bad flag syntax: ---maxMsg"),
            (&["-=1"], "bad flag syntax: -=1"),
            (&["--=1"], "bad flag syntax: --=1"),
            (&["-addr", "8080"], "invalid value \"8080\" for flag -addr: missing port in address"),
            (
                &["-addr", ":x"],
                "invalid value \"x\" for flag -addr: A port is a whole number from 0 to 65535.",
            ),
            (
                &["-maxSize=0"],
                "invalid value \"0\" for flag -maxSize: It must be a whole number of bytes from 1 to 1073741824.",
            ),
            (
                &["-listenDL=5"],
                "invalid value \"5\" for flag -listenDL: It must be a whole number of seconds from 6 to 2147483647.",
            ),
            (
                &["-pipeDL", "0"],
                "invalid value \"0\" for flag -pipeDL: It must be a whole number of seconds from 6 to 2147483647.",
            ),
            (
                &["-pipeDL", "10s"],
                "invalid value \"10s\" for flag -pipeDL: It must be a whole number of seconds from 1 to 2147483647.",
            ),
        ] {
            let Outcome::UsageError(text) = called("signallerd", args, &[]) else { panic!("{args:?}") };
            assert_eq!(text, format!("{message}\n{}", usage()), "{args:?}");
        }
        for help in ["-h", "--help"] {
            assert_eq!(called("signallerd", &["-maxMsg", "1", help, "-x"], &[]), Outcome::Print(usage()));
        }
        let first = "Usage of signallerd:\n  -addr string\n    \taddress to listen on, host:port (default \":8080\")\n";
        assert!(usage().starts_with(first), "{}", usage());
        let deadline =
            "\n  -listenDL int\n    \tlongest wait of a listener for a connector, in seconds (default 60)\n";
        assert!(usage().contains(deadline), "{}", usage());
    }
}
