//! The hand-over from one process to another on one inherited socket, as by systemd: the old one drains while
//! the new one accepts.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::Command;

use crate::common::process::{Served, run};
use crate::common::ws::{Got, Ws};
use crate::common::{eventually, hex, soon};

/// Starts a server that inherits the socket, with the environment that systemd sets for a unit with one.
async fn inheriting(listener: &TcpListener, control: &Path) -> Served {
    let script = r#"exec 3<&0; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec "$0" --listen fd:web \
                    --drain-timeout 2 --control "$1""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_sigver")]).arg(control);
    command.stdin(OwnedFd::from(listener.try_clone().unwrap()));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Served::spawn(command).await
}

/// The close by which a draining server ends a connection.
fn drained() -> Got {
    Got::Close(Some(1001), "the server is shutting down".to_owned())
}

/// Opens a WebSocket and asks to join the room of this path.
async fn connect(address: SocketAddr, path: &str) -> std::io::Result<Ws<TcpStream>> {
    let mut ws = Ws::open(TcpStream::connect(address).await?, path).await;
    assert!(ws.binary(&hex("1a02080b")).await);
    Ok(ws)
}

fn control_socket() -> PathBuf {
    std::env::temp_dir().join(format!("sigver-handover-{}.sock", std::process::id()))
}

/// True if a server answers at the control socket.
async fn status_answers(control: &Path) -> bool {
    run(&["status", "--control", control.to_str().unwrap()]).await.0 == Some(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_refused_while_one_process_takes_over_from_another() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let control = control_socket();
    let old = inheriting(&listener, &control).await;
    let mut members = Vec::new();
    for number in 0..8 {
        let mut ws = connect(address, &format!("/old-{number}")).await.unwrap();
        ws.expect(&[Got::binary("2001")]).await;
        members.push(ws);
    }

    let (ended, served, refused) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients = (0..4).map(|client| {
        let (ended, served, refused) = (Arc::clone(&ended), Arc::clone(&served), Arc::clone(&refused));
        tokio::spawn(async move {
            let mut number = 0;
            while !ended.load(Ordering::Relaxed) {
                number += 1;
                match connect(address, &format!("/new-{client}-{number}")).await {
                    Ok(mut ws) => {
                        // The old process closes its clients at any time of the drain.
                        let first = ws.message().await;
                        assert!(first == Got::binary("2001") || first == drained(), "{first:?}");
                        served.fetch_add(1, Ordering::Relaxed);
                        ws.close(1000).await;
                    }
                    Err(_) => _ = refused.fetch_add(1, Ordering::Relaxed),
                }
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let some_more = async || {
        let before = served.load(Ordering::Relaxed);
        eventually("more clients", || served.load(Ordering::Relaxed) >= before + 20).await;
    };
    some_more().await;
    let new = inheriting(&listener, &control).await;
    some_more().await;
    old.signal("TERM").await;
    some_more().await;
    // The drain takes its time, and is without effect on the new process.
    for mut ws in members {
        ws.expect(&[drained()]).await;
        ws.close(1001).await;
    }
    assert!(old.end().await.0.success());
    some_more().await;
    ended.store(true, Ordering::Relaxed);
    for client in clients {
        soon("the end of a client", client).await.unwrap();
    }
    assert_eq!(refused.load(Ordering::Relaxed), 0, "of {}", served.load(Ordering::Relaxed));

    // The control socket was the old one's while it lived.
    let answered = async {
        while !status_answers(&control).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    soon("the status of the new process", answered).await;
    new.signal("TERM").await;
    assert!(new.end().await.0.success());
}
