//! A Redis server of its own for a test, on a free port, which writes its data only on request.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use compat_tests::oracle::free_port;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// A running Redis server, which ends with the value.
#[derive(Debug)]
pub(crate) struct TestRedis {
    process: Child,
    pub(crate) address: SocketAddr,
    program: String,
    arguments: Vec<String>,
    directory: PathBuf,
}

impl TestRedis {
    /// Starts a server.
    pub(crate) async fn start(program: &str) -> Result<TestRedis> {
        TestRedis::start_with(program, &[]).await
    }

    /// Starts a server with these arguments besides those of every test.
    pub(crate) async fn start_with(program: &str, arguments: &[&str]) -> Result<TestRedis> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let directory = std::env::temp_dir().join(format!("sigver-redis-{}", address.port()));
        std::fs::create_dir_all(&directory)?;
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let process = spawn(program, address.port(), &directory, &arguments)?;
        let redis = TestRedis { process, address, program: program.to_owned(), arguments, directory };
        redis.answers().await?;
        Ok(redis)
    }

    /// Kills the server, and starts another one without its data at the same address.
    pub(crate) async fn restart_empty(&mut self) -> Result<()> {
        self.kill()?;
        self.restart().await
    }

    /// Starts the server again that was killed, with the data that it wrote last.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.process = spawn(&self.program, self.address.port(), &self.directory, &self.arguments)?;
        self.answers().await
    }

    /// Kills the server.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Returns the id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Stops the process, or has it continue.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.process), signal)?;
        Ok(())
    }

    /// Sends a command of one line. Returns the answer.
    pub(crate) async fn command(&self, line: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.write_all(format!("{line}\r\n").as_bytes()).await?;
        let mut answer = vec![0; 64 * 1024];
        let read = stream.read(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    }

    /// Sends a command of one line, which must be answered with `OK`.
    pub(crate) async fn accepts(&self, line: &str) -> Result<()> {
        let answer = self.command(line).await?;
        ensure!(answer == "+OK\r\n", "{line}: {answer}");
        Ok(())
    }

    /// Sends a command until the answer has one of these texts.
    pub(crate) async fn until(&self, line: &str, wanted: &[&str]) -> Result<()> {
        let start = Instant::now();
        loop {
            let answer = self.command(line).await.unwrap_or_default();
            if wanted.iter().any(|wanted| answer.contains(wanted)) {
                return Ok(());
            }
            ensure!(start.elapsed() < Duration::from_secs(20), "{line}: {answer}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Returns the URL of the server.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    async fn answers(&self) -> Result<()> {
        let start = Instant::now();
        while TcpStream::connect(self.address).await.is_err() {
            ensure!(start.elapsed() < Duration::from_secs(10), "redis-server does not listen");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

fn spawn(program: &str, port: u16, directory: &Path, arguments: &[String]) -> Result<Child> {
    Command::new(program)
        // A file of settings, which sentinels write, comes first.
        .args(arguments.iter().filter(|argument| argument.ends_with(".conf")))
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(arguments.iter().filter(|argument| !argument.ends_with(".conf")))
        .arg("--dir")
        .arg(directory)
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {program}: compat-tests/cluster/setup installs it"))
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        let _ = (self.kill(), std::fs::remove_dir_all(&self.directory));
    }
}
