//! The metrics of a node of a cluster. A server that is none has none of them.

use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;

use super::{MetricFamily, Samples, counter, gauge};
use crate::server::telemetry::{ClaimCounts, ClusterReport, LinkCutCounts, LostRoomCounts, OtherNodeReport};

/// Returns the metrics of a node.
pub(super) fn families(cluster: &ClusterReport) -> Vec<MetricFamily> {
    let linked = cluster.nodes.iter().filter(|node| node.linked).count() as u64;
    let is_unlinked = |node: &&OtherNodeReport| !node.linked && node.failed_seconds.is_none();
    let unlinked = cluster.nodes.iter().filter(is_unlinked).count() as u64;
    let nodes = [("self", 1), ("linked", linked), ("unlinked", unlinked)];
    let ClaimCounts { granted, held, wait, failed } = cluster.claims;
    let claims = [("granted", granted), ("held", held), ("wait", wait), ("failed", failed)];
    let LostRoomCounts { lapsed, forgotten, taken, engine_loss } = cluster.rooms_lost;
    let lost = [("lapsed", lapsed), ("forgotten", forgotten), ("taken", taken), ("engine_loss", engine_loss)];
    let LinkCutCounts { silent, invalid, overfull, failed } = cluster.link_cuts;
    let cuts = [("silent", silent), ("invalid", invalid), ("overfull", overfull), ("failed", failed)];
    let times = &cluster.times;
    let sessions = [("here", cluster.far), ("elsewhere", cluster.guests)];
    vec![
        gauge("sigver_cluster_nodes", "Nodes of the cluster: this one, and others with and without a link to them.")
            .with(&["state"], nodes.map(|(state, count)| ([state], count))),
        gauge("sigver_cluster_engine_up", "1 if Redis answers and has all rooms of this node, else 0.")
            .value(cluster.engine_up),
        gauge("sigver_cluster_may_decide", "1 if this node may decide about its rooms, else 0.")
            .value(cluster.may_decide),
        MetricFamily {
            samples: Samples::Seconds(cluster.lease_seconds),
            ..gauge(
                "sigver_cluster_lease_seconds",
                "Time for which this node may decide if neither Redis nor another node answers again; 2.5 with each answer of Redis.",
            )
        },
        counter("sigver_cluster_engine_generation_changes", "Times that Redis had lost its data, or may have.")
            .value(cluster.generation_changes),
        counter("sigver_cluster_claims", "Claims to rooms, by the answer of Redis.")
            .with(&["result"], claims.map(|(result, count)| ([result], count))),
        gauge("sigver_cluster_rooms_owned", "Rooms of this node.").value(cluster.rooms),
        counter("sigver_cluster_rooms_lost", "Rooms that this node lost, and closed with 1012, by cause.")
            .with(&["cause"], lost.map(|(cause, count)| ([cause], count))),
        gauge(
            "sigver_cluster_far_sessions",
            "Connections in rooms of another node than theirs, by the end that is here: the connection or the room.",
        )
        .with(&["connection"], sessions.map(|(connection, count)| ([connection], count))),
        gauge("sigver_cluster_waiting", "Connections that wait for the place of their room.").value(cluster.waiting),
        gauge("sigver_cluster_link_queue_bytes", "Bytes that wait to be sent to other nodes.")
            .value(cluster.nodes.iter().map(|node| node.queue_bytes).sum::<u64>()),
        counter("sigver_cluster_link_cuts", "Links between nodes that ended with an error, by cause.")
            .with(&["cause"], cuts.map(|(cause, count)| ([cause], count))),
        histogram("sigver_cluster_claim_seconds", "Time that Redis took to answer a claim to a room.", &times.claims),
        histogram("sigver_cluster_renewal_seconds", "Time that Redis took to renew the lease.", &times.renewals),
        histogram(
            "sigver_cluster_held_seconds",
            "Time for which a connection waited until the place of its room was known.",
            &times.held,
        ),
    ]
}

fn histogram(name: &'static str, help: &'static str, times: &Histogram) -> MetricFamily {
    let samples = Samples::Times(times.clone());
    MetricFamily { kind: MetricType::Histogram, samples, ..gauge(name, help) }
}
