//! The state of a node of a cluster, as part of the status.

use std::fmt::Write as _;

use prometheus_client::metrics::histogram::Histogram;
use serde::Serialize;

/// Upper bounds of the times that the engine takes to answer, the last of them its timeout.
const ENGINE_BOUNDS: [f64; 8] = [0.000_5, 0.001, 0.002, 0.004, 0.016, 0.064, 0.256, 1.0];
/// Upper bounds of the times for which connections are held, the last of them the longest.
const HELD_BOUNDS: [f64; 8] = [0.001, 0.004, 0.016, 0.25, 1.0, 4.0, 6.0, 8.0];

/// The state of a node of a cluster.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct ClusterReport {
    /// Name of the cluster.
    pub name: String,
    /// The line of `/readyz`, with what is wrong.
    pub readiness: String,
    /// Id of the node, which each process draws at its start.
    pub node: String,
    /// Name of the node for people.
    pub node_name: String,
    /// True if the engine answers, and has all rooms of the node.
    pub engine_up: bool,
    /// Time since which it does not, in seconds.
    pub engine_lost_seconds: Option<u64>,
    /// Consequence of the loss of the engine: the value of `--engine-loss`.
    pub engine_loss: &'static str,
    /// Times that the engine had lost its data, or may have: a restart, a failover.
    pub generation_changes: u64,
    /// True if the node may decide about its rooms.
    pub may_decide: bool,
    /// Time for which it may if neither the engine nor another node answers again.
    pub lease_seconds: f64,
    /// Rooms that the node has.
    pub rooms: u64,
    /// Rooms that the node lost, and closed, by cause.
    pub rooms_lost: LostRoomCounts,
    /// Claims to rooms that were sent to the engine, by its answer.
    pub claims: ClaimCounts,
    /// Connections here in rooms of other nodes.
    pub far: u64,
    /// Connections of other nodes in rooms here.
    pub guests: u64,
    /// Connections that wait for the place of their room.
    pub waiting: u64,
    /// Links to other nodes that were cut, by cause.
    pub link_cuts: LinkCutCounts,
    /// Times that the node measured, for metrics.
    #[serde(skip)]
    pub times: ClusterTimes,
    /// The other nodes.
    pub nodes: Vec<OtherNodeReport>,
}

/// Claims by the answer of the engine.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct ClaimCounts {
    /// The room belongs to this node.
    pub granted: u64,
    /// Another node has the room.
    pub held: u64,
    /// The room is not given away yet.
    pub wait: u64,
    /// The engine did not answer.
    pub failed: u64,
}

/// Lost rooms by cause.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct LostRoomCounts {
    /// The lease of the node had lapsed.
    pub lapsed: u64,
    /// The engine lost its data, and did not take the claim again in time.
    pub forgotten: u64,
    /// Another node has the room.
    pub taken: u64,
    /// The engine did not answer, and `--engine-loss` is `close`.
    pub engine_loss: u64,
}

/// Cut links by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LinkCutCounts {
    /// Nothing arrived for too long.
    pub silent: u64,
    /// The other node sent what no node sends.
    pub invalid: u64,
    /// Too much waited to be sent.
    pub overfull: u64,
    /// The connection failed.
    pub failed: u64,
}

/// Times that a node measures, in seconds.
#[derive(Clone, Debug)]
pub struct ClusterTimes {
    /// Times that the engine took to answer claims.
    pub(crate) claims: Histogram,
    /// Times that the engine took to renew the lease.
    pub(crate) renewals: Histogram,
    /// Times for which connections waited until the places of their rooms were known.
    pub(crate) held: Histogram,
}

impl Default for ClusterTimes {
    fn default() -> Self {
        ClusterTimes {
            claims: Histogram::new(ENGINE_BOUNDS),
            renewals: Histogram::new(ENGINE_BOUNDS),
            held: Histogram::new(HELD_BOUNDS),
        }
    }
}

/// Another node.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct OtherNodeReport {
    /// Id of the node.
    pub node: String,
    /// Name of the node for people.
    pub node_name: String,
    /// Host and port at which it is reached.
    pub address: String,
    /// Time since its lease ended without notice, in seconds; null while it lasts.
    pub failed_seconds: Option<u64>,
    /// Time without a link to it, in seconds; null while there is one.
    pub unlinked_seconds: Option<u64>,
    /// True if it runs and does not know this node: it does not reach the same engine.
    pub unaware: bool,
    /// Cause for which there is no link.
    pub link_fault: Option<String>,
    /// Version of its program.
    pub version: String,
    /// True if there is a link to it.
    pub linked: bool,
    /// Rooms that it has, as of its last renewal.
    pub rooms: u64,
    /// Connections here in its rooms.
    pub far: u64,
    /// Bytes that wait to be sent to it.
    pub queue_bytes: u64,
}

