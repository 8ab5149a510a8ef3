//! The server as a process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use compat_tests::oracle::free_port;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::Options;

/// Longest time from a signal to the end of the process.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// Circumstances of a start.
#[derive(Debug, Default)]
pub(crate) struct Start {
    /// Most open files.
    pub(crate) open_files: Option<usize>,
    /// File with the offset of the wall clock, in seconds.
    pub(crate) clock: Option<PathBuf>,
    /// Port to listen on; a free one by default.
    pub(crate) port: Option<u16>,
    /// File that receives both outputs.
    pub(crate) output: Option<PathBuf>,
    pub(crate) arguments: Vec<String>,
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) async fn start(options: &Options, start: Start) -> Result<Server> {
        let port = start.port.map_or_else(free_port, Ok)?;
        let mut command = Command::new("sh");
        let limit = start.open_files.map_or_else(String::new, |files| format!("ulimit -n {files};"));
        command.args(["-c", &format!("{limit} exec \"$0\" \"$@\"")]).arg(&options.server_bin);
        command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        if !start.arguments.iter().any(|argument| argument.starts_with("--control")) {
            command.arg("--control=off");
        }
        command.args(&start.arguments);
        if let Some(file) = &start.clock {
            command.env("FAKETIME_TIMESTAMP_FILE", file).env("FAKETIME_NO_CACHE", "1");
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("LD_PRELOAD", faketime()?);
        }
        match &start.output {
            None => command.stdout(Stdio::null()).stderr(Stdio::piped()),
            Some(file) => {
                let open = || std::fs::OpenOptions::new().append(true).open(file);
                command.stdout(open()?).stderr(open()?)
            }
        };
        let mut child = command.stdin(Stdio::null()).kill_on_drop(true).spawn()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let begin = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            ensure!(child.try_wait()?.is_none(), "the server does not start");
            ensure!(begin.elapsed() < Duration::from_secs(10), "the server does not listen");
            sleep(Duration::from_millis(5)).await;
        }
        Ok(Server { child, address })
    }

    fn id(&self) -> Result<u32> {
        self.child.id().context("the server has ended")
    }

    pub(crate) async fn signal(&self, name: &str) -> Result<()> {
        let status =
            Command::new("kill").arg(format!("-{name}")).arg(self.id()?.to_string()).status().await?;
        ensure!(status.success(), "cannot send the signal {name}");
        Ok(())
    }

    /// Returns the CPU time that the process has used, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()?))?;
        let (_, fields) = stat.rsplit_once(')').context("an unknown format")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
    }

    /// Returns the peak of its memory, in MB.
    pub(crate) fn peak_megabytes(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }

    /// Ends the process at once, without any notice.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Waits for the end, which must be a regular one. Returns what was logged, if it is not in a file.
    pub(crate) async fn end(&mut self) -> Result<String> {
        let mut errors = String::new();
        let stderr = self.child.stderr.take();
        let end = async {
            if let Some(mut stderr) = stderr {
                stderr.read_to_string(&mut errors).await?;
            }
            anyhow::Ok(self.child.wait().await?)
        };
        let status = timeout(END_TIMEOUT, end).await.context("SIGTERM has no effect")??;
        ensure!(status.success(), "the server ends with {status}");
        Ok(errors)
    }

    /// Ends the server by SIGTERM.
    pub(crate) async fn stop(&mut self) -> Result<String> {
        self.signal("TERM").await?;
        // The second signal, if it is not treated as the first, ends the wait for clients.
        sleep(Duration::from_millis(100)).await;
        self.signal("TERM").await?;
        self.end().await
    }
}

/// Returns the library that changes the clock of a process.
fn faketime() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?.filter_map(Result::ok).map(|entry| entry.path());
    let files = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    files.into_iter().find(|file| file.exists()).context("libfaketime is not installed")
}
