//! Valid and invalid values of the settings.

use super::parse::*;
use super::*;

fn error<T>(result: Result<T, ValueError>) -> String {
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn ports_are_javascript_numbers() {
    for (text, expected) in [
        ("8000", 8000),
        ("0", 0),
        ("65535", 65535),
        (" 18015 ", 18015),
        ("+18042", 18042),
        ("18043.0", 18043),
        ("1e4", 10000),
        ("0x4650", 18000),
        ("0b100011010101000", 18088),
        ("0o17500", 8000),
        ("-0", 0),
    ] {
        assert_eq!(port(text).ok(), Some(expected), "{text:?}");
    }
    for text in [
        "",
        " ",
        "abc",
        "70000",
        "65536",
        "-1",
        "1.5",
        "0x",
        "0x+1",
        "0x10000",
        "0b2",
        "NaN",
        "inf",
        "Infinity",
        "=9000",
        "80 81",
        "/run/sigver.sock",
        "99999999999999999999",
    ] {
        assert_eq!(error(port(text)), "A port is a whole number from 0 to 65535.", "{text:?}");
    }
}

#[test]
fn quantities_have_a_range() {
    assert_eq!(BYTES.parse("1048576").ok(), Some(1 << 20));
    assert_eq!(error(BYTES.parse::<u32>("0")), "It must be a whole number of bytes from 1 to 1073741824.");
    assert!(BYTES.parse::<u32>("1073741825").is_err());
    assert!(BYTES.parse::<u32>("1M").is_err());
    assert_eq!(milliseconds("0").ok(), Some(Duration::ZERO));
    assert!(milliseconds("-1").is_err());
    assert_eq!(seconds("60").ok(), Some(Duration::from_secs(60)));
    assert_eq!(error(seconds("0")), "It must be a whole number of seconds from 1 to 86400.");
}

#[test]
fn signaller_settings_have_their_own_ranges() {
    assert_eq!(long_seconds("2147483647").ok(), Some(Duration::from_secs(0x7fff_ffff)));
    assert!(
        long_seconds("0").is_err() && long_seconds("2147483648").is_err() && long_seconds("10s").is_err()
    );
    assert_eq!(MESSAGES.parse("4294967295").ok(), Some(u32::MAX));
    assert_eq!(
        error(MESSAGES.parse::<u32>("0")),
        "It must be a whole number of messages from 1 to 4294967295."
    );
    assert!(regex(r"^https://(a|b)\.example$").unwrap().is_match("https://b.example"));
    assert!(error(regex("(")).starts_with("Not a regular expression: "));
}

#[test]
fn transports_have_the_names_of_upstream() {
    assert_eq!(transports("ws").ok(), Some(EnabledTransports::WebSocket));
    assert_eq!(transports("sse").ok(), Some(EnabledTransports::EventStream));
    assert_eq!(transports("all").ok(), Some(EnabledTransports::All));
    for text in ["", "WS", "both", "ws,sse"] {
        assert_eq!(error(transports(text)), "It must be ws, sse or all.", "{text}");
    }
}

#[test]
fn log_filters_are_parsed() {
    let filter = |text: &str| text.parse::<Targets>().ok();
    for (text, same) in [
        ("info,sigver=debug", "info,sigver=debug"),
        ("info,", "info"),
        (" info , ,sigver=debug,", "info,sigver=debug"),
    ] {
        assert_eq!(log_filter(text).ok(), filter(same), "{text}");
    }
    assert!(error(log_filter("sigver[conn{id=1}]=debug")).contains("not supported"));
    for (text, message) in [
        (
            "warning",
            "'warning' is no log level (is 'warn' meant?); the levels are off, error, warn, info, debug and trace.",
        ),
        ("inf", "(is 'info' meant?)"),
        ("DEBG", "(is 'debug' meant?)"),
        ("none", "(is 'off' meant?)"),
        ("json", "'json' is no log level; the levels are"),
        ("", "'' is no log level; the levels are"),
        (" , ", "'' is no log level"),
        ("info,sigver=warning", "'warning' is no log level (is 'warn' meant?)"),
        ("sigver=loud=1", "'loud=1' is no log level"),
        ("info,sigvr=debug", "'sigvr' is no module of this program"),
        ("hyper=debug", "'hyper' is no module of this program"),
    ] {
        assert!(error(log_filter(text)).contains(message), "{text}");
    }
    // Errors are logged, unless they are off.
    for (text, is_logged) in [
        ("sigver::server::conn=debug", true),
        ("sigver::server::conn", true),
        ("WARN", true),
        ("1", true),
        ("off", false),
        ("off,sigver::server::conn=debug", false),
    ] {
        let filter = log_filter(text).unwrap();
        let enabled = filter.would_enable("sigver::server::gateway", &tracing::Level::ERROR);
        assert_eq!(enabled, is_logged, "{text}");
    }
}

#[test]
fn rooms_are_partitioned_by_expression() {
    let partitioned = |text: &str, key: &str| rooms(text).unwrap().is_partitioned(key);
    assert!(!partitioned("shared", "x") && partitioned("by-generation", "x"));
    assert!(partitioned("by-generation=^a", "ab") && !partitioned("by-generation=^a", "b"));
    assert!(error(rooms("by-generation=(")).starts_with("Not a regular expression: "));
    assert!(error(rooms("other")).starts_with("It must be shared, by-generation, or "));
}

#[test]
fn incomplete_tls_files_are_rejected() {
    let file = |name: &str| Some(PemSource::from(name));
    assert_eq!(TlsFiles::from_parts(None, None, None, None), Ok(None));
    assert_eq!(
        TlsFiles::from_parts(file("k"), file("c"), None, None),
        Ok(Some(TlsFiles { key: "k".into(), cert: "c".into(), ca: None, client_ca: None }))
    );
    for (key, cert, ca, client_ca, added) in [
        (file("k"), None, None, None, "add '-c, --cert <file path>'"),
        (file("k"), None, file("a"), None, "add '-c, --cert <file path>'"),
        (None, file("c"), None, None, "add '-k, --key <file path>'"),
        (None, file("c"), file("a"), None, "add '-k, --key <file path>'"),
        (file("k"), None, None, file("o"), "add '-c, --cert <file path>'"),
        (None, None, None, file("o"), "add '-k, --key <file path>' and '-c, --cert <file path>'"),
        (None, None, file("a"), None, "add '-k, --key <file path>' and '-c, --cert <file path>'"),
    ] {
        let message = TlsFiles::from_parts(key, cert, ca, client_ca).unwrap_err().to_string();
        assert!(message.contains(added), "{message}");
    }
}

#[test]
fn contradictory_settings_are_rejected() {
    let config = Config::default();
    assert_eq!(config.check(), Ok(()));
    let pending = Config { max_pending: config.max_message - 1, ..config.clone() };
    assert!(pending.check().unwrap_err().to_string().ends_with("add --max-pending 1048576 or more"));
    let detection = DetectionTimeouts { margin: Duration::from_millis(501), ..config.detection };
    let margin = Config { detection, ..config };
    assert!(margin.check().unwrap_err().to_string().ends_with("add --silence-max 501 or more"));
}
