//! The forms of the log, as the program writes them.

use serde_json::Value;
use tokio::io::AsyncBufReadExt as _;

use crate::common::hex;
use crate::common::process::{Served, run};
use crate::common::soon;
use crate::common::ws::Got;

/// Has clients open rooms, send payloads and mistakes. Returns the log, at the most verbose level.
async fn log_of_clients(more: &[&str]) -> String {
    let args = ["-h", "127.0.0.1", "-p", "0", "--control", "off", "--log", "trace"];
    let mut served = Served::start(&[&args[..], more].concat()).await;
    let mut member = served.ws("/SECRETKEY").await;
    assert!(member.binary(&hex("1a02080b")).await);
    member.expect(&[Got::binary("2001")]).await;
    let mut joiner = served.ws("/SECRETKEY").await;
    assert!(joiner.binary(&hex("1a02080c")).await);
    joiner.expect(&[Got::binary("2000")]).await;
    assert!(joiner.binary(b"\x12\x0d\x08\x00\x10\x00\x22\x07payload").await);
    assert!(matches!(member.message().await, Got::Binary(_)));
    let mut mistaken = served.ws("/").await;
    assert!(mistaken.text("{\"open\":\"SECRETKEY\",\"payload\":1}").await);
    assert!(mistaken.text("{\"payload\":\"SECRETKEY\"}").await);
    while !matches!(mistaken.message().await, Got::Close(..) | Got::End) {}
    drop((member, joiner, mistaken));
    served.signal("USR1").await;
    let mut log = String::new();
    // The last line of the status.
    while !log.contains("rooms: ") {
        assert_ne!(soon("the status", served.stderr.read_line(&mut log)).await.unwrap(), 0, "{log}");
    }
    served.signal("TERM").await;
    let (status, _, rest) = served.end().await;
    log.push_str(&rest);
    assert!(status.success(), "{log}");
    for secret in ["SECRETKEY", "payload"] {
        assert!(!log.contains(secret), "{log}");
    }
    log
}

/// Returns the lines of a log in JSON.
fn parsed(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[tokio::test]
async fn every_line_is_one_json_object() {
    let lines = parsed(&log_of_clients(&["--log-format", "json"]).await);
    let with = |message: &str| {
        let is_message =
            |line: &&Value| line["message"].as_str().is_some_and(|text| text.starts_with(message));
        lines.iter().find(is_message).unwrap_or_else(|| panic!("no line of {message}: {lines:?}"))
    };
    let ended = with("connection ended");
    assert_eq!(
        (&ended["level"], ended["id"].is_u64(), ended["cause"].is_string()),
        (&"DEBUG".into(), true, true)
    );
    assert_eq!(ended["span"]["name"], "connection", "{ended}");
    assert_eq!(with("serving")["level"], "INFO");
    // What is no event: the status, of several lines.
    let status = with("sigver 22");
    assert!(status["message"].as_str().unwrap().contains("\nconnections of sigver clients: "), "{status}");
    for line in &lines {
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(timestamp.ends_with('Z') && line["target"].as_str().unwrap().starts_with("sigver"), "{line}");
    }
}

#[tokio::test]
async fn warnings_before_the_start_have_the_format() {
    let served =
        Served::start(&["-h", "127.0.0.1", "-p", "0", "--log-format", "json", "--wsLib", "uws"]).await;
    served.signal("TERM").await;
    let lines = parsed(&served.end().await.2);
    assert_eq!(
        (&lines[0]["level"], lines[0]["message"].as_str().is_some()),
        (&"WARN".into(), true),
        "{lines:?}"
    );
}

#[tokio::test]
async fn addresses_are_logged_as_asked_in_each_format() {
    for format in ["text", "json"] {
        for (log_ip, shown, hidden) in [
            ("off", None, &["127.0.0"][..]),
            ("prefix", Some("127.0.0.0/24"), &["127.0.0.1"]),
            ("full", Some("127.0.0.1"), &["/24"]),
        ] {
            let log = log_of_clients(&["--log-format", format, "--log-ip", log_ip]).await;
            // The address that the server listens on is none of a client.
            let of_clients: Vec<&str> = log.lines().filter(|line| line.contains("connection")).collect();
            assert!(of_clients.len() > 3, "{log}");
            let of_clients =
                of_clients.into_iter().filter(|line| !line.contains("connections of sigver clients: "));
            let of_clients = of_clients.collect::<Vec<_>>().join("\n");
            assert!(shown.is_none_or(|shown| of_clients.contains(shown)), "{format} {log_ip}: {log}");
            assert!(hidden.iter().all(|hidden| !of_clients.contains(hidden)), "{format} {log_ip}: {log}");
        }
    }
}

#[tokio::test]
async fn unknown_formats_are_refused() {
    let (code, _, error) = run(&["--log-format", "xml"]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("text, json or journald"), "{error}");
}
