//! `sigver record` in front of a gateway, and `sigver replay` of what it wrote: equal where nothing changed,
//! different where something did. The clients are real as to bytes: every frame is written by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::tungstenite::Message;

use crate::common::process::sigver;
use crate::common::ws::{Got, Ws, request};
use crate::common::{TestGateway, hex, soon, to_hex};

/// A new path for a file of this test.
fn path(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let _ = std::fs::remove_dir_all(&path);
    path
}

struct Recorder {
    process: Child,
    port: u16,
}

impl Recorder {
    async fn start(upstream: &str, more: &[&str]) -> Recorder {
        Recorder::start_as(upstream, more, sigver).await
    }

    async fn start_as(upstream: &str, more: &[&str], program: impl Fn(&[&str]) -> Command) -> Recorder {
        let args = [&["record", "--upstream", upstream, "--listen", "127.0.0.1:0"], more].concat();
        let mut process = program(&args).spawn().unwrap();
        let mut line = String::new();
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        soon("the line", stderr.read_line(&mut line)).await.unwrap();
        let port = line.strip_prefix("Recording connections from ws://127.0.0.1:");
        let port = port.unwrap_or_else(|| panic!("{line}")).split(' ').next().unwrap().parse().unwrap();
        assert!(line.ends_with(&format!(" to {upstream}\n")), "{line}");
        Recorder { process, port }
    }

