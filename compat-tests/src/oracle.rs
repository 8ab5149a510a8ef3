//! Server processes: the Node.js servers from npm, and the gateway. They listen on 127.0.0.1 and are killed
//! with their handle.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::goldens::{Original, root};
use crate::transcript::RecordedEvent;

/// Start timeout of a server.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Time in which a server that should crash must do so.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);
/// Interval between connection attempts to a starting Node.js server.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// Ports to try, below the range of outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Distance between the first ports of processes with neighbouring ids; larger than the number of servers
/// that one starts.
const PORT_STRIDE: u32 = 211;
/// Retained error output of a server, in bytes.
const MAX_ERROR_OUTPUT: usize = 64 * 1024;
/// Start-up line of the gateway, up to the port.
const STARTUP_LINE: &str = "Signaling server is listening on 127.0.0.1:";

/// Node.js runtime of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// Node 8 from npm, on which all releases run.
    Eight,
    /// The installed Node.js; releases with a native module do not run on it.
    System,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Listening address.
    pub addr: SocketAddr,
    /// Time from start until it listened.
    pub start: Duration,
    child: Mutex<Child>,
    errors: Arc<Mutex<String>>,
}

/// Returns a port that no process uses, and that this process was not given before.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let len = PORTS.end - PORTS.start;
    // Away from the ports of a run started a moment ago: some releases silently share a port that is in
    // use.
    let offset = u16::try_from(std::process::id().wrapping_mul(PORT_STRIDE) % u32::from(len)).unwrap_or(0);
    for _ in 0..len {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let port =
            PORTS.start + u16::try_from((u32::from(offset) + u32::from(n)) % u32::from(len)).unwrap_or(0);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port in {PORTS:?}")
}

fn spawn(command: &mut Command) -> Result<(Child, Arc<Mutex<String>>)> {
    // The servers are killed, and would leave their status sockets behind.
    let quiet = command.env("SIGVER_CONTROL", "off");
    let piped = quiet.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.kill_on_drop(true).spawn().with_context(|| format!("cannot start {command:?}"))?;
    let errors = Arc::new(Mutex::new(String::new()));
    if let Some(stderr) = child.stderr.take() {
        let errors = errors.clone();
        lines(stderr, move |line| {
            let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
            if errors.len() < MAX_ERROR_OUTPUT {
                errors.push_str(&line);
                errors.push('\n');
            }
        });
    }
    Ok((child, errors))
}

/// Reads a stream to its end, so that the process never blocks on writing.
fn lines(stream: impl AsyncRead + Send + Unpin + 'static, mut each: impl FnMut(String) + Send + 'static) {
    tokio::spawn(async move {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while let Ok(1..) = reader.read_until(b'\n', &mut line).await {
            each(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    });
}

impl Server {
    /// Starts a Node.js server, installed in `dir` by `originals/setup`.
    pub async fn original(dir: &Path, original: &Original) -> Result<Server> {
        Self::original_under(Node::Eight, dir, original).await
    }

    /// Starts a Node.js server under this runtime.
    pub async fn original_under(node: Node, dir: &Path, original: &Original) -> Result<Server> {
        let mut last = None;
        // Another process may take the port in between: then the server exits, and another port is tried.
        for _ in 0..3 {
            match Self::original_once(node, dir, original, free_port()?).await {
                Ok(server) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        let error = last.context("not tried")?;
        Err(error.context(format!("sigver {} does not start (see originals/setup)", original.version)))
    }

    async fn original_once(node: Node, dir: &Path, original: &Original, port: u16) -> Result<Server> {
        let modules = dir.join("node_modules");
        let mut command = match node {
            Node::Eight => Command::new(modules.join("node8/bin/node")),
            Node::System => Command::new("node"),
        };
        let main = modules.join(format!("sigver-{}", original.version)).join(original.main);
        if original.fixed_port {
            command
                .arg("-r")
                .arg(root().join("originals/bind.js"))
                .arg(main)
                .env("ORIGINAL_PORT", port.to_string());
        } else {
            command.arg(main).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        }
        let begin = Instant::now();
        let (mut child, errors) = spawn(&mut command)?;
        if let Some(stdout) = child.stdout.take() {
            lines(stdout, |_| {});
        }
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Server { addr, start: Duration::ZERO, child: Mutex::new(child), errors };
        while TcpStream::connect(addr).await.is_err() {
            if server.exit().is_some() || begin.elapsed() > START_TIMEOUT {
                bail!("it did not listen: {}", server.errors());
            }
            sleep(POLL_INTERVAL).await;
        }
        server.start = begin.elapsed();
        // Another process may have answered if the server did not get the port.
        sleep(Duration::from_millis(50)).await;
        if server.exit().is_some() {
            bail!("it died: {}", server.errors());
        }
        Ok(server)
    }

    /// Returns the process id, while the process runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// Starts the gateway, which prints its port.
    pub async fn gateway(bin: &Path, protocol: &str) -> Result<Server> {
        Self::gateway_with(bin, &["--protocol", protocol]).await
    }

    /// Starts the gateway, or a program with the same start-up line, with these arguments first.
    pub async fn gateway_with(bin: &Path, more: &[&str]) -> Result<Server> {
        let mut command = Command::new(bin);
        command.args(more).args(["-h", "127.0.0.1", "-p", "0"]);
        let begin = Instant::now();
        let (mut child, errors) = spawn(&mut command)?;
        let (sender, mut ports) = mpsc::unbounded_channel();
        if let Some(stdout) = child.stdout.take() {
            lines(stdout, move |line| {
                if let Some(port) = line.strip_prefix(STARTUP_LINE).and_then(|p| p.trim().parse::<u16>().ok())
                {
                    let _ = sender.send(port);
                }
            });
        }
        match timeout(START_TIMEOUT, ports.recv()).await {
            Ok(Some(port)) => {
                let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                Ok(Server { addr, start: begin.elapsed(), child: Mutex::new(child), errors })
            }
            _ => {
                let errors = errors.lock().unwrap_or_else(PoisonError::into_inner).clone();
                bail!("{} {} does not start: {}", bin.display(), more.join(" "), errors.trim())
            }
        }
    }

    /// Returns the exit code if the process ended; none after a signal.
    pub fn exit(&self) -> Option<Option<i32>> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.try_wait().ok().flatten().map(|status| status.code())
    }

    /// Returns its error output, up to a limit.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).trim().to_owned()
    }

    /// Returns the final line of a transcript. A server that should have crashed is given a moment to do
    /// so.
    pub async fn state(&self, should_live: bool) -> RecordedEvent {
        let deadline = Instant::now() + EXIT_TIMEOUT;
        while !should_live && self.exit().is_none() && Instant::now() < deadline {
            sleep(Duration::from_millis(10)).await;
        }
        let Some(code) = self.exit() else {
            return RecordedEvent::Server { alive: true, exit: serde_json::Value::Null, error: None };
        };
        sleep(Duration::from_millis(20)).await;
        let error = self.errors().lines().find(|l| l.contains("Error")).map(str::to_owned);
        RecordedEvent::Server { alive: false, exit: json!({ "code": code, "sig": null }), error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_below_the_ephemeral_range() {
        let ports: Vec<u16> = (0..3).map(|_| free_port().unwrap()).collect();
        assert!(ports.iter().all(|p| *p < 32_768));
        assert!(ports[0] != ports[1] && ports[1] != ports[2]);
    }

    #[tokio::test]
    async fn failed_start_is_an_error() {
        let error = Server::gateway(Path::new("/bin/false"), "auto").await.unwrap_err();
        assert!(error.to_string().contains("does not start"), "{error}");
    }
}
