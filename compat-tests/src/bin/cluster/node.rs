//! One node as a process of its own, as in a real cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use compat_tests::oracle::free_port;
use sigver::server::cluster::{EngineAddress, NodeSettings};
use sigver::{Config, Gateway};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// Name of the cluster in its engine.
const CLUSTER: &str = "test";

/// Serves as one node until SIGTERM.
#[derive(Debug, Args)]
pub(crate) struct NodeOptions {
    /// The engine; without one, the gateway is no node
    #[arg(long)]
    engine: Option<String>,
}

/// Runs the process of a node.
pub(crate) async fn run(options: &NodeOptions) -> Result<()> {
    let mut config = Config::default().with_address("127.0.0.1", 0);
    config.drain_timeout = Duration::from_secs(1);
    let max_message = config.max_message;
    let gateway = Gateway::bind(config).await?;
    if let Some(engine) = &options.engine {
        let listen = free_address()?;
        let settings = NodeSettings {
            engine: EngineAddress::parse(engine, CLUSTER, None)?,
            address: listen.to_string(),
            listen,
            name: format!("node-{}", std::process::id()),
            max_message,
        };
        let node = gateway.join_cluster(settings).await?;
        while !node.report().engine_ready {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    println!("{}", gateway.local_addr().context("no address")?);
    let mut terminate = signal(SignalKind::terminate())?;
    let stopped = async move {
        terminate.recv().await;
    };
    gateway.run_until(stopped).await;
    Ok(())
}

fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}

/// A node in another process, which ends with the value.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    _process: Child,
    pub(crate) address: SocketAddr,
}

impl NodeProcess {
    /// Starts a node, and waits until it serves.
    pub(crate) async fn start(program: &Path, engine: Option<&str>) -> Result<NodeProcess> {
        let mut command = Command::new(program);
        command.arg("node").stdout(Stdio::piped()).kill_on_drop(true);
        if let Some(engine) = engine {
            command.args(["--engine", engine]);
        }
        let mut process = command.spawn()?;
        let output = process.stdout.take().context("no output")?;
        let line = BufReader::new(output).lines().next_line().await?.context("the node ended")?;
        Ok(NodeProcess { _process: process, address: line.parse()? })
    }
}
