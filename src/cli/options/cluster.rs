//! Options of a cluster.

use super::Section::Cluster;
use super::{Effect, OptionSpec, set};
use crate::config::{DEFAULT_CLUSTER_NAME, EngineLoss, EngineUrl, NodeAddress, parse, parse_name};

pub(super) const CLUSTER: OptionSpec = set("cluster", "url", "", |d, v| {
    EngineUrl::parse(v).map(|v| d.config.cluster.url = Some(v))
})
.help(
    Cluster,
    "Redis 7 or Valkey that makes this server a node of a cluster, whose nodes have common rooms: \
     redis://[user[:password]@]host[:port][/db], rediss://… with TLS, redis+sentinel://host[:port],…/primary, or \
     redis+cluster://host[:port],…",
);

pub(super) const CLUSTER_PASSWORD_FILE: OptionSpec = OptionSpec::new(
    "cluster-password-file",
    Some("file path"),
    Effect::SetUnlessEmpty(|d, v| {
        d.config.cluster.password_file = Some(v.into());
        Ok(())
    }),
)
.help(
    Cluster,
    "File whose first line is the password for --cluster, in place of one in the URL; a list of processes does not \
     show it",
);

pub(super) const CLUSTER_NAME: OptionSpec = set("cluster-name", "name", DEFAULT_CLUSTER_NAME, |d, v| {
    parse_name(v).map(|v| d.config.cluster.name = v)
})
.help(Cluster, "Name of the cluster: several can use one Redis");

pub(super) const NODE_ADDRESS: OptionSpec = OptionSpec::new(
    "node-address",
    Some("host[:port]"),
    Effect::SetUnlessEmpty(|d, v| NodeAddress::parse(v).map(|v| d.config.cluster.node_address = Some(v))),
)
.help(
    Cluster,
    "Where the other nodes reach this one. Without it, the address from which this machine reaches Redis, on which \
     alone it listens for them",
);

pub(super) const NODE_PORT: OptionSpec = OptionSpec::new(
    "node-port",
    Some("number"),
    Effect::SetUnlessEmpty(|d, v| parse::port(v).map(|v| d.config.cluster.node_port = Some(v))),
)
.help(Cluster, "Port on which to listen for the other nodes. Without it, the one after the port for clients");

pub(super) const NODE_NAME: OptionSpec = OptionSpec::new(
    "node-name",
    Some("name"),
    Effect::SetUnlessEmpty(|d, v| parse_name(v).map(|v| d.config.cluster.node_name = Some(v))),
)
.help(Cluster, "Name of this node in the status and in logs. Without it, that of the machine");

pub(super) const ENGINE_LOSS: OptionSpec = set("engine-loss", "continue|refuse-new|close", "refuse-new", |d, v| {
    EngineLoss::parse(v).map(|v| d.config.cluster.engine_loss = v)
})
.help(
    Cluster,
    "After eight seconds without an answer of Redis: clients that would open a room are closed with 1013. continue: \
     after a wait of 8 s. refuse-new: after 1 s. close: after 1 s, and all rooms of the node are closed with 1012",
);
