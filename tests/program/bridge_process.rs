//! The process of the bridge that a gateway starts.

use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const SIGVER: &str = env!("CARGO_BIN_EXE_sigver");

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn bridge_ends_when_its_gateway_is_killed() {
    let socket = std::env::temp_dir().join(format!("sigver-bridge-killed-{}", std::process::id()));
    let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new(SIGVER);
    command.args(["--host", "127.0.0.1", "--port", "0", "--bridge", &address.to_string(), "--bridge-socket"]);
    let mut gateway = command.arg(&socket).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the bridge receives", || UdpSocket::bind(address).is_err());
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    wait_until("the bridge has ended", || UdpSocket::bind(address).is_ok());
    let _ = std::fs::remove_file(socket);
}
