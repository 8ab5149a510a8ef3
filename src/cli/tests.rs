//! What the originals were measured to do, and what this gateway adds. Tests only.

use super::*;

/// What the originals print, measured, up to the options they do not have.
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

fn with_env(args: &[&str], env: &[(&str, &str)]) -> Outcome {
    parse(args.iter().map(OsString::from), &|name| {
        env.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
    })
}

fn config(args: &[&str], env: &[(&str, &str)]) -> Config {
    match with_env(args, env) {
        Outcome::Run(config, warnings) if warnings.is_empty() => config,
        other => panic!("{args:?}: {other:?}"),
    }
}

fn failure(args: &[&str], env: &[(&str, &str)]) -> String {
    match with_env(args, env) {
        Outcome::Fail(message) => message,
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn the_table_is_sound() {
    Flags::command().debug_assert();
    assert_eq!(config(&[], &[]), Config::default());
}

#[test]
fn help_begins_and_goes_on_as_the_originals() {
    for args in [&["--help"][..], &["--foo", "--help"], &["extra", "--help"], &["--help", "--foo"]] {
        let Outcome::Print(text) = with_env(args, &[]) else { panic!("{args:?}") };
        assert!(text.starts_with(ORIGINAL_HELP), "{text}");
        assert!(text.contains("\nExamples:\n\n  $ sigver                       # Signaling server"));
        for option in Flags::command().get_arguments() {
            assert!(text.contains(&format!("  {}", spelling(option))), "{text}");
        }
        let options = text.split("\nExamples:").next().unwrap_or_default();
        assert!(options.lines().all(|line| line.len() <= 88 && line.trim_end() == line), "{text}");
    }
}

#[test]
fn version_acts_at_once() {
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
    ] {
        assert_eq!(with_env(args, &[("SIGVER_PORT", "abc")]), version, "{args:?}");
    }
}

#[test]
fn usage_errors_are_worded_as_the_originals() {
    for (args, message) in [
        (&["--foo"][..], "error: unknown option '--foo'"),
        (&["--foo=bar"], "error: unknown option '--foo=bar'"),
        (&["-x"], "error: unknown option '-x'"),
        (&["-xp", "9000"], "error: unknown option '-xp'"),
        (&["-xV"], "error: unknown option '-xV'"),
        (&["--por", "9000"], "error: unknown option '--por'"),
        (&["--PORT"], "error: unknown option '--PORT'"),
        (&["--no-port"], "error: unknown option '--no-port'"),
        (&["--h"], "error: unknown option '--h'"),
        (&["---help"], "error: unknown option '---help'"),
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
    ] {
        assert_eq!(failure(args, &[]), message, "{args:?}");
    }
}

#[test]
fn values_are_taken_as_the_originals_do() {
    for args in
        [&["-p", "9000"][..], &["-p9000"], &["--port", "9000"], &["--port=9000"], &["-p", "1", "--port=9000"]]
    {
        assert_eq!(config(args, &[]), Config { port: 9000, ..Config::default() }, "{args:?}");
    }
    // Only the value that wins has to suit.
    assert_eq!(config(&["-p", "abc", "-p", "9000"], &[]).port, 9000);
    assert_eq!(config(&["-h::1"], &[]).host, "::1");
    assert_eq!(config(&["-h", "-V"], &[]).host, "-V");
    assert_eq!(config(&["--host="], &[]).host, "");
}

#[test]
fn every_option_reaches_the_configuration() {
    let expected = Config {
        host: "::".into(),
        port: 443,
        tls: Some(TlsFiles { key: "k.pem".into(), cert: "c.pem".into(), ca: Some("a.pem".into()) }),
        protocol: "v1,v2".into(),
        max_message: 1000,
        max_pending: 2000,
        silence_margin: Duration::from_millis(1),
        silence_max: Duration::from_millis(2),
        first_frame_timeout: Duration::from_secs(3),
        log: "debug".into(),
    };
    let table = [
        ("host", "::"),
        ("port", "443"),
        ("key", "k.pem"),
        ("cert", "c.pem"),
        ("ca", "a.pem"),
        ("protocol", "v1,v2"),
        ("max-message", "1000"),
        ("max-pending", "2000"),
        ("silence-margin", "1"),
        ("silence-max", "2"),
        ("first-frame-timeout", "3"),
        ("log", "debug"),
    ];
    let args: Vec<String> = table.iter().map(|(option, value)| format!("--{option}={value}")).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    assert_eq!(config(&args, &[]), expected);
    let env: Vec<(String, &str)> = table.iter().map(|(option, value)| (variable(option), *value)).collect();
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (&**name, *value)).collect();
    assert_eq!(env[10].0, "SIGVER_FIRST_FRAME_TIMEOUT");
    assert_eq!(config(&[], &env), expected);
    assert_eq!(config(&["-p", "80"], &env).port, 80);
}

#[test]
fn bad_values_are_named_with_their_source() {
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
         It is a whole number of bytes from 1 to 1073741824."
    );
    assert!(failure(&["--max-message", "9000000"], &[]).ends_with("add --max-pending 9000000 or more"));
    assert!(failure(&["-k", "key.pem"], &[]).starts_with("error: '-k, --key <file path>' was given without"));
}

#[test]
fn empty_values_stand_for_no_file_and_no_variable() {
    assert_eq!(config(&["-k", "", "--cert=", "-a", ""], &[]).tls, None);
    assert_eq!(config(&["-k", "k", "-c", "c", "-a", ""], &[]).tls.map(|tls| tls.ca), Some(None));
    assert!(failure(&["-k", "k", "-c", ""], &[]).contains("add '-c, --cert <file path>'"));
    assert_eq!(config(&[], &[("SIGVER_PORT", ""), ("SIGVER_HOST", "")]), Config::default());
}

#[test]
fn what_is_ignored_is_said() {
    let run = |warning: &str| Outcome::Run(Config::default(), vec![warning.to_owned()]);
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

#[cfg(unix)]
#[test]
fn file_names_need_not_be_unicode() {
    use std::os::unix::ffi::OsStringExt as _;

    let name = || OsString::from_vec(b"k\xff".to_vec());
    let parse = |args: Vec<OsString>| parse(args, &|_| None);
    match parse(vec!["-k".into(), name(), "-c".into(), "c".into()]) {
        Outcome::Run(Config { tls: Some(tls), .. }, _) => assert_eq!(tls.key, PathBuf::from(name())),
        other => panic!("{other:?}"),
    }
    let refused = "error: option '-h, --host <ip>' argument 'k\u{fffd}' is invalid. It is not Unicode.";
    assert_eq!(parse(vec!["-h".into(), name()]), Outcome::Fail(refused.into()));
    let attached = OsString::from_vec(b"-k\xff".to_vec());
    assert_eq!(parse(vec![attached]), Outcome::Fail("error: unknown option '-k\u{fffd}'".into()));
}
