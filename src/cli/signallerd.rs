//! The command line of `signallerd`, as its operators know it: flags as programs in Go have them. Each stands for
//! one of our own options, whose rules it follows.

use std::ffi::OsString;

use clap::CommandFactory as _;

use super::{Flags, Outcome, Source, Values, configure, environment, extra};
use crate::config;

/// A flag: its name, what it takes, and our option.
struct Flag {
    name: &'static str,
    takes: &'static str,
    option: &'static str,
    about: &'static str,
}

/// All there are, in the order of the usage text.
const FLAGS: [Flag; 6] = [
    Flag { name: "addr", takes: "string", option: "host", about: "where to listen, host:port" },
    Flag {
        name: "listenDL",
        takes: "int",
        option: "signaller-listen-deadline",
        about: "how long a listener may wait, in seconds",
    },
    Flag {
        name: "maxMsg",
        takes: "int",
        option: "signaller-max-messages",
        about: "with so many messages in one direction a pipe ends",
    },
    Flag {
        name: "maxSize",
        takes: "int",
        option: "signaller-max-size",
        about: "the longest message, in bytes",
    },
    Flag {
        name: "originRE",
        takes: "string",
        option: "signaller-origin",
        about: "the origins whose pages may come, as a regular expression; without it, only the server's own",
    },
    Flag {
        name: "pipeDL",
        takes: "int",
        option: "signaller-pipe-deadline",
        about: "how long a pipe may last, in seconds",
    },
];

/// What the arguments ask for.
enum Asked {
    Help,
    Serve(Values, Vec<String>),
}

/// Reads arguments as `signallerd` did. What it had no flag for (TLS, the log) may come from the environment, as ever.
pub(super) fn parse(args: impl Iterator<Item = OsString>, env: &dyn Fn(&str) -> Option<String>) -> Outcome {
    let (mut values, operands) = match scan(args) {
        Ok(Asked::Serve(values, operands)) => (values, operands),
        Ok(Asked::Help) => return Outcome::Print(usage()),
        Err(message) => return misused(&message),
    };
    let mut warnings: Vec<String> = extra(&operands).into_iter().collect();
    values.insert("protocol".to_owned(), ("signaller".into(), Source::CommandLine));
    let command = Flags::command();
    environment(&command, &mut values, env, &mut warnings);
    match configure(&command, values) {
        Ok(config) => Outcome::Run(config, warnings),
        Err(message) => misused(&message),
    }
}

/// Splits the arguments by the rules of Go: one dash or two, the value after `=` or in the next argument, and no
/// flags any more after `--` or the first argument that is none.
fn scan(args: impl Iterator<Item = OsString>) -> Result<Asked, String> {
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
            return Err(format!("bad flag syntax: {arg}"));
        }
        let (name, attached) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let Some(flag) = FLAGS.iter().find(|flag| flag.name == name) else {
            if ["h", "help"].contains(&name) {
                return Ok(Asked::Help);
            }
            return Err(format!("flag provided but not defined: -{name}"));
        };
        let Some(value) = attached.or_else(|| args.next()) else {
            return Err(format!("flag needs an argument: -{name}"));
        };
        take(&mut values, flag, &value)?;
    }
    operands.extend(args);
    Ok(Asked::Serve(values, operands))
}

/// Gives our options what a flag says.
fn take(values: &mut Values, flag: &Flag, value: &str) -> Result<(), String> {
    let mut set = |option: &str, value: &str| {
        values.insert(option.to_owned(), (value.into(), Source::Signallerd(flag.name)));
    };
    if flag.name != "addr" {
        set(flag.option, value);
        return Ok(());
    }
    let Some((host, port)) = value.rsplit_once(':') else {
        return Err(format!("invalid value {value:?} for flag -addr: missing port in address"));
    };
    set("host", host);
    set("port", port);
    Ok(())
}

fn misused(message: &str) -> Outcome {
    Outcome::UsageError(format!("{message}\n{}", usage()))
}

/// The usage text, in the form that Go gives it, without a last line end.
fn usage() -> String {
    let mut text = "Usage of signallerd:".to_owned();
    for Flag { name, takes, option, about } in FLAGS {
        text.push_str(&format!("\n  -{name} {takes}\n    \t{about}"));
        let default = match name {
            "addr" => format!("\"{}:{}\"", config::DEFAULT_HOST, config::DEFAULT_PORT),
            _ => default_of(option),
        };
        if !default.is_empty() {
            text.push_str(&format!(" (default {default})"));
        }
    }
    text
}