impl OtherNodeReport {
    /// Returns the time since which the node has failed, in seconds. One with a link runs, and does not reach
    /// the engine.
    fn failure(&self) -> Option<u64> {
        self.failed_seconds.filter(|_| !self.linked)
    }
}

/// Appends the state of the node as lines of text.
pub(super) fn push_cluster(out: &mut String, cluster: &ClusterReport) {
    let engine = match cluster.engine_lost_seconds {
        None if cluster.readiness.starts_with("not ready") => format!("FAULT: {}", cluster.readiness),
        None => "Redis answers".to_owned(),
        Some(seconds) => format!("FAULT for {seconds} s: {}", cluster.readiness),
    };
    let ClusterReport { name, node_name, rooms, far, guests, waiting, .. } = cluster;
    let nodes = 1 + cluster.nodes.iter().filter(|node| node.failure().is_none()).count() as u64;
    let _ = writeln!(out, "cluster {name}: {}, {engine}", count(nodes, "node"));
    let _ = writeln!(
        out,
        "  {node_name} (this one)  {}, {} of other nodes in them; {} in rooms of other nodes, {waiting} waiting for a \
         room",
        count(*rooms, "room"),
        count(*guests, "connection"),
        count(*far, "connection"),
    );
    for other in &cluster.nodes {
        let OtherNodeReport { node_name, address, version, rooms, far, .. } = other;
        let _ = write!(out, "  {node_name} (sigver {version})  ");
        if other.unaware {
            let _ =
                write!(out, "RUNS AND DOES NOT KNOW THIS NODE, at {address}: it does not reach this Redis");
        } else if let Some(seconds) = other.failure() {
            let _ = write!(out, "FAILED for {seconds} s, was at {address}");
        } else {
            let _ = write!(out, "{}; {} from here", count(*rooms, "room"), count(*far, "connection"));
            if other.failed_seconds.is_some() {
                out.push_str("; IT DOES NOT REACH REDIS");
            }
            if !other.linked {
                let _ = write!(out, "; NO LINK TO IT at {address}");
                let fault = other.link_fault.as_deref().unwrap_or_default();
                if let Some(seconds) = other.unlinked_seconds {
                    let _ = write!(out, " for {seconds} s: {fault}");
                }
            }
        }
        out.push('\n');
    }
}

fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_what_is_lost() {
        let mut cluster = ClusterReport {
            name: "blue".to_owned(),
            node_name: "a".to_owned(),
            engine_loss: "refuse-new",
            may_decide: true,
            rooms: 2,
            ..ClusterReport::default()
        };
        cluster.nodes.push(OtherNodeReport {
            node_name: "b".to_owned(),
            address: "h:1".to_owned(),
            unlinked_seconds: Some(7),
            link_fault: Some("timed out".to_owned()),
            ..OtherNodeReport::default()
        });
        let text = |cluster: &ClusterReport| {
            let mut out = String::new();
            push_cluster(&mut out, cluster);
            out
        };
        let healthy = text(&cluster);
        assert!(
            healthy.starts_with("cluster blue: 2 nodes, Redis answers\n  a (this one)  2 rooms, "),
            "{healthy}"
        );
        assert!(healthy.ends_with("NO LINK TO IT at h:1 for 7 s: timed out\n"), "{healthy}");
        for node in &mut cluster.nodes {
            node.failed_seconds = Some(12);
        }
        cluster.rooms = 1;
        let failed = text(&cluster);
        assert!(
            failed.contains("cluster blue: 1 node, ") && failed.contains("(this one)  1 room, "),
            "{failed}"
        );
        assert!(failed.ends_with("FAILED for 12 s, was at h:1\n"), "{failed}");
        // One with a link runs.
        cluster.nodes[0].linked = true;
        let linked = text(&cluster);
        assert!(linked.contains("cluster blue: 2 nodes, "), "{linked}");
        assert!(linked.ends_with("; 0 connections from here; IT DOES NOT REACH REDIS\n"), "{linked}");
        cluster.nodes[0].linked = false;
        cluster.engine_lost_seconds = Some(9);
        cluster.readiness = "not ready: why".to_owned();
        assert!(text(&cluster).contains("FAULT for 9 s: not ready: why\n"));
    }
}
