//! The text of `--help`: that of sigver 20.1.0, and what came since.

use clap::{Arg, Command};

use super::{spelling, takes_value};

/// The columns of the help text, as the originals assume when there is no terminal.
const COLUMNS: usize = 80;

const DESCRIPTION: &str =
    "Signaling server for WebRTC. Used by Netflux API (https://coast-team.github.io/netflux/)";

/// What `tools` has; a test there keeps it complete.
const COMMANDS: &str = "\
Commands, each with a --help of its own:
  sigver status     tell who speaks what on a server that runs
  sigver dialects   list the dialects that are spoken
  sigver matrix     measure how well old and new clients work together
  sigver probe      find out what a server speaks
  sigver bench      measure what a server can do, to size a machine
  sigver record     pass connections on to a server, and record them
  sigver replay     play recordings against a server";

const ENVIRONMENT: &str = "\
Each option may come from the environment too, SIGVER_PORT for --port or
SIGVER_MAX_MESSAGE for --max-message: the command line wins. NODE_IP and
NODE_PORT stand for --host and --port if nothing else does, and -v for -V.";

const EXAMPLES: &str = "\
Examples:

  $ sigver                       # Signaling server is listening on 0.0.0.0:8000
  $ sigver -h 192.168.0.1 -p 80  # Signaling server is listening on 192.168.0.1:80
  $ sigver --key ./private.key --cert ./primary.crt --ca ./intermediate.crt --port 443  # Signaling server is listening on 0.0.0.0:443
  $ sigver -h ::                 # Signaling server is listening on :::8000 (IPv4 and IPv6)";

/// The text of `--help`, without a last line end.
pub(super) fn text(command: &Command) -> String {
    let mut text = format!("Usage: sigver [options]\n\n{DESCRIPTION}\n\nOptions:\n");
    let options: Vec<&Arg> = command.get_arguments().collect();
    for part in options.chunk_by(|a, b| a.get_help_heading() == b.get_help_heading()) {
        if let Some(heading) = part[0].get_help_heading() {
            text.push_str(&format!("\n{heading}:\n"));
        }
        list(&mut text, part);
    }
    format!("{text}\n{COMMANDS}\n\n{ENVIRONMENT}\n\n{EXAMPLES}")
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
