//! The text of `--help`, which begins as that of sigver 20.1.0, and the reference of the options in Markdown.

use clap::{Arg, ArgAction, Command};

use super::options::{Effect, OPTIONS, OptionSpec, Section};

/// Width of the help text, in columns: that of commander.js when there is no terminal.
const COLUMNS: usize = 80;

const DESCRIPTION: &str =
    "Signaling server for WebRTC. Used by Netflux API (https://coast-team.github.io/netflux/)";

/// The commands of `tools`; a test there compares the names.
const COMMANDS: &str = "\
Commands, each with a --help of its own:
  sigver check-config  check the configuration, and print it with its sources
  sigver status        show the status of a running server, by dialect
  sigver healthcheck   test that a running server answers
  sigver dialects      list the dialects, and the releases that speak them
  sigver matrix        test how well old and new clients work together
  sigver probe         detect the dialects that a server speaks
  sigver bench         measure the capacity of a server
  sigver record        forward connections to a server, and record them
  sigver replay        replay recordings against a server
  sigver completions   print a completion script for a shell
  sigver man           print the manual page";

/// The command of builds with the bridge.
const BRIDGE_COMMAND: &str = "
  sigver bridge        run the bridge that a gateway with --bridge-socket expects";

/// The text of `sigver check-config --help`, without a line end.
pub(super) const CHECK_CONFIG: &str = "\
Usage: sigver check-config [options of the server]

Check the configuration and the files that it names, and print each option with
its value and where it is from, without serving.

The options, the environment and the file of --config are those of the server:
sigver --help lists them. Exit code: 0 if the configuration is valid, else 1.";

const ENVIRONMENT: &str = "\
Each option can be set by an environment variable as well, SIGVER_PORT for --port
or SIGVER_MAX_MESSAGE for --max-message, or in the file of --config. The command
line wins over the environment, and that over the file. NODE_IP and NODE_PORT
are used for --host and --port if nothing else is set. -v is -V.";

const EXAMPLES: &str = "\
Examples:

  $ sigver                       # Signaling server is listening on 0.0.0.0:8000
  $ sigver -h 192.168.0.1 -p 80  # Signaling server is listening on 192.168.0.1:80
  $ sigver --key ./private.key --cert ./primary.crt --ca ./intermediate.crt --port 443  # Signaling server is listening on 0.0.0.0:443
  $ sigver -h ::                 # Signaling server is listening on :::8000 (IPv4 and IPv6)";

impl Section {
    fn heading(self) -> &'static str {
        match self {
            Section::Standard => "Options",
            Section::Gateway => "More options, which earlier versions did not have",
            Section::Access => "Who may connect",
            Section::Cluster => "A cluster",
            Section::Bridge => "Bridge between the generations of clients",
            Section::Limits => "Limits",
            Section::Signaller => "Options of signaller",
            Section::Earlier => "Options of earlier versions",
        }
    }
}

/// Returns the text of `--help`, without a line end.
pub(super) fn text() -> String {
    let mut text = format!("Usage: sigver [options]\n\n{DESCRIPTION}\n");
    for options in OPTIONS.chunk_by(|a, b| a.section == b.section) {
        text.push_str(&format!("\n{}:\n", options[0].section.heading()));
        list(&mut text, options);
    }
    let bridge = if cfg!(feature = "bridge") { BRIDGE_COMMAND } else { "" };
    format!("{text}\n{COMMANDS}{bridge}\n\n{ENVIRONMENT}\n\n{EXAMPLES}")
}

/// Lists options in two columns, of which the second is wrapped at [`COLUMNS`].
fn list(text: &mut String, options: &[OptionSpec]) {
    let width = options.iter().map(|option| option.display().len()).max().unwrap_or_default();
    for option in options {
        let mut help = option.help.to_owned();
        if !option.default.is_empty() {
            help.push_str(&format!(" (default: \"{}\")", option.default));
        }
        let mut line = format!("  {:width$} ", option.display());
        for word in help.split(' ') {
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

/// Returns the reference of the options: one Markdown table for each part of the help text. The key of an
/// option in the configuration file is its long name.
pub fn markdown() -> String {
    let code = |text: &str| match text {
        "" => String::new(),
        text => format!("`{}`", text.replace('|', "\\|")),
    };
    let mut text = String::new();
    for options in OPTIONS.chunk_by(|a, b| a.section == b.section) {
        let limits = options.iter().any(|option| !option.exceeded.is_empty());
        text.push_str(&format!("## {}\n\n", options[0].section.heading()));
        text.push_str("| option | environment | default | meaning |");
        text.push_str(if limits {
            " when it is reached | counted as |\n|---|---|---|---|---|---|\n"
        } else {
            "\n|---|---|---|---|\n"
        });
        for option in options {
            text.push_str(&format!(
                "| {} | {} | {} | {} |",
                code(&option.display()),
                code(&option.variable().unwrap_or_default()),
                code(option.default),
                option.help.replace('<', "\\<")
            ));
            if limits {
                let counted_as = option.counted_as.iter().map(|name| code(name)).collect::<Vec<_>>();
                text.push_str(&format!(" {} | {} |", option.exceeded, counted_as.join(", ")));
            }
            text.push('\n');
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// Returns the options as a command of `clap`, from which completions and the manual page are made. It parses
/// nothing: the rules of splitting are those of commander.js.
pub(crate) fn clap_command() -> Command {
    let arguments = OPTIONS.iter().filter(|option| !matches!(option.effect, Effect::Ignored)).map(|option| {
        let mut help = option.help.to_owned();
        if !option.exceeded.is_empty() {
            help.push_str(&format!(". When it is reached: {}", option.exceeded));
        }
        let argument =
            Arg::new(option.long).long(option.long).help(help).help_heading(option.section.heading());
        let argument = match option.short {
            Some(short) => argument.short(short),
            None => argument,
        };
        match option.value_name {
            Some(name) if option.default.is_empty() => argument.value_name(name),
            Some(name) => argument.value_name(name).default_value(option.default),
            None => argument.action(ArgAction::SetTrue),
        }
    });
    Command::new("sigver")
        .version(env!("CARGO_PKG_VERSION"))
        .about(DESCRIPTION)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .args(arguments)
        .subcommand(
            Command::new(super::CHECK_CONFIG)
                .about("Check the configuration, and print it with the source of each value"),
        )
}
