//! One node as a process of its own, as in a real cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use compat_tests::oracle::free_port;
use rustix::process::{Pid, Signal, kill_process};
use sigver::config::{EngineUrl, RoomPolicy};
use sigver::server::cluster::{EngineAddress, NodeSettings};
use sigver::{Config, Gateway};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::decisions;

/// Name of the cluster in its engine.
pub(crate) const CLUSTER: &str = "test";

/// Time in which a node closes its rooms when it is stopped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves as one node until SIGTERM.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct NodeOptions {
    /// The engine; without one, the gateway is no node
    #[arg(long)]
    pub(crate) engine: Option<String>,
    /// Name of the cluster
    #[arg(long)]
    pub(crate) cluster: Option<String>,
    /// Protocol of the clients; detected by default
    #[arg(long)]
    pub(crate) protocol: Option<String>,
    /// The password for the engine, in place of one in its URL
    #[arg(long)]
    pub(crate) password: Option<String>,
    /// Address for clients; a free port by default
    #[arg(long)]
    pub(crate) clients: Option<SocketAddr>,
    /// Address for links of other nodes; a free port by default
    #[arg(long)]
    pub(crate) links: Option<SocketAddr>,
    /// Address at which other nodes reach this one; that for links by default
    #[arg(long)]
    pub(crate) address: Option<SocketAddr>,
    /// File for the decisions about rooms
    #[arg(long)]
    pub(crate) decisions: Option<PathBuf>,
    /// Keep generations apart
    #[arg(long)]
    pub(crate) by_generation: bool,
    /// Longest message of a pipe of signaller, in bytes
    #[arg(long)]
    pub(crate) pipe_size: Option<usize>,
}

/// Runs the process of a node.
pub(crate) async fn run(options: &NodeOptions) -> Result<()> {
    if let Some(path) = &options.decisions {
        decisions::record(path)?;
    }
    let mut config = Config::default();
    config = match options.clients {
        Some(clients) => config.with_address(clients.ip().to_string(), clients.port()),
        None => config.with_address("127.0.0.1", 0),
    };
    config.drain_timeout = DRAIN_TIMEOUT;
    if options.by_generation {
        config.rooms = RoomPolicy::Partitioned;
    }
    if let Some(protocol) = &options.protocol {
        config.protocol = protocol.parse()?;
    }
    if let Some(size) = options.pipe_size {
        config.signaller.limits.max_size = size;
    }
    let max_message = config.max_message;
    let gateway = Gateway::bind(config).await?;
    if let Some(engine) = &options.engine {
        let cluster = options.cluster.as_deref().unwrap_or(CLUSTER);
        let listen = options.links.map_or_else(free_address, Ok)?;
        let settings = NodeSettings {
            engine: EngineAddress::new(&EngineUrl::parse(engine)?, cluster, options.password.as_deref())?,
            address: options.address.unwrap_or(listen).to_string(),
            listen,
            name: format!("node-{}", std::process::id()),
            max_message,
        };
        let joined = gateway.join_cluster(settings).await?;
        while !joined.report().engine_ready {
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

/// Returns an address of this machine that is free.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}

/// A node in another process, which ends with the value.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl NodeProcess {
    /// Starts a node, and waits until it serves.
    pub(crate) async fn start(program: &Path, options: &NodeOptions) -> Result<NodeProcess> {
        NodeProcess::spawn(program, options)?.serving().await
    }

    /// Starts the process of a node.
    pub(crate) fn spawn(program: &Path, options: &NodeOptions) -> Result<NodeProcess> {
        let mut command = Command::new(program);
        command.arg("node").stdout(Stdio::piped()).kill_on_drop(true);
        if let Some(engine) = &options.engine {
            command.args(["--engine", engine]);
        }
        let addresses =
            [("--clients", options.clients), ("--links", options.links), ("--address", options.address)];
        for (option, address) in addresses {
            if let Some(address) = address {
                command.args([option, &address.to_string()]);
            }
        }
        if let Some(path) = &options.decisions {
            command.arg("--decisions").arg(path);
        }
        for (option, value) in [("--cluster", &options.cluster), ("--protocol", &options.protocol)] {
            if let Some(value) = value {
                command.args([option, value]);
            }
        }
        if options.by_generation {
            command.arg("--by-generation");
        }
        if let Some(size) = options.pipe_size {
            command.args(["--pipe-size", &size.to_string()]);
        }
        let unknown = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Ok(NodeProcess { process: command.spawn()?, address: unknown })
    }

    /// Waits until the node serves.
    pub(crate) async fn serving(mut self) -> Result<NodeProcess> {
        let output = self.process.stdout.take().context("no output")?;
        let line = BufReader::new(output).lines().next_line().await?.context("the node ended")?;
        self.address = line.parse()?;
        Ok(self)
    }

    /// Returns the id of the process.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("the node has ended")?;
        kill_process(id, signal)?;
        Ok(())
    }

    /// Waits until the process has ended.
    pub(crate) async fn ended(&mut self) -> Result<()> {
        self.process.wait().await?;
        Ok(())
    }
}
