//! The configuration file, and the print of what is in force.

use super::*;

#[test]
fn file_has_less_priority_than_environment_and_arguments() {
    let file = "port = 9000\nhost = \"::1\"\nmax-message = 1000\ntranscode = false\n";
    let run = |args: &[&str], env: &[(&str, &str)]| match with_file("sigver", args, env, file) {
        Outcome::Run(config, warnings) if warnings.is_empty() => config,
        other => panic!("{other:?}"),
    };
    let expected = Config { max_message: 1000, transcode: false, ..defaults() }.with_address("::1", 9000);
    assert_eq!(run(&["--config", "sigver.toml"], &[]), expected);
    assert_eq!(run(&[], &[("SIGVER_CONFIG", "sigver.toml")]), expected);
    let overridden = run(&["-p", "1", "--config=sigver.toml"], &[("SIGVER_PORT", "2"), ("SIGVER_HOST", "h")]);
    assert_eq!(overridden, expected.with_address("h", 1));
}

#[test]
fn list_with_commas_may_be_a_list_in_the_file() {
    let run = |file: &str| match with_file("sigver", &["--config", "sigver.toml"], &[], file) {
        Outcome::Run(config, warnings) if warnings.is_empty() => config,
        other => panic!("{other:?}"),
    };
    for (list, text) in [
        (
            r#"allowed-origins = ["https://a.example", "*.b.example"]"#,
            r#"allowed-origins = "https://a.example,*.b.example""#,
        ),
        (r#"protocol = ["json", "signaller"]"#, r#"protocol = "json,signaller""#),
        (r#"trusted-proxies = ["10.0.0.0/8", "unix"]"#, r#"trusted-proxies = "10.0.0.0/8,unix""#),
    ] {
        assert_eq!(run(list), run(text), "{list}");
        assert_ne!(run(list), defaults(), "{list}");
    }
    let mixed = with_file("sigver", &["--config", "sigver.toml"], &[], "protocol = [1]");
    let Outcome::Fail(text) = mixed else { panic!("{mixed:?}") };
    assert!(text.contains("'protocol': it must be a string, or a list of strings"), "{text}");
}

#[test]
fn mistyped_variable_is_a_warning_with_a_suggestion() {
    let (used, warnings) =
        warned(&["-p", "1"], &[("SIGVER_MAX_MESAGE", "4"), ("SIGVER_SERVICE_HOST", "10.0.0.1")]);
    assert_eq!(used, defaults().with_address("0.0.0.0", 1));
    let ignored =
        "warning: SIGVER_MAX_MESAGE is ignored, as no option has this variable: is SIGVER_MAX_MESSAGE meant?";
    assert_eq!(warnings, [ignored]);
}

#[test]
fn check_config_has_a_help_of_its_own() {
    let Outcome::Print(text) = with_env(&["check-config", "--help"], &[]) else { panic!("no help") };
    assert!(
        text.starts_with("Usage: sigver check-config ") && text.lines().all(|line| line.len() <= 80),
        "{text}"
    );
}

#[test]
fn errors_of_the_file_name_it_and_quote_no_value() {
    for (file, message) in [
        ("port = 9000\nmax_mesage = 1\n", "has an unknown key 'max_mesage'; is 'max-message' meant?"),
        (
            "zzz = 1",
            "has an unknown key 'zzz'; sigver --help lists the options, whose long names are the keys",
        ),
        ("config = \"b\"", "has the key 'config', which is an option of the command line only"),
        ("secure = true", "has the key 'secure', which is an option of the command line only"),
        ("[server]\nport = 1", "has the table 'server': all keys are outside of tables"),
        (
            "port = 1.5",
            "has a value of the wrong type for 'port': it must be a string, a whole number, true or false",
        ),
        ("[port]\nx = 1", "has a value of the wrong type for 'port'"),
        ("# comment\nport = SECRET", "sigver.toml, line 2, is not TOML: "),
    ] {
        let outcome = with_file("sigver", &["--config", "sigver.toml"], &[], file);
        let Outcome::Fail(text) = outcome else { panic!("{outcome:?}") };
        assert!(
            text.starts_with("error: the configuration file sigver.toml") && text.contains(message),
            "{text}"
        );
        assert!(!text.contains("SECRET") && !text.contains('\n'), "{text}");
    }
    assert_eq!(
        with_file("sigver", &["--config", "sigver.toml"], &[], "port = \"x\""),
        Outcome::Fail(
            "error: option '-p, --port <number>' value 'x' in sigver.toml is invalid. \
             A port is a whole number from 0 to 65535."
                .into()
        )
    );
    let unreadable = with_file("sigver", &["--config", "none.toml"], &[], "");
    let Outcome::Fail(text) = unreadable else { panic!("{unreadable:?}") };
    assert_eq!(text, "error: cannot read the configuration file none.toml: there is no such file");
}

#[test]
fn check_config_prints_a_file_of_the_same_meaning() {
    let (args, env) = (["check-config", "-p", "1", "--config", "sigver.toml"], [("SIGVER_HOST", "::1")]);
    let outcome = with_file("sigver", &args, &env, "max-message = 1000");
    let Outcome::Check(config, text, _) = outcome else { panic!("{outcome:?}") };
    let source = |line: &str| {
        let line = text.lines().find(|candidate| candidate.starts_with(line)).unwrap();
        line.split_once("  # ").unwrap().1.to_owned()
    };
    assert_eq!(source("port = 1 "), "command line");
    assert_eq!(source("host = \"::1\" "), "environment variable SIGVER_HOST");
    assert_eq!(source("max-message = 1000 "), "file sigver.toml");
    assert_eq!(source("max-pending = 4194304 "), "default");
    assert_eq!(source("# key = "), "not set");
    let Outcome::Run(again, _) = with_file("sigver", &["--config=sigver.toml"], &[], &text) else {
        panic!("{text}")
    };
    assert_eq!(again, config);
}

#[test]
fn addresses_that_are_not_listened_on_are_comments() {
    let outcome = with_env(&["check-config", "--listen", "127.0.0.1:9", "--listen=unix:/a"], &[]);
    let Outcome::Check(config, text, _) = outcome else { panic!("{outcome:?}") };
    assert_eq!(config.listen.len(), 2);
    assert!(text.contains("\n# port = 8000 ") && text.contains("  # not used, as listen is set\n"), "{text}");
    let Outcome::Run(again, _) = with_file("sigver", &["--config=sigver.toml"], &[], &text) else {
        panic!("{text}")
    };
    assert_eq!(again, config);
}

#[test]
fn listen_replaces_the_default_address_and_adds_to_a_given_one() {
    let unix = ListenAddress::Unix("/a".into());
    assert_eq!(config(&["--listen", "unix:/a"], &[]).listen, std::slice::from_ref(&unix));
    let both = config(&["--listen", "unix:/a", "-p", "80"], &[]).listen;
    assert_eq!(both, [ListenAddress::Tcp { host: "0.0.0.0".into(), port: 80 }, unix.clone()]);
    let file = "listen = [\"unix:/a\", \"unix:/a\"]";
    let outcome = with_file("sigver", &["--config", "sigver.toml"], &[], file);
    let Outcome::Run(from_file, _) = outcome else { panic!("{outcome:?}") };
    assert_eq!(from_file.listen, [unix.clone(), unix]);
    assert!(
        failure(&["--listen", "80"], &[])
            .contains("--listen <address>' argument '80' is invalid. It must be an address")
    );
}

#[test]
fn bridge_between_clients_of_one_generation_is_warned_about() {
    let args = |protocol| ["--bridge-socket", "b.sock", "--protocol", protocol];
    for protocol in ["auto", "sigver-7,sigver-20"] {
        assert!(warned(&args(protocol), &[]).1.is_empty(), "{protocol}");
    }
    let (_, warnings) = warned(&args("sigver-20"), &[]);
    assert_eq!(
        warnings,
        ["warning: the bridge has no effect, as '--protocol <list>' names clients of one generation only"]
    );
}
