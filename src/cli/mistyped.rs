//! Words among the arguments that are meant as commands, and environment variables that are meant as those of
//! options. The Node.js servers ignored them all, and with them a typing error starts a public server.

use super::options::{OPTIONS, OptionSpec};

/// The commands, with `check-config`. A test in `tools` compares the names.
pub(crate) const COMMANDS: &[&str] = &[
    "bench",
    #[cfg(feature = "bridge")]
    "bridge",
    "check-config",
    "completions",
    "dialects",
    "healthcheck",
    "man",
    "matrix",
    "probe",
    "record",
    "replay",
    "status",
];

/// Smallest similarity, from 0 to 1, of a word that is treated as a mistyped command.
const MIN_SIMILARITY: f64 = 0.85;

/// Smallest similarity of a key of a configuration file. An unknown one is an error anyway.
const MIN_KEY_SIMILARITY: f64 = 0.8;

/// Returns what is meant by an operand that is no argument of a server, if it is recognised. `is_first` is
/// true for the first argument of all. Names of files are operands of scripts of earlier versions, and so is
/// `start`.
pub(super) fn meant_by(operand: &str, is_first: bool) -> Option<String> {
    let word = operand.to_ascii_lowercase();
    let advice = match word.as_str() {
        "start" | "run" | "serve" | "now" => return None,
        "help" | "usage" | "options" => "sigver --help lists options and commands",
        "version" => "sigver --version prints the version",
        "stop" | "shutdown" | "quit" | "kill" | "restart" => {
            "a server is stopped by SIGTERM: systemctl stop, docker stop, or kill <pid>"
        }
        "bridge" if cfg!(not(feature = "bridge")) => "this build has no bridge (cargo feature 'bridge')",
        "reload" => "a server is restarted to read its configuration again",
        "stats" | "stat" | "state" | "info" | "ps" | "list" | "connections" | "rooms" => {
            "is 'sigver status' meant?"
        }
        "check" | "config" | "test" | "validate" | "configtest" => "is 'sigver check-config' meant?",
        "benchmark" | "load" => "is 'sigver bench' meant?",
        _ => {
            if !word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
                return None;
            }
            let command = most_similar(&word, COMMANDS.iter().copied(), MIN_SIMILARITY)?;
            if word == command && !is_first {
                return Some(format!("a command comes first: sigver {command}"));
            }
            return Some(format!("is 'sigver {command}' meant?"));
        }
    };
    Some(advice.to_owned())
}

/// Returns the word that is most similar to another one, if it is similar enough, from 0 to 1.
fn most_similar<'a>(
    word: &str,
    words: impl Iterator<Item = &'a str>,
    min_similarity: f64,
) -> Option<&'a str> {
    let similar = words.map(|known| (strsim::jaro_winkler(word, known), known));
    let best = similar.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(similarity, _)| *similarity >= min_similarity).map(|(_, known)| known)
}

/// Returns a line about the option that is meant by an unknown one, after a line end; empty if none is
/// similar.
pub(super) fn suggested_option(unknown: &str) -> String {
    let name = unknown.trim_start_matches('-');
    let name = name.split('=').next().unwrap_or_default();
    // Options of one letter are similar to many, and one that takes no value is known by its name.
    if name.len() < 3 || OPTIONS.iter().any(|option| option.long == name && unknown.starts_with("--")) {
        return String::new();
    }
    let options = || OPTIONS.iter().map(|option| option.long);
    let by_case = options().find(|long| long.eq_ignore_ascii_case(name));
    let similar = by_case.or_else(|| most_similar(name, options(), MIN_SIMILARITY));
    similar.map(|long| format!("\n(is '--{long}' meant?)")).unwrap_or_default()
}

/// Returns the key of a configuration file that is meant by an unknown one, if there is a similar one.
pub(super) fn similar_key(unknown: &str) -> Option<&'static str> {
    let keys = OPTIONS.iter().filter(|option| option.is_file_key());
    let keys = keys.map(|option: &'static OptionSpec| option.long);
    most_similar(&unknown.replace('_', "-"), keys, MIN_KEY_SIMILARITY)
}

