//! Which values the settings take, and which not. Tests only.

use super::*;

#[test]
fn ports_are_read_as_javascript_numbers() {
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
        assert_eq!(port(text), Ok(expected), "{text:?}");
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
        assert_eq!(port(text), Err("A port is a whole number from 0 to 65535.".into()), "{text:?}");
    }
}

#[test]
fn quantities_have_a_range() {
    assert_eq!(bytes("1048576"), Ok(1 << 20));
    assert_eq!(bytes("0"), Err("It is a whole number of bytes from 1 to 1073741824.".into()));
    assert!(bytes("1073741825").is_err());
    assert!(bytes("1M").is_err());
    assert_eq!(milliseconds("0"), Ok(0));
    assert!(milliseconds("-1").is_err());
    assert_eq!(seconds("60"), Ok(60));
    assert_eq!(seconds("0"), Err("It is a whole number of seconds from 1 to 86400.".into()));
}

#[test]
fn the_relay_has_ranges_of_its_own() {
    assert_eq!(deadline("2147483647"), Ok(0x7fff_ffff));
    assert!(deadline("0").is_err() && deadline("2147483648").is_err() && deadline("10s").is_err());
    assert_eq!(messages("4294967295"), Ok(u32::MAX));
    assert_eq!(messages("0"), Err("It is a whole number of messages from 1 to 4294967295.".into()));
    assert_eq!(origin(r"^https://(a|b)\.example$"), Ok(r"^https://(a|b)\.example$".into()));
    assert!(origin("(").is_err_and(|e| e.starts_with("Not a regular expression: ")));
}

#[test]
fn transports_are_spelled_as_in_the_originals() {
    assert_eq!(transports("ws"), Ok(EnabledTransports::WebSocket));
    assert_eq!(transports("sse"), Ok(EnabledTransports::EventStream));
    assert_eq!(transports("all"), Ok(EnabledTransports::All));
    for text in ["", "WS", "both", "ws,sse"] {
        assert_eq!(transports(text), Err("It is ws, sse or all.".into()), "{text}");
    }
}

#[test]
fn log_filters_are_checked() {
    assert_eq!(log_filter("info,sigver=debug"), Ok("info,sigver=debug".into()));
    assert_eq!(log_filter("info,"), Ok("info".into()));
    assert_eq!(log_filter(" info , ,sigver=debug,"), Ok("info,sigver=debug".into()));
    assert!(log_filter("sigver[conn{id=1}]=debug").is_err_and(|e| e.contains("not supported")));
    assert!(log_filter("sigver=loud=1").is_err_and(|e| e.starts_with("Not a log filter: ")));
}

#[test]
fn half_a_tls_setup_is_refused() {
    let file = |name: &str| Some(PathBuf::from(name));
    assert_eq!(TlsFiles::from_parts(None, None, None), Ok(None));
    assert_eq!(
        TlsFiles::from_parts(file("k"), file("c"), None),
        Ok(Some(TlsFiles { key: "k".into(), cert: "c".into(), ca: None }))
    );
    for (key, cert, ca, added) in [
        (file("k"), None, None, "add '-c, --cert <file path>'"),
        (file("k"), None, file("a"), "add '-c, --cert <file path>'"),
        (None, file("c"), None, "add '-k, --key <file path>'"),
        (None, file("c"), file("a"), "add '-k, --key <file path>'"),
        (None, None, file("a"), "add '-k, --key <file path>' and '-c, --cert <file path>'"),
    ] {
        let message = TlsFiles::from_parts(key, cert, ca).unwrap_err().to_string();
        assert!(message.contains(added), "{message}");
    }
}

#[test]
fn settings_are_checked_against_each_other() {
    let config = Config::default();
    assert_eq!(config.check(), Ok(()));
    let pending = Config { max_pending: config.max_message - 1, ..config.clone() };
    assert!(pending.check().unwrap_err().to_string().ends_with("add --max-pending 1048576 or more"));
    let margin = Config { silence_margin: Duration::from_millis(501), ..config };
    assert!(margin.check().unwrap_err().to_string().ends_with("add --silence-max 501 or more"));
}
