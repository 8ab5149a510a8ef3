//! Outputs that are closed, full, or read by no process.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::common::process::{Served, sigver};
use crate::common::ws::Got;
use crate::common::{hex, soon};

/// Returns the status line of the response to a plain request.
async fn health(port: u16) -> String {
    let mut stream = soon("a connection", TcpStream::connect(("127.0.0.1", port))).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut response = String::new();
    soon("the response", stream.read_to_string(&mut response)).await.unwrap();
    response.lines().next().unwrap_or_default().to_owned()
}

/// Opens a room in which clients of two generations meet. Returns when both are connected.
async fn mixed_room(served: &Served, number: usize) {
    let mut member = served.ws(&format!("/room{number}")).await;
    assert!(member.binary(&hex("1a02080b")).await);
    member.expect(&[Got::binary("2001")]).await;
    let mut joiner = served.ws("/").await;
    assert!(joiner.text(&format!("{{\"join\":\"room{number}\",\"data\":\"d\"}}")).await);
    joiner.expect_nothing().await;
}

#[tokio::test]
async fn log_that_no_process_reads_delays_no_client() {
    let served = Served::start(&["-h", "127.0.0.1", "-p", "0", "--control", "off", "--log", "trace"]).await;
    for number in 0..304 {
        mixed_room(&served, number).await;
    }
    served.signal("USR1").await;
    assert_eq!(health(served.port()).await, "HTTP/1.1 200 OK");
    served.signal("TERM").await;
    let Served { mut process, mut stderr, .. } = served;
    assert_eq!(soon("the end of the process", process.wait()).await.unwrap().code(), Some(0));
    // What the pipe had room for is whole lines, but for the last.
    let mut text = String::new();
    soon("stderr", stderr.read_to_string(&mut text)).await.unwrap();
    assert!(text.len() > 4096 && text.lines().next().unwrap().contains("serving"), "{text}");
}

#[tokio::test]
async fn warnings_that_clients_cause_are_summed_up() {
    let served = Served::start(&["-h", "127.0.0.1", "-p", "0", "--control", "off"]).await;
    for number in 0..30 {
        mixed_room(&served, number).await;
    }
    served.signal("TERM").await;
    let (status, _, errors) = served.end().await;
    assert_eq!(status.code(), Some(0));
    let mixed = errors.lines().filter(|line| line.contains("clients of different generations")).count();
    assert_eq!(mixed, 10, "{errors}");
}

/// Returns a free port. Another process may take it, but rarely does.
async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// Waits until the server answers on this port.
async fn serves(port: u16) {
    let answers = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the server", answers).await;
    assert_eq!(health(port).await, "HTTP/1.1 200 OK");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn server_needs_no_output() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for (closed, shell) in [
        (false, r#"exec "$0" "$@""#),
        (true, r#"exec "$0" "$@" >&-"#),
        (true, r#"exec "$0" "$@" 2>&-"#),
        (true, r#"exec "$0" "$@" >&- 2>&- <&-"#),
    ] {
        let port = free_port().await;
        let mut command = Command::new("sh");
        command.args(["-c", shell, env!("CARGO_BIN_EXE_sigver"), "-w", "x", "-h", "127.0.0.1", "--control"]);
        command.args(["off", "--log", "debug", "-p", &port.to_string()]);
        command.stdin(Stdio::null()).kill_on_drop(true);
        match closed {
            true => command.stdout(Stdio::null()).stderr(Stdio::null()),
            false => command.stdout(full()).stderr(full()),
        };
        let mut process = command.spawn().unwrap();
        serves(port).await;
        let id = process.id().unwrap().to_string();
        let stopped = Command::new("sh").args(["-c", &format!("kill -USR1 {id}; kill -TERM {id}")]).status();
        assert!(stopped.await.unwrap().success());
        assert_eq!(soon("the end", process.wait()).await.unwrap().code(), Some(0), "{shell}");
    }
}

/// Both pipes are closed by their reader, before the start and while serving.
#[tokio::test]
async fn server_survives_readers_that_leave() {
    let port = free_port().await;
    let mut command = sigver(&["-h", "127.0.0.1", "-p", &port.to_string(), "--control", "off"]);
    let mut process = command.spawn().unwrap();
    drop((process.stdout.take(), process.stderr.take()));
    serves(port).await;
    process.kill().await.unwrap();

    let served = Served::start(&["-h", "127.0.0.1", "-p", "0", "--log", "debug"]).await;
    let port = served.port();
    let Served { mut process, stdout, stderr, .. } = served;
    drop((stdout, stderr));
    for _ in 0..3 {
        assert_eq!(health(port).await, "HTTP/1.1 200 OK");
    }
    process.kill().await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn tools_end_quietly_if_their_reader_leaves_and_fail_if_output_is_full() {
    for args in [&["dialects"][..], &["options"], &["completions", "bash"], &["man"], &["--help"], &["-V"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = sigver(args);
        command.stdout(writer);
        let process = command.spawn().unwrap();
        let output = soon("the end", process.wait_with_output()).await.unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{args:?}: {output:?}");
        drop(command);

        let mut command = sigver(args);
        command.stdout(File::options().write(true).open("/dev/full").unwrap());
        let process = command.spawn().unwrap();
        let output = soon("the end", process.wait_with_output()).await.unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.starts_with("error: cannot write the output: No space left"), "{args:?}: {errors}");
        assert!([Some(1), Some(2)].contains(&output.status.code()), "{args:?}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}