/// Returns the variable of an option that is meant by the name of one that no option has, if there is a
/// similar one.
pub(super) fn similar_variable(name: &str, value: &str) -> Option<String> {
    let rest = name.strip_prefix("SIGVER_")?;
    let variables: Vec<String> = OPTIONS.iter().filter_map(|option| option.variable()).collect();
    if variables.iter().any(|variable| variable == name) || describes_service(rest, value) {
        return None;
    }
    let names = variables.iter().map(|variable| variable.trim_start_matches("SIGVER_"));
    most_similar(rest, names, MIN_SIMILARITY).map(|name| format!("SIGVER_{name}"))
}

/// Returns true for the variables that Kubernetes sets for a service called `sigver` or `sigver-admin`:
/// `SIGVER_SERVICE_HOST`, `SIGVER_PORT_8000_TCP_ADDR`.
fn describes_service(rest: &str, value: &str) -> bool {
    let has_port_number = rest
        .split_once("PORT_")
        .is_some_and(|(_, number)| number.starts_with(|digit: char| digit.is_ascii_digit()));
    has_port_number
        || rest.contains("SERVICE_HOST")
        || rest.contains("SERVICE_PORT")
        || ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_variables_are_recognised_and_those_of_services_are_not() {
        for (name, meant) in [
            ("SIGVER_MAX_MESAGE", Some("SIGVER_MAX_MESSAGE")),
            ("SIGVER_ALLOWED_ORIGIN", Some("SIGVER_ALLOWED_ORIGINS")),
            ("SIGVER_MAXMESSAGE", Some("SIGVER_MAX_MESSAGE")),
            ("SIGVER_PROTOCOLS", Some("SIGVER_PROTOCOL")),
            ("SIGVER_PORT", None),
            ("SIGVER_COMPAT_CLI", None),
            ("SIGVER_SERVICE_HOST", None),
            ("SIGVER_SERVICE_PORT", None),
            ("SIGVER_SERVICE_PORT_HTTP", None),
            ("SIGVER_PORT_8000_TCP", None),
            ("SIGVER_PORT_8000_TCP_ADDR", None),
            ("SIGVER_ADMIN_SERVICE_HOST", None),
            ("SIGVER_IMAGE_TAG", None),
            ("SIGVER_", None),
            ("PORTS", None),
        ] {
            assert_eq!(similar_variable(name, "1").as_deref(), meant, "{name}");
        }
        assert_eq!(similar_variable("SIGVER_ADMIN_PORT", "tcp://10.0.0.1:9100"), None);
    }

    #[test]
    fn mistyped_commands_are_recognised_and_files_are_not() {
        for (word, part) in [
            ("statsu", "sigver status"),
            ("Status", "sigver status"),
            ("satus", "sigver status"),
            ("help", "--help"),
            ("HELP", "--help"),
            ("version", "--version"),
            ("stop", "SIGTERM"),
            ("martix", "sigver matrix"),
            ("benhc", "sigver bench"),
            ("dialect", "sigver dialects"),
            ("checkconfig", "sigver check-config"),
            ("config", "sigver check-config"),
            ("relpay", "sigver replay"),
            ("completion", "sigver completions"),
            ("bridge", if cfg!(feature = "bridge") { "is 'sigver bridge' meant?" } else { "no bridge" }),
        ] {
            let meant = meant_by(word, true).unwrap_or_default();
            assert!(meant.contains(part), "{word}: {meant}");
        }
        assert_eq!(meant_by("status", false).as_deref(), Some("a command comes first: sigver status"));
        for file in
            ["server.js", "./status", "start", "now", "one", "", "-", "8000", "dist/index.js", "sigver"]
        {
            assert_eq!(meant_by(file, true), None, "{file}");
        }
    }
}
