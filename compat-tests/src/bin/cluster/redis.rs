//! A Redis server of its own for a test, on a free port, without persistence.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use compat_tests::oracle::free_port;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// A running Redis server, which ends with the value.
#[derive(Debug)]
pub(crate) struct TestRedis {
    process: Child,
    pub(crate) address: SocketAddr,
    program: String,
}

impl TestRedis {
    /// Starts a server.
    pub(crate) async fn start(program: &str) -> Result<TestRedis> {
        let port = free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let redis = TestRedis { process: spawn(program, port)?, address, program: program.to_owned() };
        redis.answers().await?;
        Ok(redis)
    }

    /// Ends the server without a word, and starts another one without its data at the same address.
    pub(crate) async fn restart_empty(&mut self) -> Result<()> {
        self.kill()?;
        self.process = spawn(&self.program, self.address.port())?;
        self.answers().await
    }

    /// Ends the server without a word.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
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

fn spawn(program: &str, port: u16) -> Result<Child> {
    Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {program}: compat-tests/cluster/setup installs it"))
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
