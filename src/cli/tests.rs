//! The behavior of the Node.js servers (measured), and what the gateway adds.

use std::collections::BTreeSet;
use std::time::Duration;

use regex_lite::Regex;

use super::*;
use crate::config::{
    AdminSocketPath, DetectionTimeouts, EnabledTransports, ListenAddress, LogFormat, LogIp, OriginPattern,
    PipeLimits, RoomPolicy, ServerLimits, SignallerConfig, TlsFiles,
};

mod access;
mod cluster;
mod config_file;
mod empty;

/// The text of sigver 20.1.0 (measured), up to the options that it does not have.
const ORIGINAL_HELP: &str = r#"Usage: sigver [options]

Signaling server for WebRTC. Used by Netflux API (https://coast-team.github.io/netflux/)

Options:
  -V, --version           output the version number
  -h, --host <ip>         Select host address to bind to (default: "0.0.0.0")
  -p, --port <number>     Select port to use (default: "8000")
  -k, --key <file path>   Private key for the certificate.
  -c, --cert <file path>  The server certificate.
  -a, --ca <file path>    The additional intermediate certificate or
                          certificates that web browsers will need in order to
                          validate the server certificate.
  --help                  display help for command

"#;

pub(super) fn defaults() -> Config {
    Config { admin_socket: AdminSocketPath::InFirstOf(vec!["/tmp".into()]), ..Config::default() }
}

pub(super) fn called(program: &str, args: &[&str], env: &[(&str, &str)]) -> Outcome {
    with_file(program, args, env, "")
}

/// Parses with a configuration file `sigver.toml`.
fn with_file(program: &str, args: &[&str], env: &[(&str, &str)], file: &str) -> Outcome {
    let variable = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
    let read_file = |path: &Path| match path == Path::new("sigver.toml") {
        true => Ok(file.to_owned()),
        false => Err(io::ErrorKind::NotFound.into()),
    };
    let env_names = || env.iter().map(|(name, _)| (*name).to_owned()).collect();
    let inputs = ProcessInputs { env: &variable, env_names: &env_names, read_file: &read_file };
    parse(OsStr::new(program), args.iter().map(OsString::from), inputs)
}

fn with_env(args: &[&str], env: &[(&str, &str)]) -> Outcome {
    called("/usr/bin/sigver", args, env)
}

fn config(args: &[&str], env: &[(&str, &str)]) -> Config {
    match with_env(args, env) {
        Outcome::Run(config, warnings) if warnings.is_empty() => config,
        other => panic!("{args:?}: {other:?}"),
    }
}

pub(super) fn address(config: &Config) -> (String, u16) {
    match &config.listen[0] {
        ListenAddress::Tcp { host, port } => (host.clone(), *port),
        other => panic!("{other}"),
    }
}

fn failure(args: &[&str], env: &[(&str, &str)]) -> String {
    match with_env(args, env) {
        Outcome::Fail(message) => message,
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn names_are_unique_and_defaults_are_those_of_the_configuration() {
    let names: BTreeSet<&str> = OPTIONS.iter().map(|option| option.long).collect();
    let shorts: BTreeSet<char> = OPTIONS.iter().filter_map(|option| option.short).collect();
    assert_eq!(names.len(), OPTIONS.len());
    assert_eq!(shorts.len(), OPTIONS.iter().filter(|option| option.short.is_some()).count());
    assert_eq!(config(&[], &[]), defaults());
    let given: Vec<String> = OPTIONS
        .iter()
        .filter(|option| !option.default.is_empty() && option.is_file_key())
        .map(|option| format!("--{}={}", option.long, option.default))
        .collect();
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    assert_eq!(config(&given, &[]), defaults());
}

#[test]
fn help_begins_as_upstream() {
    for args in [&["--help"][..], &["--foo", "--help"], &["extra", "--help"], &["--help", "--foo"]] {
        let Outcome::Print(text) = with_env(args, &[]) else { panic!("{args:?}") };
        assert!(text.starts_with(ORIGINAL_HELP), "{text}");
        assert!(text.contains("\nExamples:\n\n  $ sigver                       # Signaling server"));
        for option in &OPTIONS {
            assert!(text.contains(&format!("  {}", option.display())), "{text}");
            assert!(
                markdown().contains(&format!("`{}`", option.display().replace('|', "\\|"))),
                "{}",
                markdown()
            );
        }
        let options = text.split("\nExamples:").next().unwrap_or_default();
        assert!(options.lines().all(|line| line.len() <= 88 && line.trim_end() == line), "{text}");
    }
}

#[test]
fn version_ends_the_arguments() {
    let version = Outcome::Print(env!("CARGO_PKG_VERSION").into());
    for args in [
        &["-V"][..],
        &["--version"],
        &["-V", "--foo"],
        &["--foo", "-V"],
        &["-Vp", "9000"],
        &["-Vx"],
        &["-p", "abc", "-V", "-p"],
        &["--help", "-V"],
        &["--port", "--", "-V"],
        &["-v"],
        &["-vp", "9000"],
        &["-sV"],
        &["--type", "foo", "-v"],
    ] {
        assert_eq!(with_env(args, &[("SIGVER_PORT", "abc")]), version, "{args:?}");
    }
}

#[test]
fn usage_errors_are_those_of_upstream() {
    for (args, message) in [
        (&["--foo"][..], "error: unknown option '--foo'"),
        (&["--max-mesage=5"], "error: unknown option '--max-mesage=5'\n(is '--max-message' meant?)"),
        (&["--foo=bar"], "error: unknown option '--foo=bar'"),
        (&["-x"], "error: unknown option '-x'"),
        (&["-xp", "9000"], "error: unknown option '-xp'"),
        (&["-xV"], "error: unknown option '-xV'"),
        (&["--por", "9000"], "error: unknown option '--por'\n(is '--port' meant?)"),
        (&["--PORT"], "error: unknown option '--PORT'\n(is '--port' meant?)"),
        (&["--no-port"], "error: unknown option '--no-port'\n(is '--node-port' meant?)"),
        (&["--h"], "error: unknown option '--h'"),
        (&["---host"], "error: unknown option '---host'"),
        (&["--=x"], "error: unknown option '--=x'"),
        (&["--help=foo"], "error: unknown option '--help=foo'"),
        (&["--version=foo"], "error: unknown option '--version=foo'"),
        (&["-pfoo", "--foo", "--bar"], "error: unknown option '--foo'"),
        (&["extra", "--foo"], "error: unknown option '--foo'"),
        (&["-p"], "error: option '-p, --port <number>' argument missing"),
        (&["--port"], "error: option '-p, --port <number>' argument missing"),
        (&["--foo", "--port"], "error: option '-p, --port <number>' argument missing"),
        (&["--help", "-p"], "error: option '-p, --port <number>' argument missing"),
        (&["-h"], "error: option '-h, --host <ip>' argument missing"),
        (&["--key"], "error: option '-k, --key <file path>' argument missing"),
        (&["-c"], "error: option '-c, --cert <file path>' argument missing"),
        (&["--ca"], "error: option '-a, --ca <file path>' argument missing"),
        (&["--log"], "error: option '--log <filter>' argument missing"),
        (&["-t"], "error: option '-t, --type <value>' argument missing"),
        (&["-sw"], "error: option '-w, --wsLib <value>' argument missing"),
        (&["-sx"], "error: unknown option '-x'"),
        (&["--secure=1"], "error: unknown option '--secure=1'"),
        (&["--wslib", "ws"], "error: unknown option '--wslib'\n(is '--wsLib' meant?)"),
        (
            &["-p", "1", "--compat-cli", "sigver"],
            "error: option '--compat-cli <name>' must be the first argument",
        ),
    ] {
        assert_eq!(failure(args, &[]), message, "{args:?}");
    }
}

#[test]
fn values_are_split_as_upstream() {
    for args in
        [&["-p", "9000"][..], &["-p9000"], &["--port", "9000"], &["--port=9000"], &["-p", "1", "--port=9000"]]
    {
        assert_eq!(config(args, &[]), defaults().with_address("0.0.0.0", 9000), "{args:?}");
    }
    // Only the winning value is parsed.
    assert_eq!(address(&config(&["-p", "abc", "-p", "9000"], &[])), ("0.0.0.0".into(), 9000));
    assert_eq!(address(&config(&["-h::1"], &[])).0, "::1");
    assert_eq!(address(&config(&["-h", "-V"], &[])).0, "-V");
}

#[test]
fn every_option_reaches_the_configuration() {
    let expected = Config {
        listen: vec![
            ListenAddress::Tcp { host: "::".into(), port: 443 },
            ListenAddress::Unix("/a".into()),
            ListenAddress::Inherited("b".into()),
        ],
        tls: Some(access::expected_tls()),
        protocol: "sigver-18,sigver-20".parse().unwrap(),
        max_message: 1000,
        max_pending: 2000,
        transcode: false,
        rooms: RoomPolicy::PartitionedFor(Regex::new("^x").unwrap()),
        detection: DetectionTimeouts {
            margin: Duration::from_millis(1),
            silence: Duration::from_millis(2),
            first_frame: Duration::from_secs(3),
        },
        limits: ServerLimits {
            tls_timeout: Duration::from_secs(11),
            head_timeout: Duration::from_secs(12),
            max_connections: Some(13),
            max_connections_per_address: Some(14),
            max_connection_rate: Some(15),
            max_streams_per_address: Some(16),
            max_message_rate: Some(17),
            max_byte_rate: Some(1800),
            max_rooms: 19,
            max_rooms_per_connection: 20,
            max_members: 21,
            max_joiners: 22,
            replace_members: false,
            max_memory: Some(1 << 30),
            ..ServerLimits::default()
        },
        drain_timeout: Duration::from_secs(8),
        log: "debug".parse().unwrap(),
        log_format: LogFormat::Json,
        log_ip: LogIp::Prefix,
        admin_socket: AdminSocketPath::At("s.sock".into()),
        admin: Some(ListenAddress::Unix("/c".into())),
        transports: EnabledTransports::EventStream,
        signaller: SignallerConfig {
            origin: Some(OriginPattern::Expression(Regex::new("a|b").unwrap())),
            limits: PipeLimits {
                listen_deadline: Duration::from_secs(4),
                pipe_deadline: Duration::from_secs(5),
                max_size: 6,
                max_messages: 7,
            },
        },
        access: access::expected(),
        cluster: cluster::expected(),
        ..defaults()
    };
    let mut table = vec![
        ("host", "::"),
        ("port", "443"),
        ("listen", "unix:/a,fd:b"),
        ("key", "k.pem"),
        ("cert", "c.pem"),
        ("ca", "a.pem"),
        ("protocol", "sigver-18,sigver-20"),
        ("max-message", "1000"),
        ("max-pending", "2000"),
        ("transcode", "off"),
        ("rooms", "by-generation=^x"),
        ("silence-margin", "1"),
        ("silence-max", "2"),
        ("first-frame-timeout", "3"),
        ("drain-timeout", "8"),
        ("log", "debug"),
        ("log-format", "json"),
        ("log-ip", "prefix"),
        ("control", "s.sock"),
        ("admin", "unix:/c"),
        ("signaller-origin", "a|b"),
        ("trusted-proxies", "10.0.0.0/8,unix"),
        ("proxy-protocol", "required"),
        ("auth", "callout:http://a/b"),
        ("auth-callout-timeout", "30"),
        ("auth-callout-cache", "31"),
        ("client-ca", "o.pem"),
        ("allowed-origins", "https://a.example,*.b.example"),
        ("signaller-listen-deadline", "4"),
        ("signaller-pipe-deadline", "5"),
        ("signaller-max-size", "6"),
        ("signaller-max-messages", "7"),
        ("type", "sse"),
        ("tls-timeout", "11"),
        ("head-timeout", "12"),
        ("max-connections", "13"),
        ("max-connections-per-address", "14"),
        ("max-connection-rate", "15"),
        ("max-streams-per-address", "16"),
        ("max-message-rate", "17"),
        ("max-byte-rate", "1800"),
        ("max-rooms", "19"),
        ("max-rooms-per-connection", "20"),
        ("max-members", "21"),
        ("max-joiners", "22"),
        ("replace-members", "off"),
        ("max-memory", "1073741824"),
    ];
    table.extend(cluster::GIVEN);
    let given = |option: &&str, value: &str| {
        let values = find_long(option).unwrap().split_list(value).into_iter();
        values.map(|value| format!("--{option}={}", value.display())).collect::<Vec<_>>()
    };
    let args: Vec<String> = table.iter().flat_map(|(option, value)| given(option, value)).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    assert_eq!(config(&args, &[]), expected);
    let names = table.iter().map(|(option, _)| *option).filter(|name| !["host", "port"].contains(name));
    let differing = expected.differing_options(&defaults());
    assert_eq!(differing.into_iter().collect::<BTreeSet<_>>(), names.collect());
    let variable = |option: &str| find_long(option).and_then(OptionSpec::variable).unwrap();
    let env: Vec<(String, &str)> = table.iter().map(|(option, value)| (variable(option), *value)).collect();
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (&**name, *value)).collect();
    assert_eq!(env[13].0, "SIGVER_FIRST_FRAME_TIMEOUT");
    assert_eq!(config(&[], &env), expected);
    assert_eq!(address(&config(&["-p", "80"], &env)).1, 80);
}

#[test]
fn errors_name_the_value_and_its_source() {
    let reason = "A port is a whole number from 0 to 65535.";
    assert_eq!(
        failure(&["-p", "abc"], &[]),
        format!("error: option '-p, --port <number>' argument 'abc' is invalid. {reason}")
    );
    assert_eq!(
        failure(&[], &[("SIGVER_PORT", "abc")]),
        format!(
            "error: option '-p, --port <number>' value 'abc' from env 'SIGVER_PORT' is invalid. {reason}"
        )
    );
    assert_eq!(
        failure(&["--port="], &[]),
        format!("error: option '-p, --port <number>' argument '' is invalid. {reason}")
    );
    assert_eq!(
        failure(&["--max-message", "1M"], &[]),
        "error: option '--max-message <bytes>' argument '1M' is invalid. \
         It must be a whole number of bytes from 1 to 1073741824."
    );
    assert!(failure(&["--max-message", "9000000"], &[]).ends_with("add --max-pending 9000000 or more"));
    assert!(failure(&["--max-byte-rate", "9000"], &[]).ends_with("add --max-message 9000 or less"));
    assert_eq!(
        failure(&["--max-connection-rate", "0"], &[]),
        "error: option '--max-connection-rate <number>' argument '0' is invalid. \
         It must be off, or a whole number of connections from 1 to 4294967295."
    );
    assert!(failure(&["-k", "key.pem"], &[]).starts_with("error: '-k, --key <file path>' was given without"));
}

#[test]
fn ignored_arguments_are_warned_about() {
    let run = |warning: &str| Outcome::Run(defaults(), vec![warning.to_owned()]);
    assert_eq!(
        with_env(&["one", "-", "", "--", "--two", "-p", "80"], &[]),
        run("warning: extra arguments are ignored: 'one' '-' '' '--two' '-p' '80'")
    );
    assert_eq!(with_env(&["--", "--help"], &[]), run("warning: extra arguments are ignored: '--help'"));
    assert_eq!(
        with_env(&[], &[("SIGVER_PORT", "tcp://10.0.0.1:8000")]),
        run("warning: SIGVER_PORT is ignored, 'tcp://10.0.0.1:8000' describes a service")
    );
}

/// Returns the configuration and the warnings.
fn warned(args: &[&str], env: &[(&str, &str)]) -> (Config, Vec<String>) {
    match with_env(args, env) {
        Outcome::Run(config, warnings) => (config, warnings),
        other => panic!("{args:?}: {other:?}"),
    }
}

// From the `--help` of each release, and measurements.
#[test]
fn command_lines_of_every_release_are_accepted() {
    let secure = "warning: '-s, --secure' is not needed any more: a key and a certificate are enough";
    let ws_lib = "warning: '-w, --wsLib <value>' is ignored: there is one WebSocket library";
    let operand = "warning: extra arguments are ignored: 'start'";
    let tls = TlsFiles::from_parts(Some("k".into()), Some("c".into()), Some("a".into()), None).unwrap();
    let at = |host: &str, port| defaults().with_address(host, port);
    for (era, args, config, warnings) in [
        ("1 to 7.1", &[][..], defaults(), &[][..]),
        ("7.6", &["-h", "192.168.0.1", "-p", "9000"], at("192.168.0.1", 9000), &[]),
        ("8.0", &["--host", "127.0.0.1", "start"], at("127.0.0.1", 8000), &[operand]),
        (
            "8.1",
            &["--port", "8001", "--type", "ws"],
            Config { transports: EnabledTransports::WebSocket, ..at("0.0.0.0", 8001) },
            &[],
        ),
        (
            "8.1",
            &["-t", "sse", "-p", "8002"],
            Config { transports: EnabledTransports::EventStream, ..at("0.0.0.0", 8002) },
            &[],
        ),
        (
            "9, 10",
            &["-tws", "-w", "uws"],
            Config { transports: EnabledTransports::WebSocket, ..defaults() },
            &[ws_lib],
        ),
        ("13", &["--port", "8034", "--wsLib", "uws"], at("0.0.0.0", 8034), &[ws_lib]),
        (
            "13",
            &["-w", "ws", "-s", "-k", "k", "-c", "c", "-a", "a", "-p", "443"],
            Config { tls: tls.clone(), ..at("0.0.0.0", 443) },
            &[ws_lib, secure],
        ),
        (
            "14 to 16",
            &["-sp", "443", "-kk", "-cc", "-aa"],
            Config { tls: tls.clone(), ..at("0.0.0.0", 443) },
            &[secure],
        ),
        ("17 to 21", &["-k", "k", "-c", "c", "-a", "a"], Config { tls, ..defaults() }, &[]),
    ] {
        assert_eq!(
            warned(args, &[]),
            (config, warnings.iter().map(|text| (*text).to_owned()).collect()),
            "{era}: {args:?}"
        );
    }
}

#[test]
fn unsupported_uses_of_earlier_options_fail() {
    let not_secure = format!("error: {}", CliError::NotSecure);
    assert_eq!(failure(&["-s"], &[]), not_secure);
    assert_eq!(failure(&["--secure"], &[("SIGVER_KEY", ""), ("SIGVER_CERT", "")]), not_secure);
    assert!(failure(&["-s", "-k", "k"], &[]).contains("add '-c, --cert <file path>'"));
    assert_eq!(
        failure(&["-t", "both"], &[]),
        "error: option '-t, --type <value>' argument 'both' is invalid. It must be ws, sse or all."
    );
    assert_eq!(config(&["-t", "all"], &[("SIGVER_TYPE", "sse")]), defaults());
}

#[test]
fn variables_of_earlier_releases_have_lowest_priority() {
    let node = [("NODE_IP", "127.0.0.1"), ("NODE_PORT", "9000")];
    let (config, warnings) = warned(&[], &node);
    assert_eq!(address(&config), ("127.0.0.1".into(), 9000));
    assert_eq!(
        warnings,
        [
            "warning: --host is '127.0.0.1' from NODE_IP, which only sigver 7.6 to 11 read: its name is SIGVER_HOST now",
            "warning: --port is '9000' from NODE_PORT, which only sigver 7.6 to 11 read: its name is SIGVER_PORT now",
        ]
    );
    let (config, warnings) = warned(&["-p", "9001"], &[node[0], node[1], ("SIGVER_HOST", "::1")]);
    assert_eq!((address(&config), warnings.len()), (("::1".into(), 9001), 0));
    assert_eq!(warned(&[], &[("NODE_IP", ""), ("NODE_PORT", "")]), (defaults(), vec![]));
    assert_eq!(
        warned(&[], &[("NODE_PORT", "tcp://10.0.0.1:80")]).1,
        ["warning: NODE_PORT is ignored, 'tcp://10.0.0.1:80' describes a service"]
    );
    let refused = failure(&[], &[("NODE_PORT", "abc")]);
    assert!(refused.contains("option '-p, --port <number>' value 'abc' from env 'NODE_PORT'"), "{refused}");
}

#[test]
fn file_names_need_not_be_unicode() {
    use std::os::unix::ffi::OsStringExt as _;

    let name = || OsString::from_vec(b"k\xff".to_vec());
    let read_file = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let inputs = ProcessInputs { env: &|_| None, env_names: &Vec::new, read_file: &read_file };
    let parse = |args: Vec<OsString>| parse(OsStr::new("sigver"), args, inputs);
    match parse(vec!["-k".into(), name(), "-c".into(), "c".into()]) {
        Outcome::Run(Config { tls: Some(tls), .. }, _) => assert_eq!(tls.key, PemSource::File(name().into())),
        other => panic!("{other:?}"),
    }
    let refused = "error: option '-h, --host <ip>' argument 'k\u{fffd}' is invalid. It is not Unicode.";
    assert_eq!(parse(vec!["-h".into(), name()]), Outcome::Fail(refused.into()));
    let attached = OsString::from_vec(b"-k\xff".to_vec());
    assert_eq!(parse(vec![attached]), Outcome::Fail("error: unknown option '-k\u{fffd}'".into()));
}
