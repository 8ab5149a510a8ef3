//! The kinds of sockets that the program listens on.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;

use crate::common::process::{Served, run, sigver};
use crate::common::ws::{Got, Ws};
use crate::common::{hex, soon};

/// The path of a socket that no other test uses.
fn socket_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("sigver-listening-{name}-{}.sock", std::process::id()))
}

/// Opens a WebSocket and becomes the first member of a room of this name.
async fn become_first(stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) {
    let mut ws = Ws::open(stream, path).await;
    assert!(ws.binary(&hex("1a02080b")).await);
    ws.expect(&[Got::binary("2001")]).await;
}

#[tokio::test]
async fn several_addresses_are_served_and_unix_sockets_removed() {
    let path = socket_path("several");
    let unix = format!("unix:{}", path.display());
    // A socket that a crash left behind is replaced.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let args = ["--listen", &unix, "--listen", "127.0.0.1:0", "-h", "127.0.0.1", "-p", "0"];
    let mut served = Served::start(&args).await;
    let mut lines = vec![served.line.clone()];
    for _ in 0..2 {
        let mut line = String::new();
        soon("a line", served.stdout.read_line(&mut line)).await.unwrap();
        lines.push(line.trim_end().to_owned());
    }
    assert_eq!(lines[1], format!("Signaling server is listening on {unix}"));
    for (line, key) in [(&lines[0], "/a"), (&lines[2], "/b")] {
        let address: SocketAddr = line.rsplit(' ').next().unwrap().parse().unwrap();
        become_first(soon("a connection", TcpStream::connect(address)).await.unwrap(), key).await;
    }
    become_first(soon("a connection", UnixStream::connect(&path)).await.unwrap(), "/c").await;
    served.signal("TERM").await;
    assert_eq!(served.end().await.0.code(), Some(0));
    assert!(!path.exists());
}

#[tokio::test]
async fn port_of_the_server_itself_is_named_as_such() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = taken.local_addr().unwrap().to_string();
    let own = "this server listens there already, by another of its addresses; choose another port with";
    let in_use = "the port is in use; stop what listens there, or choose another one with";
    let (clients, admin) = ("'-p, --port <number>' or '--listen <address>'", "'--admin <address>'");
    for (args, address, problem, options) in [
        (["--listen", &free, "--listen", &free], &free, own, clients),
        (["--listen", &free, "--admin", &free], &free, own, admin),
        (["--listen", &free, "--admin", &other], &other, in_use, admin),
        (["--listen", &free, "--listen", &other], &other, in_use, clients),
    ] {
        let (code, _, errors) = run(&args).await;
        assert_eq!(code, Some(1), "{args:?}");
        assert_eq!(errors, format!("error: cannot listen on {address}: {problem} {options}\n"), "{args:?}");
    }
}

#[tokio::test]
async fn socket_of_systemd_is_served_by_its_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut command = Command::new("sh");
    // The environment that systemd sets for a unit with one socket.
    let script =
        r#"exec 3<&0; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec "$0" --listen fd:web --control off"#;
    command.args(["-c", script, env!("CARGO_BIN_EXE_sigver")]);
    command.stdin(std::os::fd::OwnedFd::from(listener)).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    let served = Served::spawn(command).await;
    assert_eq!(served.line, format!("Signaling server is listening on {address}"));
    become_first(served.tcp().await, "/k").await;
    served.signal("TERM").await;
    assert_eq!(served.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn unusable_sockets_are_one_line() {
    let file = socket_path("file");
    std::fs::write(&file, "").unwrap();
    let unix = format!("unix:{}", file.display());
    for (address, message) in [
        (&unix[..], "there is a file that is no socket"),
        ("fd:web", "cannot listen on fd:web: systemd gave no socket of that name"),
    ] {
        let output = soon("the end", sigver(&["--listen", address]).output()).await.unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), errors.lines().count()), (Some(1), 1), "{errors}");
        assert!(errors.starts_with("error: ") && errors.contains(message), "{errors}");
    }
    assert!(file.exists());
    std::fs::remove_file(file).unwrap();
}
