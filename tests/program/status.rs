//! `sigver status`, SIGUSR1 and the control socket, tested on the program from outside.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use sigver::protocol::dialect::Dialect;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::common::process::{self, Served};
use crate::common::sse::ask;
use crate::common::ws::{Got, Ws};
use crate::common::{hex, soon};

/// Key of a room, which must not appear in any output.
const KEY: &str = "very-secret-key";

/// A directory for sockets, removed when dropped.
struct SocketDir(PathBuf);

impl SocketDir {
    fn new(test: &str) -> SocketDir {
        let path = std::env::temp_dir().join(format!("sigver-status-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        SocketDir(path)
    }

    fn socket(&self, port: u16) -> PathBuf {
        self.0.join(format!("sigver-{port}.sock"))
    }

    /// Returns the program with this directory as the place of sockets.
    fn sigver(&self, args: &[&str]) -> Command {
        let mut command = process::sigver(args);
        command.env_remove("RUNTIME_DIRECTORY").env("XDG_RUNTIME_DIR", &self.0);
        command
    }

    async fn serve(&self, args: &[&str]) -> Served {
        // A stop does not wait for clients that stay.
        let common = ["-h", "127.0.0.1", "--drain-timeout", "0"];
        Served::spawn(self.sigver(&[&common, args].concat())).await
    }

    /// Runs `sigver status`. Returns whether it succeeds, and its stdout and stderr.
    async fn status(&self, args: &[&str]) -> (bool, String, String) {
        let output = soon("the status", self.sigver(&[&["status"], args].concat()).output()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    async fn json(&self, port: u16) -> Value {
        let port = port.to_string();
        let (done, out, errors) = self.status(&["--port", &port, "--json", "--connections"]).await;
        assert!(done, "{errors}");
        assert!(!out.contains(KEY), "{out}");
        serde_json::from_str(&out).unwrap()
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Stops the server. Returns its stderr, without the part that was read before.
async fn stop(served: Served) -> String {
    served.signal("TERM").await;
    let (status, _, errors) = served.end().await;
    assert!(status.success());
    errors
}

fn dialect<'a>(status: &'a Value, name: &str) -> &'a Value {
    let dialects = status["dialects"].as_array().unwrap();
    assert_eq!(dialects.len(), Dialect::ALL.len());
    dialects.iter().find(|usage| usage["name"] == name).unwrap()
}

/// Returns [assigned active, assigned total, possible active, possible total].
fn numbers(status: &Value, name: &str) -> [u64; 4] {
    let usage = dialect(status, name);
    let number = |kind: &str, field: &str| usage[kind][field].as_u64().unwrap();
    [
        number("assigned", "active"),
        number("assigned", "total"),
        number("possible", "active"),
        number("possible", "total"),
    ]
}

/// Returns a member and a joiner of sigver 20 in the same room.
async fn pair_v20(server: &Served) -> [Ws<TcpStream>; 2] {
    let path = format!("/{KEY}");
    let (mut member, mut joiner) = (server.ws(&path).await, server.ws(&path).await);
    assert!(member.binary(&hex("1a02080b")).await);
    member.expect(&[Got::binary("2001")]).await;
    assert!(joiner.binary(&hex("1a02080c")).await);
    joiner.expect(&[Got::binary("2000")]).await;
    [member, joiner]
}

#[tokio::test]
async fn status_counts_connections_and_rooms_by_dialect() {
    let dir = SocketDir::new("counts");
    let served = dir.serve(&["-p", "0"]).await;
    let empty = dir.json(served.port()).await;
    assert_eq!(empty["connections"], json!({"active": 0, "total": 0}));
    assert_eq!(
        empty["rooms"],
        json!({
            "total": 0, "mixed": 0, "mixed_generations": 0, "mixed_generations_ever": 0,
            "by_dialect": {}, "links": [], "list": []
        })
    );
    assert_eq!(empty["address"], format!("127.0.0.1:{}", served.port()));

    let peers = pair_v20(&served).await;
    // sigver-7 joins the room, sigver-5 opens another; one client on a path and one without send nothing.
    let mut seventh = served.ws("/").await;
    assert!(seventh.text(&format!("{{\"join\":\"{KEY}\",\"data\":\"d\"}}")).await);
    seventh.expect_nothing().await;
    let mut fifth = served.ws("/").await;
    assert!(fifth.text("{\"type\":\"open\",\"key\":\"other-key\"}").await);
    fifth.expect_nothing().await;
    let mut silent = served.ws("/waiting").await;
    silent.expect(&[Got::binary("10012001"), Got::binary("1001")]).await;
    let mut mute = served.ws("/").await;
    mute.expect_nothing().await;

    let status = dir.json(served.port()).await;
    assert_eq!(status["connections"], json!({"active": 6, "total": 6}));
    assert_eq!(numbers(&status, "sigver-20"), [2, 2, 0, 0]);
    assert_eq!(numbers(&status, "sigver-19"), [0, 0, 2, 2]);
    assert_eq!(numbers(&status, "sigver-7"), [1, 1, 0, 0]);
    assert_eq!(numbers(&status, "sigver-5"), [1, 1, 0, 0]);
    assert_eq!(numbers(&status, "sigver-18"), [1, 1, 0, 0]);
    assert_eq!(numbers(&status, "sigver-16"), [0, 0, 1, 1]);
    assert_eq!(status["unrecognised"]["active"], 1);
    assert_eq!(dialect(&status, "sigver-18")["by_evidence"]["silence"], json!({"active": 1, "total": 1}));
    assert_eq!(dialect(&status, "sigver-20")["by_evidence"]["first_frame"], json!({"active": 2, "total": 2}));
    assert_eq!(dialect(&status, "sigver-7")["assigned"]["last_seen"], status["time"]);
    assert_eq!(dialect(&status, "sigver-1")["assigned"]["last_seen"], Value::Null);
    let rooms = &status["rooms"];
    let counts = ["total", "mixed", "mixed_generations"].map(|name| rooms[name].as_u64().unwrap());
    assert_eq!(counts, [3, 1, 1]);
    assert_eq!(rooms["list"].as_array().unwrap().len(), 1);
    assert_eq!(rooms["list"][0]["peers"], json!({"sigver-7": 1, "sigver-20": 2}));
    assert_eq!(rooms["list"][0]["generations"], 2);
    let hash = rooms["list"][0]["room"].as_str().unwrap().to_owned();
    assert!(hash.len() == 8 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()), "{hash}");
    let list = status["connection_list"].as_array().unwrap();
    let identified: Vec<[&Value; 2]> = list.iter().map(|one| [&one["dialect"], &one["evidence"]]).collect();
    assert_eq!(identified[2], [&json!("sigver-7"), &json!("first_frame")]);
    assert_eq!(list[2]["releases"], json!(["7.1.0"]));
    assert_eq!(identified[5], [&Value::Null, &Value::Null]);

    // The silent client turns out to be sigver-20; the others disconnect.
    assert!(silent.binary(&hex("1a02080d")).await);
    silent.expect(&[Got::binary("2001")]).await;
    for ws in [&mut seventh, &mut fifth] {
        ws.close(1000).await;
        ws.expect(&[Got::Close(Some(1000), String::new()), Got::End]).await;
    }
    let status = dir.json(served.port()).await;
    assert_eq!(numbers(&status, "sigver-18"), [0, 0, 0, 0]);
    assert_eq!(numbers(&status, "sigver-16"), [0, 0, 0, 0]);
    assert_eq!(numbers(&status, "sigver-20"), [3, 3, 0, 0]);
    assert_eq!(dialect(&status, "sigver-20")["by_evidence"]["corrected"], json!({"active": 1, "total": 1}));
    assert_eq!(numbers(&status, "sigver-7"), [0, 1, 0, 0]);
    assert!(dialect(&status, "sigver-7")["assigned"]["last_seen"].is_string());
    assert_eq!((&status["rooms"]["total"], &status["rooms"]["mixed"]), (&json!(2), &json!(0)));

    // The text names the room by the same hash.
    let port = served.port().to_string();
    let (done, out, errors) = dir.status(&["-p", &port, "--rooms", "--connections", "--all"]).await;
    assert!(done && errors.is_empty(), "{errors}");
    assert!(out.contains(&format!("\n{hash}  sigver-20 2\n")), "{out}");
    assert!(out.lines().any(|line| line.starts_with("sigver-20 ") && line.contains("corrected 1")), "{out}");
    assert!(!out.contains(KEY) && !out.contains("other-key"), "{out}");
    drop((peers, mute));
    stop(served).await;
}

#[tokio::test]
async fn pinned_dialect_and_signaller_are_counted() {
    let dir = SocketDir::new("pinned");
    let served = dir.serve(&["-p", "0", "--protocol", "sigver-18,signaller"]).await;
    let mut silent = served.ws("/room").await;
    silent.expect(&[Got::binary("1001")]).await;
    let listener = served.ws("/listen/abc").await;
    let status = dir.json(served.port()).await;
    assert_eq!(numbers(&status, "sigver-18"), [1, 1, 0, 0]);
    assert_eq!(dialect(&status, "sigver-18")["by_evidence"]["pinned"]["active"], 1);
    let served_now = ["sigver-18", "sigver-20"].map(|name| dialect(&status, name)["served"].clone());
    assert_eq!(served_now, [true, false]);
    let signaller = &status["signaller"];
    assert_eq!((&signaller["served"], &signaller["active"]), (&json!(true), &json!(1)));
    drop(listener);
    let port = served.port().to_string();
    let (_, text, _) = dir.status(&["-p", &port, "--all"]).await;
    let listed: Vec<&str> =
        text.lines().skip(4).take(3).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(listed, ["sigver-18", "signaller", "(not"], "{text}");
    stop(served).await;
}

#[tokio::test]
async fn event_streams_are_counted() {
    let dir = SocketDir::new("streams");
    let served = dir.serve(&["-p", "0"]).await;
    let address = SocketAddr::from(([127, 0, 0, 1], served.port()));
    let headers = [("Accept", "text/event-stream"), ("Origin", "https://page.example")];
    let mut stream = ask(address, "GET", &format!("/?open={KEY}"), &headers, "").await;
    stream.expect(&[":ok"]).await;
    assert!(stream.event().await.contains("\"isKeyOk\":true"));
    let status = dir.json(served.port()).await;
    assert_eq!(status["connections"], json!({"active": 1, "total": 1}));
    assert_eq!((numbers(&status, "sigver-8")[0], &status["unrecognised"]["active"]), (1, &json!(0)));
    drop(stream);
    stop(served).await;
}

#[tokio::test]
async fn sigusr1_prints_status_on_stderr() {
    let dir = SocketDir::new("signal");
    let mut served = dir.serve(&["-p", "0", "--control", "off", "--log", "error"]).await;
    let peers = pair_v20(&served).await;
    served.signal("USR1").await;
    let mut text = String::new();
    while !text.contains("rooms: ") {
        assert_ne!(soon("the status", served.stderr.read_line(&mut text)).await.unwrap(), 0, "{text}");
    }
    assert!(text.starts_with(concat!("sigver ", env!("CARGO_PKG_VERSION"), " on 127.0.0.1:")), "{text}");
    assert!(text.contains("\nconnections of sigver clients: 2 active, 2 in total\n"), "{text}");
    assert!(text.contains("\nrooms: 1; 0 with more than one dialect"), "{text}");
    assert!(!text.contains(KEY), "{text}");
    drop(peers);
    stop(served).await;
}

#[tokio::test]
async fn status_without_a_socket_fails_with_the_reason() {
    let dir = SocketDir::new("off");
    let (off, other) = (dir.serve(&["-p", "0", "--control", "off"]).await, dir.serve(&["-p", "0"]).await);
    assert!(!dir.socket(off.port()).exists() && dir.socket(other.port()).exists());
    let (done, out, errors) = dir.status(&["--port", &off.port().to_string()]).await;
    assert!(!done && out.is_empty());
    assert_eq!(errors.lines().count(), 1, "{errors}");
    let others = format!("There are sockets of servers on other ports: {}", other.port());
    assert!(errors.starts_with("error: no server answers (") && errors.contains(&others), "{errors}");
    let (done, _, errors) = dir.status(&["--control", "off"]).await;
    assert!(!done && errors.contains("the control socket is off"), "{errors}");
    assert_eq!(stop(off).await.matches("warning").count(), 0);
    stop(other).await;
}

#[tokio::test]
async fn each_server_has_its_own_socket_and_removes_it() {
    let dir = SocketDir::new("two");
    let (first, second) = (dir.serve(&["-p", "0"]).await, dir.serve(&["-p", "0"]).await);
    let peers = pair_v20(&second).await;
    assert_eq!(dir.json(first.port()).await["connections"]["active"], 0);
    assert_eq!(dir.json(second.port()).await["connections"]["active"], 2);
    let socket = dir.socket(first.port());
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    stop(first).await;
    assert!(!socket.exists());
    assert_eq!(dir.json(second.port()).await["connections"]["active"], 2);
    drop(peers);
    stop(second).await;
}

#[tokio::test]
async fn socket_left_by_a_crash_is_replaced() {
    let dir = SocketDir::new("crash");
    let path = dir.0.join("s.sock");
    let control = ["--control", path.to_str().unwrap()];
    let mut crashed = dir.serve(&[&["-p", "0"], &control[..]].concat()).await;
    crashed.process.kill().await.unwrap();
    assert!(path.exists());
    let served = dir.serve(&[&["-p", "0"], &control[..]].concat()).await;
    let (done, out, errors) = dir.status(&control).await;
    assert!(done && out.contains(&format!(" on 127.0.0.1:{},", served.port())), "{out}{errors}");
    // Another server on the same socket serves its clients, and warns.
    let third = dir.serve(&[&["-p", "0"], &control[..]].concat()).await;
    let mut ws = third.ws("/k").await;
    assert!(ws.binary(&hex("1a02080b")).await);
    ws.expect(&[Got::binary("2001")]).await;
    drop(ws);
    let errors = stop(third).await;
    let warning = "warning: no control socket, so that 'sigver status' does not work: ";
    assert!(errors.starts_with(warning) && errors.contains("another server answers there\n"), "{errors}");
    let (done, ..) = dir.status(&control).await;
    assert!(done, "the third server removed the socket of the second");
    stop(served).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn stalled_status_client_delays_neither_others_nor_shutdown() {
    let dir = SocketDir::new("hang");
    let served = dir.serve(&["-p", "0"]).await;
    let path = dir.socket(served.port());
    let hanging = tokio::net::UnixStream::connect(&path).await.unwrap();
    let mut wrong = tokio::net::UnixStream::connect(&path).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut wrong, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon("an answer", wrong.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("error: "), "{answer}");
    assert_eq!(dir.json(served.port()).await["connections"]["active"], 0);
    let end = tokio::time::timeout(Duration::from_secs(4), stop(served)).await;
    assert!(end.is_ok(), "shutdown waits for a client that sent no request");
    drop(hanging);
}

#[tokio::test]
async fn status_finds_every_running_server_and_no_stale_socket() {
    let dir = SocketDir::new("all");
    let custom = dir.0.join("custom name.sock");
    let bridge = dir.0.join("bridge.sock");
    let first = dir.serve(&["-p", "0", "--bridge-socket", bridge.to_str().unwrap()]).await;
    let second = dir.serve(&["-p", "0", "--control", custom.to_str().unwrap()]).await;
    // No process answers on the socket for a bridge, which is not asked.
    let _bridge = tokio::net::UnixStream::connect(&bridge).await.unwrap();
    drop(std::os::unix::net::UnixListener::bind(dir.0.join("sigver-1.sock")).unwrap());
    let (done, out, errors) = dir.status(&[]).await;
    assert!(done && errors.is_empty(), "{errors}");
    let mut found = vec![first.port()];
    // Processes are listed on Linux only.
    found.extend(cfg!(target_os = "linux").then_some(second.port()));
    for port in found {
        assert!(out.contains(&format!(" on 127.0.0.1:{port}, since ")), "{out}");
    }
    assert!(out.lines().all(|line| line.len() <= 80), "{out}");
    // Each answer is a JSON document.
    let (done, out, _) = dir.status(&["--json"]).await;
    let documents: Vec<Value> =
        serde_json::Deserializer::from_str(&out).into_iter().map(Result::unwrap).collect();
    assert!(done && documents.len() >= 2, "{out}");
    stop(first).await;
    stop(second).await;
}

#[tokio::test]
async fn watch_shows_status_again_and_again() {
    let dir = SocketDir::new("watch");
    let served = dir.serve(&["-p", "0"]).await;
    let mut watch =
        dir.sigver(&["status", "--port", &served.port().to_string(), "--watch", "1"]).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut seen = 0;
    while seen < 2 {
        let line = soon("a line", lines.next_line()).await.unwrap().unwrap();
        assert!(!line.contains('\x1b'), "{line}");
        seen += usize::from(line.starts_with("sigver "));
    }
    watch.kill().await.unwrap();
    stop(served).await;
}
