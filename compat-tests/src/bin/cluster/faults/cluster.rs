//! Three nodes, each behind proxies to the engine and to the other nodes, that can be cut one by one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use rustix::process::Signal;

use super::proxy::{FaultProxy, Passage};
use crate::decisions::{self, Decision};
use crate::node::{NodeOptions, NodeProcess, free_address};

/// Number of nodes.
pub(crate) const NODES: usize = 3;

/// The engine of a cluster under test.
pub(crate) enum EngineSource {
    /// A server, which each node reaches through a proxy of its own.
    Proxied(SocketAddr),
    /// A URL, which each node is given.
    Url(String),
}

/// Three nodes.
pub(crate) struct TestCluster {
    program: PathBuf,
    directory: PathBuf,
    nodes: Vec<TestNode>,
    /// Ids of the processes, by which the proxies know who connects.
    processes: Arc<Mutex<[Option<u32>; NODES]>>,
}

struct TestNode {
    process: Option<NodeProcess>,
    options: NodeOptions,
    engine: Option<Arc<FaultProxy>>,
    links: Arc<FaultProxy>,
    /// The files of its decisions, one for each process.
    decisions: Vec<PathBuf>,
}

impl TestCluster {
    /// Starts the nodes.
    pub(crate) async fn start(program: &Path, engine: EngineSource) -> Result<TestCluster> {
        let directory = std::env::temp_dir().join(format!("sigver-cluster-{}", free_address()?.port()));
        std::fs::create_dir_all(&directory)?;
        let processes = Arc::new(Mutex::new([None; NODES]));
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            let links = free_address()?;
            let known = Arc::clone(&processes);
            let identify =
                move |from: SocketAddr, to: SocketAddr| process_of(from, to, &*known.lock()).unwrap_or(NODES);
            let link_proxy = FaultProxy::start(links, Arc::new(identify)).await?;
            let (engine_proxy, url) = match &engine {
                EngineSource::Proxied(server) => {
                    let proxy = FaultProxy::start(*server, Arc::new(|_, _| 0)).await?;
                    let url = format!("redis://{}", proxy.address);
                    (Some(proxy), url)
                }
                EngineSource::Url(url) => (None, url.clone()),
            };
            let options = NodeOptions {
                engine: Some(url),
                password: None,
                clients: Some(free_address()?),
                links: Some(links),
                address: Some(link_proxy.address),
                decisions: None,
                ..NodeOptions::default()
            };
            nodes.push(TestNode {
                process: None,
                options,
                engine: engine_proxy,
                links: link_proxy,
                decisions: Vec::new(),
            });
        }
        let mut cluster = TestCluster { program: program.to_owned(), directory, nodes, processes };
        for node in 0..NODES {
            cluster.start_node(node).await?;
        }
        Ok(cluster)
    }

    /// Starts a node at the addresses that it has.
    pub(crate) async fn start_node(&mut self, number: usize) -> Result<()> {
        let node = &mut self.nodes[number];
        let path = self.directory.join(format!("decisions-{number}-{}", node.decisions.len()));
        node.options.decisions = Some(path.clone());
        node.decisions.push(path);
        let process = NodeProcess::spawn(&self.program, &node.options)?;
        // Before it dials the others.
        self.processes.lock()[number] = process.id();
        node.process = Some(process.serving().await?);
        Ok(())
    }

    /// Returns the addresses for clients.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().filter_map(|node| node.options.clients).collect()
    }

    /// Sends a signal to a node. Waits for the end of the process if it ends by that.
    pub(crate) async fn signal(&mut self, number: usize, signal: Signal) -> Result<()> {
        let node = &mut self.nodes[number];
        let process = node.process.as_mut().context("the node does not run")?;
        process.signal(signal)?;
        if signal == Signal::KILL || signal == Signal::TERM {
            process.ended().await?;
            node.process = None;
        }
        Ok(())
    }

    /// Sets the treatment of the connections of a node to the engine.
    pub(crate) fn set_engine(&self, node: usize, passage: Passage) {
        if let Some(proxy) = &self.nodes[node].engine {
            proxy.set(0, passage);
        }
    }

    /// Sets the treatment of the connections between two nodes, in both directions.
    pub(crate) fn set_links(&self, a: usize, b: usize, passage: Passage) {
        self.nodes[a].links.set(b, passage);
        self.nodes[b].links.set(a, passage);
    }

    /// Returns the decisions of each process so far.
    pub(crate) fn decisions(&self) -> Result<Vec<(usize, Vec<Decision>)>> {
        let mut all = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            for path in &node.decisions {
                all.push((number, decisions::read(path)?));
            }
        }
        Ok(all)
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Returns the process, among these, that connected from the one address to the other.
pub(super) fn process_of(from: SocketAddr, to: SocketAddr, processes: &[Option<u32>]) -> Option<usize> {
    let sockets = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let (local, remote) = (format!(":{:04X}", from.port()), format!(":{:04X}", to.port()));
    let inode = sockets.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // A port is that of several connections, to different addresses.
        let is_this = words.get(1)?.ends_with(&local) && words.get(2)?.ends_with(&remote);
        is_this.then(|| words.get(9).map(|inode| format!("socket:[{inode}]")))?
    })?;
    processes.iter().position(|process| {
        let Some(process) = process else { return false };
        let Ok(files) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
        files
            .flatten()
            .any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == inode.as_str()))
    })
}