/// The default of one of our options; nothing if it has none.
fn default_of(option: &str) -> String {
    let command = Flags::command();
    let found = command.get_arguments().find(|known| known.get_long() == Some(option));
    let defaults = found.map(|option| option.get_default_values()).unwrap_or_default();
    defaults.first().map(|default| default.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::tests::called;
    use super::*;
    use crate::config::{Config, SignallerConfig};
    use std::time::Duration;

    fn run(args: &[&str]) -> (Config, Vec<String>) {
        match called("/opt/bin/signallerd", args, &[("NODE_PORT", "9000")]) {
            Outcome::Run(config, warnings) => (config, warnings),
            other => panic!("{args:?}: {other:?}"),
        }
    }

    fn alone() -> Config {
        Config { protocol: "signaller".into(), ..Config::default() }
    }

    #[test]
    fn the_name_of_the_program_or_an_argument_says_whose_flags_they_are() {
        let expected = Outcome::Run(Config { port: 80, ..alone() }, vec![]);
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
        assert_eq!(ours, Outcome::Run(Config { port: 80, ..Config::default() }, vec![]));
        for (args, variable, message) in [
            (&["--compat-cli"][..], "", "option '--compat-cli <name>' argument missing"),
            (
                &["--compat-cli", "x"],
                "",
                "option '--compat-cli <name>' argument 'x' is invalid. It is sigver or signallerd.",
            ),
            (
                &["--compat-cli="],
                "",
                "option '--compat-cli <name>' argument '' is invalid. It is sigver or signallerd.",
            ),
            (&["--compat-clix"], "", "unknown option '--compat-clix'"),
            (
                &[],
                "x",
                "option '--compat-cli <name>' value 'x' from env 'SIGVER_COMPAT_CLI' is invalid. It is sigver or signallerd.",
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
            host: "127.0.0.1".into(),
            port: 8080,
            relay: SignallerConfig {
                origin: Some(r"^https://ok\.example$".into()),
                listen_deadline: Duration::from_secs(6),
                pipe_deadline: Duration::from_secs(604_800),
                max_size: 4096,
                max_messages: 100,
            },
            ..alone()
        };
        let given = [
            "-addr",
            "127.0.0.1:8080",
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
            assert_eq!((&*config.host, config.port), (host, port));
        }
        // An expression may well begin with a dash, or hold what separates it from its flag.
        assert_eq!(run(&["-originRE", "-a=b"]).0.relay.origin.as_deref(), Some("-a=b"));
        assert_eq!(run(&["-originRE=a=b"]).0.relay.origin.as_deref(), Some("a=b"));
        assert_eq!(run(&["-originRE", ""]).0, alone());
        // TLS and the log have no flag there.
        let log = called("signallerd", &[], &[("SIGVER_LOG", "warn"), ("SIGVER_PROTOCOL", "auto")]);
        assert_eq!(log, Outcome::Run(Config { log: "warn".into(), ..alone() }, vec![]));
    }

    #[test]
    fn flags_end_at_the_first_argument_that_is_none() {
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
    fn errors_are_worded_as_programs_in_go_do() {
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
                "invalid value \"0\" for flag -maxSize: It is a whole number of bytes from 1 to 1073741824.",
            ),
            (
                &["-pipeDL", "10s"],
                "invalid value \"10s\" for flag -pipeDL: It is a whole number of seconds from 1 to 2147483647.",
            ),
        ] {
            let Outcome::UsageError(text) = called("signallerd", args, &[]) else { panic!("{args:?}") };
            assert_eq!(text, format!("{message}\n{}", usage()), "{args:?}");
        }
        for help in ["-h", "--help"] {
            assert_eq!(called("signallerd", &["-maxMsg", "1", help, "-x"], &[]), Outcome::Print(usage()));
        }
        assert!(usage().starts_with("Usage of signallerd:\n  -addr string\n    \twhere to listen"));
        assert!(
            usage()
                .contains("\n  -listenDL int\n    \thow long a listener may wait, in seconds (default 60)\n")
        );
    }
}
