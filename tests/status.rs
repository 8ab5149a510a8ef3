//! `sigver status`, SIGUSR1 and the control socket of a server that runs: the program itself, from outside.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod common;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use common::ws::{Got, Ws};
use common::{hex, soon};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// The key of a room, which must not appear anywhere.
const KEY: &str = "very-secret-key";

/// A folder for sockets, which is there as long as this lives.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("sigver-status-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn socket(&self, port: u16) -> PathBuf {
        self.0.join(format!("sigver-{port}.sock"))
    }

    /// The program, where sockets are in this folder.
    fn sigver(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sigver"));
        // What the environment of the tests may say is not meant.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SIGVER_")) {
            command.env_remove(name);
        }
        command.env_remove("RUNTIME_DIRECTORY").env("XDG_RUNTIME_DIR", &self.0);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    async fn serve(&self, args: &[&str]) -> Served {
        let mut process = self.sigver(&[&["-h", "127.0.0.1"], args].concat()).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        soon("the line", stdout.read_line(&mut line)).await.unwrap();
        let port = line.trim_end().rsplit(':').next().unwrap().parse().unwrap();
        Served { process, _stdout: stdout, stderr, port }
    }

    /// Whether it succeeds, and what it prints on stdout and on stderr.
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

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Served {
    process: Child,
    _stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
    port: u16,
}

impl Served {
    async fn ws(&self, path: &str) -> Ws<TcpStream> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let stream = soon("a connection", TcpStream::connect(address)).await.unwrap();
        Ws::open(stream, path).await
    }

    async fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.process.id().unwrap());
        assert!(Command::new("sh").args(["-c", &command]).status().await.unwrap().success());
    }

    /// Stops it; what it wrote on stderr since that was read last.
    async fn stop(mut self) -> String {
        self.signal("TERM").await;
        assert!(soon("its end", self.process.wait()).await.unwrap().success());
        let mut errors = String::new();
        soon("stderr", self.stderr.read_to_string(&mut errors)).await.unwrap();
        errors
    }
}

fn of<'a>(status: &'a Value, dialect: &str) -> &'a Value {
    let dialects = status["dialects"].as_array().unwrap();
    assert_eq!(dialects.len(), 16);
    dialects.iter().find(|used| used["name"] == dialect).unwrap()
}

/// Taken now and in total, perhaps now and in total.
fn numbers(status: &Value, dialect: &str) -> [u64; 4] {
    let used = of(status, dialect);
    let perhaps = &used["perhaps"];
    [&used["now"], &used["total"], &perhaps["now"], &perhaps["total"]].map(|number| number.as_u64().unwrap())
}

/// A member of sigver 20 in the room, and one of its own generation beside it.
async fn current(served: &Served) -> [Ws<TcpStream>; 2] {
    let path = format!("/{KEY}");
    let (mut member, mut joiner) = (served.ws(&path).await, served.ws(&path).await);
    assert!(member.binary(&hex("1a02080b")).await);
    member.expect(&[Got::binary("2001")]).await;
    assert!(joiner.binary(&hex("1a02080c")).await);
    joiner.expect(&[Got::binary("2000")]).await;
    [member, joiner]
}

