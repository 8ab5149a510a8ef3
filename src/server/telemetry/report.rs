//! The status of a server as plain data. Serialised, its field names are stable:
//! docs/reference/status-json.md lists them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, Serializer};
use strum::VariantArray as _;

use super::{
    BridgeReport, ClusterReport, ConnectionCount, ConnectionInfo, EvidenceCount, LimitsReport, LogReport,
    Recognition, Telemetry, UnixSeconds,
};
use crate::protocol::dialect::{Dialect, Evidence, Release, ReleaseSet};
use crate::server::refusals::RefusalCause;

/// Version of the format of a [`Report`].
const FORMAT: u32 = 1;

/// Facts of the server that the counters do not have.
#[derive(Clone, Debug)]
pub(crate) struct ServerSummary {
    /// Address that the server listens on.
    pub(crate) address: String,
    /// Releases that are served.
    pub(crate) releases: ReleaseSet,
    /// True if the signaller protocol is served.
    pub(crate) signaller: bool,
}

/// The status of a server.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Version of the format. It changes when a name is removed or gets another meaning.
    pub format: u32,
    /// Version of the program.
    pub version: &'static str,
    /// Address that the server listens on.
    pub address: String,
    /// Time at which counting began.
    pub started: UnixSeconds,
    /// Time of the report.
    pub time: UnixSeconds,
    /// True if the server is stopping: it accepts no new clients.
    pub draining: bool,
    /// Time at which the certificate expires; `None` without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_expires: Option<UnixSeconds>,
    /// Number of all connections, recognised or not.
    pub connections: OverallCount,
    /// Usage of each dialect, in the order of [`Dialect::ALL`].
    pub dialects: Vec<DialectReport>,
    /// Connections without a recognised dialect.
    pub unrecognised: CountReport,
    /// Counts of the signaller protocol.
    pub signaller: SignallerReport,
    /// Connections that a bug of the server ended.
    pub panics: u64,
    /// Times that each limit was reached.
    pub limits: LimitsReport,
    /// Refused connections and requests, by cause.
    #[serde(serialize_with = "refusal_counts")]
    pub refused: Vec<(RefusalCause, u64)>,
    /// True if the text has everything, and not only what is not zero.
    #[serde(skip)]
    pub all: bool,
    /// Lines that the log does not have, if the program counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogReport>,
    /// The node of a cluster, if the server is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterReport>,
    /// The rooms.
    pub rooms: RoomsReport,
    /// The bridge between the generations of clients, if there can be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeReport>,
    /// Every open connection, oldest first, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_list: Option<Vec<ConnectionReport>>,
}

/// A number of connections without a time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct OverallCount {
    /// Connections that are open.
    pub active: u64,
    /// Connections since the start, open or closed.
    pub total: u64,
}

/// A number of connections.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CountReport {
    /// Connections that are open.
    pub active: u64,
    /// Connections since the start, open or closed.
    pub total: u64,
    /// Time at which the last connection was open: the time of the report if one still is.
    pub last_seen: Option<UnixSeconds>,
}

/// The use of one dialect.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct DialectReport {
    /// Name of the dialect.
    pub name: &'static str,
    /// Name of its family.
    pub family: &'static str,
    /// Versions that speak it, oldest first.
    pub releases: Vec<String>,
    /// True if clients may speak it.
    pub served: bool,
    /// Connections treated as this dialect.
    pub assigned: CountReport,
    /// Connections treated as another dialect, which are also consistent with this one.
    pub possible: CountReport,
    /// `assigned` by evidence.
    #[serde(serialize_with = "evidence_counts")]
    pub by_evidence: Vec<(Evidence, EvidenceCount)>,
}

/// Counts of the signaller protocol.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SignallerReport {
    /// True if it is served.
    pub served: bool,
    /// Connections of clients of signaller.
    #[serde(flatten)]
    pub count: CountReport,
}

/// One open connection.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ConnectionReport {
    /// Number of the connection, which is also in the log.
    pub id: u64,
    /// Time of the connection's start.
    pub since: UnixSeconds,
    /// Name of the assigned dialect.
    pub dialect: Option<&'static str>,
    /// Evidence by which the dialect was recognised.
    #[serde(serialize_with = "evidence")]
    pub evidence: Option<Evidence>,
    /// Versions that the client may still be of.
    pub releases: Vec<&'static str>,
}

/// The rooms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RoomsReport {
    /// True if all rooms are listed, and not only those that mix dialects.
    #[serde(skip)]
    pub list_all: bool,
    /// Number of rooms.
    pub total: usize,
    /// Rooms with more than one dialect.
    pub mixed: usize,
    /// Rooms with clients of more than one generation.
    pub mixed_generations: usize,
    /// Rooms since the start in which clients of different generations were connected to one another.
    pub mixed_generations_ever: u64,
    /// Number of rooms with clients of each dialect.
    #[serde(serialize_with = "peer_counts")]
    pub by_dialect: BTreeMap<Dialect, usize>,
    /// Links between peers, by the dialects of both.
    pub links: LinkCounts,
    /// The mixed rooms, or all.
    pub list: Vec<RoomSummary>,
}

/// Numbers of links, by the dialect of the joiner and that of the member; `None` if it is not recognised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts(pub BTreeMap<(Option<Dialect>, Option<Dialect>), usize>);