    async fn tcp(&self) -> TcpStream {
        let stream = soon("a connection", TcpStream::connect(("127.0.0.1", self.port))).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    async fn ws(&self, path: &str) -> Ws<TcpStream> {
        Ws::open(self.tcp().await, path).await
    }

    /// Stops it as Ctrl-C does: what it wrote on standard output.
    async fn stop(mut self) -> String {
        let id = self.process.id().unwrap();
        let sent = Command::new("sh").args(["-c", &format!("kill -INT {id}")]).status().await.unwrap();
        assert!(sent.success());
        let mut out = String::new();
        self.process.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
        assert_eq!(soon("its end", self.process.wait()).await.unwrap().code(), Some(0));
        out
    }
}

/// Exit code, standard output and standard error of a replay.
async fn replay(args: &[&str]) -> (i32, String, String) {
    let args = [&["replay"], args].concat();
    let output = soon("the end of the replay", sigver(&args).output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

async fn binary(ws: &mut Ws<TcpStream>) -> String {
    match ws.message().await {
        Got::Binary(bytes) => to_hex(&bytes),
        other => panic!("{other:?}"),
    }
}

async fn send(ws: &mut Ws<TcpStream>, frames: &[&str]) {
    for frame in frames {
        assert!(ws.binary(&hex(frame)).await);
    }
}

/// Two clients of sigver 20: several frames at once, an id of the server's sent back, a close, and a broken
/// wire.
async fn pair_of_20(recorder: &Recorder, key: &str) {
    let head = request(key).replace("Host:", "Origin: https://pages.example\r\nHost:");
    let mut opener = Ws::open_with(recorder.tcp().await, head.as_bytes()).await;
    send(&mut opener, &["1a02080b"]).await;
    opener.expect(&[Got::binary("2001")]).await;
    let mut joiner = recorder.ws(key).await;
    send(&mut joiner, &["1a020816"]).await;
    joiner.expect(&[Got::binary("2000")]).await;
    // The second and third are on their way while the first is answered.
    send(
        &mut joiner,
        &["120d0800100022076f666665722d4a", "120c08001000220663616e642d4a", "1209080010002203656e64"],
    )
    .await;
    let offer = binary(&mut opener).await;
    // Behind two tags and a length, as many bytes as it needs.
    let id = offer[6..].strip_suffix("100022076f666665722d4a").unwrap_or_else(|| panic!("{offer}"));
    let length = 13 + id.len() / 2;
    send(&mut opener, &[&format!("12{length:02x}080010{id}2208616e737765722d4f")]).await;
    assert!(binary(&mut joiner).await.ends_with("2208616e737765722d4f"));
    opener.message().await;
    opener.message().await;
    assert!(joiner.ping(b"there?").await);
    joiner.expect(&[Got::Pong(b"there?".to_vec())]).await;
    joiner.close(1000).await;
    joiner.expect(&[Got::Close(Some(1000), String::new())]).await;
    drop(joiner);
    drop(opener);
}

/// Two clients of sigver 5: all in text.
async fn pair_of_5(recorder: &Recorder) {
    let mut opener = recorder.ws("/").await;
    assert!(opener.text(r#"{"type":"open","key":"k5"}"#).await);
    // Nothing shows that the room is there.
    opener.expect_nothing().await;
    let mut joiner = recorder.ws("/").await;
    assert!(joiner.text(r#"{"type":"join","key":"k5"}"#).await);
    assert!(joiner.text(r#"{"data":"offer"}"#).await);
    opener.message().await;
    let Got::Text(offer) = opener.message().await else { panic!("no offer") };
    let offer: Value = serde_json::from_str(&offer).unwrap();
    let answer = serde_json::json!({"index": offer["index"], "data": "answer"});
    assert!(opener.text(&answer.to_string()).await);
    let Got::Text(answer) = joiner.message().await else { panic!("no answer") };
    assert!(answer.contains("answer"));
}

/// Two clients of sigver 18, which wait for the server to speak.
async fn pair_of_18(recorder: &Recorder) {
    let mut opener = recorder.ws("/k18").await;
    binary(&mut opener).await;
    let mut joiner = recorder.ws("/k18").await;
    binary(&mut joiner).await;
    send(&mut joiner, &["0a0b080012076f666665722d4a", "0a0a0800120663616e642d4a"]).await;
    // Between them, what the server asks to find out who it is.
    for part in ["6f66666572", "63616e64"] {
        while !binary(&mut opener).await.contains(part) {}
    }
}

/// Waits until a recording has so many lines of this kind.
async fn lines(file: &Path, of: &str, count: usize) -> String {
    let there = async {
        loop {
            let text = std::fs::read_to_string(file).unwrap();
            if text.matches(of).count() >= count {
                return text;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    soon("the lines", there).await
}

#[tokio::test]
async fn recording_replays_without_differences_until_the_server_changes() {
    let gateway = TestGateway::start("auto").await;
    let file = path("conversations.jsonl");
    let name = file.to_str().unwrap();
    let upstream = format!("ws://{}", gateway.address);
    let recorder = Recorder::start(&upstream, &["--out", name]).await;
    pair_of_20(&recorder, "/k20?x=1").await;
    lines(&file, "recv-close", 2).await;
    pair_of_5(&recorder).await;
    lines(&file, "recv-close", 4).await;
    pair_of_18(&recorder).await;
    let text = lines(&file, "recv-close", 6).await;
    assert_eq!(recorder.stop().await, "");

    let first = r#"{"v":"any","sc":"session_1","t":0,"peer":"P1","dir":"connect","path":"/k20?x=1","origin":"https://pages.example"}"#;
    assert_eq!(text.lines().next().unwrap(), first);
    for scenario in ["session_1", "session_2", "session_3"] {
        let peers = |peer: &str| text.contains(&format!(r#""sc":"{scenario}","t":"#)) && text.contains(peer);
        assert!(peers(r#""peer":"P2""#), "{text}");
    }
    assert!(text.contains(r#""dir":"tcp-destroy""#) && !text.contains("session_4") && !text.contains("P3"));

    // Against itself, against a server of the program's own, and twice.
    for target in [&[name, &upstream][..], &[name], &[name, "--keep-keys", "--pace", "quick"]] {
        let (code, out, errors) = replay(target).await;
        assert_eq!((code, &out[..], &errors[..]), (0, "3 passed, 0 failed\n", ""), "{target:?}\n{text}");
    }
    let (code, out, _) = replay(&[name, "--scenario", "*_2", "--json"]).await;
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &out["passed"], &out["scenarios"][0]["scenario"]), (0, &1.into(), &"session_2".into()));

    // A server that is another: pinned to one dialect, the others' clients are not understood.
    let (code, out, _) = replay(&[name, "--protocol", "sigver-15"]).await;
    assert_eq!(code, 1, "{out}");
    let shown = "      actual   close 4001 KEY_ERROR: The key  is an empty string\n";
    assert!(out.contains("session_2\n  step ") && out.contains(shown), "{out}");
    assert!(out.ends_with("0 passed, 3 failed\n"), "{out}");

    // A recording in which the server sent something else.
    let tampered = path("tampered.jsonl");
    let line = r#""dir":"recv","op":"binary","hex":"2000""#;
    assert!(text.contains(line));
    std::fs::write(&tampered, text.replacen(line, r#""dir":"recv","op":"binary","hex":"2002""#, 1)).unwrap();
    let (code, out, _) = replay(&[tampered.to_str().unwrap()]).await;
    assert_eq!(code, 1);
    let shown =
        "changed at P2\n      expected connected{2}\n      actual   connected{false}\n2 passed, 1 failed\n";
    assert!(out.ends_with(shown), "{out}");
    let (code, out, _) = replay(&[tampered.to_str().unwrap(), "--json"]).await;
    let out: Value = serde_json::from_str(&out).unwrap();
    let difference = &out["scenarios"][0]["differences"][0];
    assert_eq!(
        (code, &difference["kind"], &difference["expected"]),
        (1, &"changed".into(), &"connected{2}".into())
    );
    gateway.stop().await;
}

/// A recording in which everything happened in one millisecond: a joiner connects because the member, whose
/// answer takes a while here, was confirmed.
#[tokio::test]
async fn client_acts_after_all_that_was_received_before_in_the_recording() {
    let line = |peer: &str, rest: &str| format!(r#"{{"v":"any","sc":"s","t":0,"peer":"{peer}",{rest}}}"#);
    let text = [
        line("P1", r#""dir":"connect","path":"/""#),
        line("P1", r#""dir":"open""#),
        line("P1", r#""dir":"send","op":"text","text":"member""#),
        line("P1", r#""dir":"recv","op":"text","text":"first""#),
        line("P2", r#""dir":"connect","path":"/""#),
        line("P2", r#""dir":"open""#),
        line("P2", r#""dir":"send","op":"text","text":"joiner""#),
        line("P2", r#""dir":"recv","op":"text","text":"second""#),
    ];
    let file = path("one-moment.jsonl");
    std::fs::write(&file, text.join("\n")).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let is_confirmed = Arc::new(AtomicBool::new(false));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let is_confirmed = Arc::clone(&is_confirmed);
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    let answer = match message.to_text() {
                        Ok("member") => {
                            tokio::time::sleep(Duration::from_millis(200)).await;
                            is_confirmed.store(true, SeqCst);
                            "first"
                        }
                        Ok("joiner") if is_confirmed.load(SeqCst) => "second",
                        Ok("joiner") => "there is no member",
                        _ => continue,
                    };
                    let _ = socket.send(Message::text(answer)).await;
                }
            });
        }
    });
    let (code, out, _) = replay(&[file.to_str().unwrap(), &url, "--pace", "quick"]).await;
    assert_eq!((code, &out[..]), (0, "1 passed, 0 failed\n"));
}

#[tokio::test]
async fn folder_gets_a_file_per_scenario_and_no_recording_is_overwritten() {
    let gateway = TestGateway::start("auto").await;
    let folder = path("folder");
    let out = format!("{}/", folder.to_str().unwrap());
    let upstream = format!("ws://{}/base", gateway.address);
    let args = ["--out", &out, "--name", "talk", "--release", "20.1.0"];
    for run in [1, 2] {
        let recorder = Recorder::start(&upstream, &args).await;
        pair_of_20(&recorder, "/k").await;
        let file = folder.join(format!("talk_{run}.jsonl"));
        let text = lines(&file, "recv-close", 2).await;
        recorder.stop().await;
        assert!(text.contains(r#""path":"/k""#), "the client's own path: {text}");
        let (code, out, _) = replay(&[file.to_str().unwrap(), &upstream]).await;
        assert_eq!((code, &out[..]), (0, "1 passed, 0 failed\n"));
    }
    let (code, text, _) = replay(&[&out, &upstream]).await;
    assert_eq!((code, &text[..]), (0, "2 passed, 0 failed\n"));
    let existing = folder.join("talk_1.jsonl");
    let args = ["record", "--upstream", &upstream, "--out", existing.to_str().unwrap()];
    let output =
        soon("its end", sigver(&[&args[..], &["--listen", "127.0.0.1:0"]].concat()).output()).await.unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.starts_with("error: cannot create ") && output.status.code() == Some(2), "{errors}");
    gateway.stop().await;
}

#[tokio::test]
async fn record_and_replay_work_over_tls() {
    let folder = path("tls");
    std::fs::create_dir(&folder).unwrap();
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(file("crt"), made.cert.pem()).unwrap();
    std::fs::write(file("key"), made.signing_key.serialize_pem()).unwrap();
    let mut server =
        sigver(&["-h", "127.0.0.1", "-p", "0", "-k", &file("key"), "-c", &file("crt")]).spawn().unwrap();
    let mut line = String::new();
    soon("the line", BufReader::new(server.stdout.take().unwrap()).read_line(&mut line)).await.unwrap();
    let upstream = format!("wss://localhost:{}", line.trim_end().rsplit(':').next().unwrap());
    let recording = file("talk.jsonl");
    let trusting = |args: &[&str]| {
        let mut command = sigver(args);
        command.env("SSL_CERT_FILE", file("crt"));
        command
    };
    let recorder = Recorder::start_as(&upstream, &["--out", &recording], trusting).await;
    pair_of_20(&recorder, "/k").await;
    lines(Path::new(&recording), "recv-close", 2).await;
    recorder.stop().await;
    let output = soon("its end", trusting(&["replay", &recording, &upstream]).output()).await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "1 passed, 0 failed\n");
    // Nothing is sent to a server that is not trusted.
    std::fs::write(file("other"), rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap().cert.pem())
        .unwrap();
    let mut wary = sigver(&["replay", &recording, &upstream]);
    let output = soon("its end", wary.env("SSL_CERT_FILE", file("other")).output()).await.unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.starts_with("error: cannot connect to wss://localhost:"), "{errors}");
    assert!(
        errors.contains("the server's certificate is not signed by the trusted authority")
            && output.status.code() == Some(2),
        "{errors}"
    );
}

#[tokio::test]
async fn killed_recorder_keeps_its_lines_and_other_traffic_is_forwarded() {
    let gateway = TestGateway::start("auto").await;
    let upstream = format!("ws://{}", gateway.address);
    let recorder = Recorder::start(&upstream, &[]).await;
    // What is no WebSocket goes through, and is not recorded.
    let mut plain = recorder.tcp().await;
    plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon("the answer", plain.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut ws = recorder.ws("/k").await;
    send(&mut ws, &["1a02080b"]).await;
    ws.expect(&[Got::binary("2001")]).await;
    let out = recorder.stop().await;
    let dirs: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let dirs: Vec<&str> = dirs.iter().map(|line| line["dir"].as_str().unwrap()).collect();
    assert_eq!(dirs, ["connect", "open", "send", "recv"], "{out}");
    gateway.stop().await;
}

#[tokio::test]
async fn unreachable_server_is_reported() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let recorder = Recorder::start(&format!("ws://{nobody}"), &[]).await;
    let mut tcp = recorder.tcp().await;
    tcp.write_all(request("/k").as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("the answer", tcp.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    let out = recorder.stop().await;
    assert!(out.contains(r#""dir":"note","note":"P1: cannot connect to ws://127.0.0.1:"#), "{out}");
}

#[tokio::test]
async fn recording_of_an_original_replays() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests/golden/20.1.0.jsonl");
    let golden = golden.to_str().unwrap();
    let (code, out, errors) = replay(&[golden, "--protocol", "sigver-20.1.0", "--steps"]).await;
    assert_eq!((code, &errors[..]), (0, ""), "{out}");
    assert!(out.contains(" passed, 0 failed, 1 without WebSockets skipped\n"), "{out}");
}

#[tokio::test]
async fn unplayable_scenarios_are_reported_with_a_reason() {
    let broken = path("broken.jsonl");
    let good = r#"{"v":"any","sc":"s","t":0,"peer":"P1","dir":"connect","path":"/"}"#;
    std::fs::write(
        &broken,
        format!("{good}\n{{\"v\":\"any\",\"sc\":\"s\",\"t\":1,\"peer\":\"P1\",\"dir\":\"send\"}}\n"),
    )
    .unwrap();
    let broken = broken.to_str().unwrap();
    let (code, _, errors) = replay(&[broken]).await;
    assert_eq!((code, errors), (2, format!("error: {broken}: line 2: no op\n")));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests/golden/20.1.0.jsonl");
    let golden = golden.to_str().unwrap();
    for (args, expected) in [
        (&["no-such-file"][..], "cannot read no-such-file: "),
        (&["ws://localhost:1"], "no recording is named"),
        (&[golden, "wss://"], "'wss://' is not the URL of a server"),
        (&["ws://a", broken, "ws://b"], "ws://a: the server comes last"),
        (&[golden, "ws://a", "--protocol", "auto"], "--protocol is for the server of this program"),
        (&[golden, "--protocol", "sigver-0"], ""),
        (&[golden, "--scenario", "none"], "there is no such scenario to play in "),
        (&["/dev/null"], "nothing is recorded in /dev/null\n"),
        (&["src"], "there is no recording (*.jsonl) in the folder src\n"),
    ] {
        let (code, _, errors) = replay(args).await;
        assert!(code == 2 && errors.starts_with(&format!("error: {expected}")), "{args:?}: {errors}");
    }
}

#[tokio::test]
async fn every_option_is_documented() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/howto/record-and-replay.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    for tool in ["record", "replay"] {
        let output = soon("the help", sigver(&[tool, "--help"]).output()).await.unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let words = help.split_whitespace().filter(|word| word.starts_with("--"));
        let options: Vec<&str> = words.map(|word| word.trim_end_matches([',', ';', '.', ':'])).collect();
        assert!(options.len() > 5, "{help}");
        for option in options.into_iter().filter(|option| *option != "--help") {
            assert!(docs.contains(option), "{option} of {tool}");
        }
        assert!(tool == "replay" || help.contains("room keys, origins and payloads included"), "{help}");
    }
}