#[tokio::test]
async fn it_tells_who_speaks_what() {
    let folder = Folder::new("who");
    let served = folder.serve(&["-p", "0"]).await;
    let empty = folder.json(served.port).await;
    assert_eq!(empty["connections"], json!({"now": 0, "total": 0}));
    assert_eq!(
        empty["rooms"],
        json!({"total": 0, "mixed": 0, "mixed_generations": 0, "mixed_generations_ever": 0, "list": []})
    );
    assert_eq!(empty["address"], format!("127.0.0.1:{}", served.port));

    let people = current(&served).await;
    // One of 7 joins them, one of 5 opens a room of its own, one waits for the first word, and one has no path.
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

    let status = folder.json(served.port).await;
    assert_eq!(status["connections"], json!({"now": 6, "total": 6}));
    assert_eq!(numbers(&status, "sigver-20"), [2, 2, 0, 0]);
    assert_eq!(numbers(&status, "sigver-19"), [0, 0, 2, 2]);
    assert_eq!(numbers(&status, "sigver-7"), [1, 1, 0, 0]);
    assert_eq!(numbers(&status, "sigver-5"), [1, 1, 0, 0]);
    assert_eq!(numbers(&status, "sigver-18"), [1, 1, 0, 0]);
    assert_eq!(numbers(&status, "sigver-16"), [0, 0, 1, 1]);
    assert_eq!(status["unrecognised"]["now"], 1);
    assert_eq!(of(&status, "sigver-18")["recognised_by"]["silence"], json!({"now": 1, "total": 1}));
    assert_eq!(of(&status, "sigver-20")["recognised_by"]["first_frame"], json!({"now": 2, "total": 2}));
    assert_eq!(of(&status, "sigver-7")["last_seen"], status["time"]);
    assert_eq!(of(&status, "sigver-1")["last_seen"], Value::Null);
    let rooms = &status["rooms"];
    let counted = ["total", "mixed", "mixed_generations"].map(|name| rooms[name].as_u64().unwrap());
    assert_eq!(counted, [3, 1, 1]);
    assert_eq!(rooms["list"].as_array().unwrap().len(), 1);
    assert_eq!(rooms["list"][0]["peers"], json!({"sigver-7": 1, "sigver-20": 2}));
    assert_eq!(rooms["list"][0]["generations"], 2);
    let hash = rooms["list"][0]["room"].as_str().unwrap().to_owned();
    assert!(hash.len() == 8 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()), "{hash}");
    let list = status["connection_list"].as_array().unwrap();
    let told: Vec<[&Value; 2]> = list.iter().map(|one| [&one["dialect"], &one["recognised_by"]]).collect();
    assert_eq!(told[2], [&json!("sigver-7"), &json!("first frame")]);
    assert_eq!(list[2]["releases"], json!(["7.1.0"]));
    assert_eq!(told[5], [&Value::Null, &Value::Null]);

    // The one that waited is of the current generation after all; the others go.
    assert!(silent.binary(&hex("1a02080d")).await);
    silent.expect(&[Got::binary("2001")]).await;
    for ws in [&mut seventh, &mut fifth] {
        ws.close(1000).await;
        ws.expect(&[Got::Close(Some(1000), String::new()), Got::End]).await;
    }
    let status = folder.json(served.port).await;
    assert_eq!(numbers(&status, "sigver-18"), [0, 0, 0, 0]);
    assert_eq!(numbers(&status, "sigver-16"), [0, 0, 0, 0]);
    assert_eq!(numbers(&status, "sigver-20"), [3, 3, 0, 0]);
    assert_eq!(of(&status, "sigver-20")["recognised_by"]["taken_back"], json!({"now": 1, "total": 1}));
    assert_eq!(numbers(&status, "sigver-7"), [0, 1, 0, 0]);
    assert!(of(&status, "sigver-7")["last_seen"].is_string());
    assert_eq!((&status["rooms"]["total"], &status["rooms"]["mixed"]), (&json!(2), &json!(0)));

    // For people: the same room has the same name.
    let port = served.port.to_string();
    let (done, out, errors) = folder.status(&["-p", &port, "--rooms", "--connections"]).await;
    assert!(done && errors.is_empty(), "{errors}");
    assert!(out.contains(&format!("\n{hash}  sigver-20 2\n")), "{out}");
    assert!(out.lines().any(|line| line.starts_with("sigver-20 ") && line.contains("taken back 1")), "{out}");
    assert!(!out.contains(KEY) && !out.contains("other-key"), "{out}");
    drop((people, mute));
    served.stop().await;
}

#[tokio::test]
async fn a_pinned_server_counts_who_speaks_nothing_else() {
    let folder = Folder::new("pinned");
    let served = folder.serve(&["-p", "0", "--protocol", "sigver-18,signaller"]).await;
    let mut silent = served.ws("/room").await;
    silent.expect(&[Got::binary("1001")]).await;
    let relayed = served.ws("/listen/abc").await;
    let status = folder.json(served.port).await;
    assert_eq!(numbers(&status, "sigver-18"), [1, 1, 0, 0]);
    assert_eq!(of(&status, "sigver-18")["recognised_by"]["pinned"]["now"], 1);
    let served_now = ["sigver-18", "sigver-20"].map(|dialect| of(&status, dialect)["served"].clone());
    assert_eq!(served_now, [true, false]);
    let relay = &status["signaller"];
    assert_eq!((&relay["served"], &relay["now"]), (&json!(true), &json!(1)));
    drop(relayed);
    let port = served.port.to_string();
    let (_, text, _) = folder.status(&["-p", &port]).await;
    let listed: Vec<&str> =
        text.lines().skip(4).take(3).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(listed, ["sigver-18", "signaller", "(not"], "{text}");
    served.stop().await;
}

#[tokio::test]
async fn event_streams_count_alike() {
    let folder = Folder::new("streams");
    let served = folder.serve(&["-p", "0"]).await;
    let address = SocketAddr::from(([127, 0, 0, 1], served.port));
    let headers = [("Accept", "text/event-stream"), ("Origin", "https://page.example")];
    let mut stream = common::sse::ask(address, "GET", &format!("/?open={KEY}"), &headers, "").await;
    stream.expect(&[":ok"]).await;
    assert!(stream.event().await.contains("\"isKeyOk\":true"));
    let status = folder.json(served.port).await;
    assert_eq!(status["connections"], json!({"now": 1, "total": 1}));
    assert_eq!((numbers(&status, "sigver-8")[0], &status["unrecognised"]["now"]), (1, &json!(0)));
    drop(stream);
    served.stop().await;
}

