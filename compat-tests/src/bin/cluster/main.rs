//! A cluster on a real Redis, which is started here: its scripts, and clients of all dialects at three nodes.

mod access;
mod balancer;
mod claim_proxy;
mod decisions;
mod engine;
mod events;
mod faults;
mod figures;
mod goldens;
mod interop;
mod node;
mod pipes;
mod redis;
mod redis_cluster;
mod storm;

use anyhow::Result;
use clap::{Parser, Subcommand};

use faults::FaultOptions;
use faults::rolling::{self, RollingOptions};
use figures::FigureOptions;
use goldens::GoldenOptions;
use node::NodeOptions;
use redis::TestRedis;
use storm::StormOptions;

/// Tries a cluster on a real Redis.
#[derive(Debug, Parser)]
struct Options {
    /// The Redis server, or Valkey's
    #[arg(long, default_value = "redis-server")]
    redis: String,
    #[command(subcommand)]
    command: Option<TestCommand>,
}

#[derive(Debug, Subcommand)]
enum TestCommand {
    /// Only the scripts
    Scripts,
    /// Only clients of all dialects
    Interop,
    /// Only a Redis with TLS, users and passwords, by itself, with sentinels, and in a Redis Cluster
    Access,
    /// Only event streams whose requests arrive at other nodes
    Events,
    /// Only pipes of signaller between nodes
    Pipes,
    /// Only the recordings of the Node.js servers
    Goldens(GoldenOptions),
    /// Only faults, which a run without a name does not cause
    Faults(FaultOptions),
    /// Only a rolling restart
    Rolling(RollingOptions),
    /// Only a node that is killed under many clients
    Storm(StormOptions),
    /// Only the cost of a cluster, next to one server
    Figures(FigureOptions),
    /// One node, for the others
    Node(NodeOptions),
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(TestCommand::Node(node)) = &options.command {
        return node::run(node).await;
    }
    let program = std::env::current_exe()?;
    if let Some(TestCommand::Faults(options_of_faults)) = &options.command {
        return faults::check(&program, &options.redis, options_of_faults).await;
    }
    if let Some(TestCommand::Rolling(rolling)) = &options.command {
        return rolling::check(&program, &options.redis, rolling).await;
    }
    let mut server = TestRedis::start(&options.redis).await?;
    if let Some(TestCommand::Figures(figures)) = &options.command {
        return figures::measure(&server.url(), figures).await;
    }
    if let Some(TestCommand::Storm(storm)) = &options.command {
        return storm::check(&program, &server.url(), storm).await;
    }
    let all = options.command.is_none();
    if all || matches!(options.command, Some(TestCommand::Scripts)) {
        engine::check_all(&mut server, &options.redis).await?;
    }
    if all || matches!(options.command, Some(TestCommand::Interop)) {
        interop::check(&program, &server.url()).await?;
    }
    if all || matches!(options.command, Some(TestCommand::Access)) {
        access::check(&program, &options.redis).await?;
    }
    if all || matches!(options.command, Some(TestCommand::Events)) {
        let server = TestRedis::start(&options.redis).await?;
        events::check(&program, &server.url()).await?;
    }
    if all || matches!(options.command, Some(TestCommand::Pipes)) {
        pipes::check(&program, &server.url()).await?;
    }
    let chosen = match &options.command {
        None => Some(GoldenOptions::default()),
        Some(TestCommand::Goldens(chosen)) => Some(chosen.clone()),
        Some(_) => None,
    };
    if let Some(chosen) = chosen {
        goldens::check(&program, &server, &chosen).await?;
    }
    Ok(())
}
