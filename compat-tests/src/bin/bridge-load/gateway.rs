//! The gateway's end of the bridge's socket, and the process of the bridge.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::BytesMut;
use sigver::protocol::mesh::{BRIDGE_MESSAGE_VERSION, BridgeMessage};

/// A running bridge, and its socket.
pub(crate) struct Bridge {
    child: Child,
    stream: UnixStream,
    received: BytesMut,
    folder: PathBuf,
}

/// Processor time and memory of the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) processor: Duration,
    pub(crate) resident_kib: u64,
}

impl Bridge {
    /// Starts `sigver bridge`, and waits until it is connected.
    pub(crate) fn start(program: &Path, arguments: &[String]) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("sigver-bridge-load-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let path = folder.join("bridge.sock");
        let listener = UnixListener::bind(&path)?;
        let child = Command::new(program)
            .args(["bridge", "--listen", "127.0.0.1:0", "--socket"])
            .arg(&path)
            .args(arguments)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let (stream, _) = listener.accept()?;
        let mut bridge = Bridge { child, stream, received: BytesMut::new(), folder };
        // As for the gateway, one that ends at once is followed by another.
        while bridge.greet().is_err() {
            bridge.stream = listener.accept()?.0;
        }
        Ok(bridge)
    }

    fn greet(&mut self) -> Result<()> {
        self.send(&[BridgeMessage::Hello { version: BRIDGE_MESSAGE_VERSION, instance: 0 }])?;
        let mut buffer = [0; 256];
        let length = self.stream.read(&mut buffer)?;
        ensure!(length > 0, "the connection has ended");
        self.received.extend_from_slice(&buffer[..length]);
        Ok(self.stream.set_nonblocking(true)?)
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends messages. The bridge reads at once, so that the socket's buffer is enough.
    pub(crate) fn send(&mut self, messages: &[BridgeMessage]) -> Result<()> {
        let mut bytes = BytesMut::new();
        messages.iter().for_each(|message| message.write(&mut bytes));
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(length) => rest = &rest[length..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Returns the messages that were received.
    pub(crate) fn receive(&mut self) -> Result<Vec<BridgeMessage>> {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the bridge has ended"),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        let mut messages = Vec::new();
        while let Some(message) = BridgeMessage::take(&mut self.received)? {
            messages.push(message);
        }
        Ok(messages)
    }

    /// Returns what the process has used.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", self.child.id()));
        let stat = read("stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        let per_second = rustix::param::clock_ticks_per_second();
        let processor = Duration::from_millis((ticks(11) + ticks(12)) * 1_000 / per_second);
        let status = read("status")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident_kib = resident.and_then(|line| line.split_whitespace().next()?.parse().ok());
        Ok(Usage { processor, resident_kib: resident_kib.context("no VmRSS")? })
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