#[tokio::test]
async fn a_signal_prints_it_on_stderr() {
    let folder = Folder::new("signal");
    let mut served = folder.serve(&["-p", "0", "--control", "off", "--log", "error"]).await;
    let people = current(&served).await;
    served.signal("USR1").await;
    let mut text = String::new();
    while !text.contains("rooms: ") {
        assert_ne!(soon("the status", served.stderr.read_line(&mut text)).await.unwrap(), 0, "{text}");
    }
    assert!(text.starts_with(concat!("sigver ", env!("CARGO_PKG_VERSION"), " on 127.0.0.1:")), "{text}");
    assert!(text.contains("\nconnections: 2 now, 2 in total\n"), "{text}");
    assert!(text.contains("\nrooms: 1 now; 0 with more than one dialect"), "{text}");
    assert!(!text.contains(KEY), "{text}");
    drop(people);
    served.stop().await;
}

#[tokio::test]
async fn without_a_socket_there_is_no_status_but_a_reason() {
    let folder = Folder::new("off");
    let (off, other) =
        (folder.serve(&["-p", "0", "--control", "off"]).await, folder.serve(&["-p", "0"]).await);
    assert!(!folder.socket(off.port).exists() && folder.socket(other.port).exists());
    let (done, out, errors) = folder.status(&["--port", &off.port.to_string()]).await;
    assert!(!done && out.is_empty());
    assert_eq!(errors.lines().count(), 1, "{errors}");
    let others = format!("There are sockets of servers on other ports: {}", other.port);
    assert!(errors.starts_with("error: no server answers (") && errors.contains(&others), "{errors}");
    let (done, _, errors) = folder.status(&["--control", "off"]).await;
    assert!(!done && errors.contains("the control socket is off"), "{errors}");
    assert_eq!(off.stop().await.matches("warning").count(), 0);
    other.stop().await;
}

#[tokio::test]
async fn two_servers_have_a_socket_each_and_clean_up() {
    let folder = Folder::new("two");
    let (first, second) = (folder.serve(&["-p", "0"]).await, folder.serve(&["-p", "0"]).await);
    let people = current(&second).await;
    assert_eq!(folder.json(first.port).await["connections"]["now"], 0);
    assert_eq!(folder.json(second.port).await["connections"]["now"], 2);
    let socket = folder.socket(first.port);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    first.stop().await;
    assert!(!socket.exists());
    assert_eq!(folder.json(second.port).await["connections"]["now"], 2);
    drop(people);
    second.stop().await;
}

#[tokio::test]
async fn a_socket_left_by_a_crash_is_replaced() {
    let folder = Folder::new("crash");
    let path = folder.0.join("s.sock");
    let control = ["--control", path.to_str().unwrap()];
    let mut crashed = folder.serve(&[&["-p", "0"], &control[..]].concat()).await;
    crashed.process.kill().await.unwrap();
    assert!(path.exists());
    let served = folder.serve(&[&["-p", "0"], &control[..]].concat()).await;
    let (done, out, errors) = folder.status(&control).await;
    assert!(done && out.contains(&format!(" on 127.0.0.1:{},", served.port)), "{out}{errors}");
    // A third one is served, though not asked, and says so.
    let third = folder.serve(&[&["-p", "0"], &control[..]].concat()).await;
    let mut ws = third.ws("/k").await;
    assert!(ws.binary(&hex("1a02080b")).await);
    ws.expect(&[Got::binary("2001")]).await;
    drop(ws);
    let errors = third.stop().await;
    let warning = "warning: no control socket, so that 'sigver status' does not work: ";
    assert!(errors.starts_with(warning) && errors.contains("another server answers there\n"), "{errors}");
    let (done, ..) = folder.status(&control).await;
    assert!(done, "the third took the socket of the second with it");
    served.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn who_hangs_on_the_socket_holds_nobody_up() {
    let folder = Folder::new("hang");
    let served = folder.serve(&["-p", "0"]).await;
    let path = folder.socket(served.port);
    let hanging = tokio::net::UnixStream::connect(&path).await.unwrap();
    let mut wrong = tokio::net::UnixStream::connect(&path).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut wrong, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon("an answer", wrong.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("error: "), "{answer}");
    assert_eq!(folder.json(served.port).await["connections"]["now"], 0);
    let end = tokio::time::timeout(Duration::from_secs(4), served.stop()).await;
    assert!(end.is_ok(), "it waits for who asked nothing");
    drop(hanging);
}