impl Serialize for LinkCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Link {
            joiner: Option<&'static str>,
            member: Option<&'static str>,
            count: usize,
        }
        serializer.collect_seq(self.0.iter().map(|((joiner, member), count)| Link {
            joiner: joiner.map(Dialect::name),
            member: member.map(Dialect::name),
            count: *count,
        }))
    }
}

/// The clients in a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RoomSummary {
    /// Hash of the room's key, in place of the key, by a hash function that is chosen at random at each
    /// start.
    #[serde(serialize_with = "room_hash")]
    pub room: u32,
    /// Number of peers by dialect.
    #[serde(serialize_with = "peer_counts")]
    pub peers: BTreeMap<Dialect, usize>,
    /// Least number of generations of clients that the peers may be of.
    pub generations: usize,
}

impl Report {
    /// Returns the report of `telemetry` at `time`, without rooms and without a list of connections.
    pub(crate) fn new(server: ServerSummary, telemetry: &Telemetry, time: UnixSeconds) -> Report {
        let counts = telemetry.counts();
        let all = counts.sum();
        let dialects = Dialect::ALL.into_iter().map(|dialect| {
            let usage = counts.dialect(dialect);
            DialectReport {
                name: dialect.name(),
                family: dialect.family().name(),
                releases: versions(dialect),
                served: server.releases.iter().any(|release| release.dialect() == dialect),
                assigned: CountReport::new(usage.assigned, time),
                possible: CountReport::new(usage.possible, time),
                by_evidence: Evidence::VARIANTS.iter().copied().zip(usage.by_evidence).collect(),
            }
        });
        Report {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION"),
            address: server.address,
            started: telemetry.started(),
            time,
            draining: false,
            certificate_expires: None,
            connections: OverallCount { active: all.active, total: all.total },
            dialects: dialects.collect(),
            unrecognised: CountReport::new(counts.unrecognised, time),
            signaller: SignallerReport {
                served: server.signaller,
                count: CountReport::new(telemetry.signaller(), time),
            },
            panics: telemetry.panics(),
            limits: telemetry.limits(),
            refused: Vec::new(),
            all: false,
            log: None,
            cluster: None,
            rooms: RoomsReport::default(),
            bridge: None,
            connection_list: None,
        }
    }
}

impl CountReport {
    fn new(ConnectionCount { active, total, last_closed }: ConnectionCount, time: UnixSeconds) -> Self {
        CountReport { active, total, last_seen: if active > 0 { Some(time) } else { last_closed } }
    }
}

impl From<ConnectionInfo> for ConnectionReport {
    fn from(info: ConnectionInfo) -> Self {
        let releases = info.recognition.iter().flat_map(|known| known.releases.iter());
        ConnectionReport {
            id: info.peer.0,
            since: info.since,
            dialect: info.recognition.map(|known| known.dialect.name()),
            evidence: info.recognition.map(|known| known.evidence),
            releases: releases.map(Release::version).collect(),
        }
    }
}

/// Returns the least number of generations of which all peers may be. `peers` has the generations that each
/// of them may be of, one bit each.
fn least_generations(peers: &BTreeSet<u8>) -> usize {
    let explains = |generations: &u8| peers.iter().all(|peer| peer & generations != 0);
    let sets = (0..=u8::MAX).filter(explains);
    sets.map(|generations| generations.count_ones() as usize).min().unwrap_or_default()
}

impl RoomsReport {
    /// Adds a room, identified by the hash of its key, with its recognised peers.
    pub(crate) fn add(&mut self, room: u32, recognised: impl Iterator<Item = Recognition>) {
        let mut peers = BTreeMap::new();
        let mut generations = BTreeSet::new();
        for peer in recognised {
            *peers.entry(peer.dialect).or_default() += 1;
            generations.insert(peer.releases.peer_protocols());
        }
        peers.keys().for_each(|dialect| *self.by_dialect.entry(*dialect).or_default() += 1);
        let summary = RoomSummary { room, peers, generations: least_generations(&generations) };
        let mixed = summary.peers.len() > 1;
        self.total += 1;
        self.mixed += usize::from(mixed);
        self.mixed_generations += usize::from(summary.generations > 1);
        if mixed || self.list_all {
            self.list.push(summary);
        }
    }

    /// Sorts the rooms with the most generations, dialects and peers first.
    pub(crate) fn sort(&mut self) {
        self.list.sort_unstable_by_key(|summary| {
            let size = (summary.generations, summary.peers.len(), summary.peers.values().sum::<usize>());
            (Reverse(size), summary.room)
        });
    }
}

/// Returns the versions that speak a dialect, oldest first.
fn versions(dialect: Dialect) -> Vec<String> {
    dialect.releases().flat_map(Release::versions).map(|version| (*version).to_owned()).collect()
}

fn evidence_key(evidence: Evidence) -> String {
    evidence.name().replace(' ', "_")
}

fn evidence<S: Serializer>(evidence: &Option<Evidence>, serializer: S) -> Result<S::Ok, S::Error> {
    evidence.map(evidence_key).serialize(serializer)
}

fn evidence_counts<S: Serializer>(
    counts: &[(Evidence, EvidenceCount)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counts.iter().map(|(evidence, count)| (evidence_key(*evidence), count)))
}

fn refusal_counts<S: Serializer>(counts: &[(RefusalCause, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counts.iter().map(|(cause, count)| (cause.name(), count)))
}

fn room_hash<S: Serializer>(hash: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{hash:08x}"))
}

fn peer_counts<S: Serializer>(peers: &BTreeMap<Dialect, usize>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(peers.iter().map(|(dialect, count)| (dialect.name(), count)))
}
