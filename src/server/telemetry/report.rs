//! What is told of the counts: put together once, as JSON here and for people in `text`.
//!
//! The names in the JSON are stable: docs/operating.md lists them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{ConnectionCount, ConnectionInfo, Counts, UnixSeconds, text};
use crate::protocol::dialect::Evidence;
use crate::protocol::dialect::{Dialect, Release, ReleaseSet};

/// What somebody asks for. On the control socket it is a line: `status json rooms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusQuery {
    /// JSON in place of text.
    pub json: bool,
    /// Every connection.
    pub connections: bool,
    /// Every room, and not only those that mix dialects.
    pub rooms: bool,
}

impl StatusQuery {
    /// The line that asks for this, without its end.
    pub fn line(self) -> String {
        let words = [(self.json, " json"), (self.connections, " connections"), (self.rooms, " rooms")];
        let words = words.into_iter().filter(|(asked, _)| *asked).map(|(_, word)| word);
        std::iter::once("status").chain(words).collect()
    }

    /// What a line asks for; nothing if it cannot be read.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let mut asked = StatusQuery::default();
        if words.next() != Some("status") {
            return None;
        }
        for word in words {
            match word {
                "json" => asked.json = true,
                "connections" => asked.connections = true,
                "rooms" => asked.rooms = true,
                _ => return None,
            }
        }
        Some(asked)
    }
}

/// All that is told.
#[derive(Debug)]
pub struct Report {
    /// Where the server listens.
    pub address: String,
    /// When the counts began.
    pub started: UnixSeconds,
    /// When they were taken.
    pub time: UnixSeconds,
    /// The releases that are served.
    pub served: ReleaseSet,
    /// The path relay is served.
    pub relay_served: bool,
    /// The counts.
    pub counts: Counts,
    /// Those of the path relay.
    pub relay: ConnectionCount,
    /// Connections that a panic ended.
    pub panics: u64,
    /// The rooms.
    pub rooms: RoomsReport,
    /// Every connection, if that was asked for.
    pub connections: Option<Vec<ConnectionInfo>>,
}

/// What there is to tell of rooms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomsReport {
    /// All are listed, and not only those that mix dialects.
    pub every: bool,
    /// How many there are.
    pub total: usize,
    /// In how many there is more than one dialect.
    pub mixed: usize,
    /// In how many there are clients of more than one generation.
    pub generations: usize,
    /// In how many, since the start, clients of different generations were bound to one another.
    pub generations_ever: u64,
    /// The mixed ones, or all.
    pub list: Vec<RoomSummary>,
}

/// Who is in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomSummary {
    /// What stands for its key, which is not told: a hash of which nobody can know the outcome beforehand.
    pub room: u32,
    /// How many peers speak what.
    pub peers: BTreeMap<Dialect, usize>,
}

impl RoomSummary {
    /// How many generations of clients are in the room.
    pub fn generations(&self) -> usize {
        let mut all: Vec<u8> = self.peers.keys().map(|dialect| dialect.generation().mark()).collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    }
}

impl RoomsReport {
    /// Takes in a room, of whose peers these dialects are known.
    pub fn see(&mut self, room: u32, dialects: impl Iterator<Item = Dialect>) {
        let mut peers = BTreeMap::new();
        dialects.for_each(|dialect| *peers.entry(dialect).or_default() += 1);
        let seen = RoomSummary { room, peers };
        let mixed = seen.peers.len() > 1;
        self.total += 1;
        self.mixed += usize::from(mixed);
        self.generations += usize::from(seen.generations() > 1);
        if mixed || self.every {
            self.list.push(seen);
        }
    }

    /// Puts the rooms with the most generations, dialects and peers first.
    pub fn sort(&mut self) {
        self.list.sort_unstable_by_key(|seen| {
            let most = (seen.generations(), seen.peers.len(), seen.peers.values().sum::<usize>());
            (std::cmp::Reverse(most), seen.room)
        });
    }
}

impl Report {
    /// As it was asked for, with a line end.
    pub fn written(&self, asked: StatusQuery) -> String {
        if asked.json { format!("{:#}\n", self.json()) } else { text::text(self) }
    }

    /// Whether clients may speak the dialect.
    pub fn serves(&self, dialect: Dialect) -> bool {
        self.served.iter().any(|release| release.dialect() == dialect)
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let all = self.counts.all();
        let mut json = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "address": self.address,
            "started": self.started.to_string(),
            "time": self.time.to_string(),
            "connections": { "now": all.now, "total": all.total },
            "dialects": Dialect::ALL.map(|dialect| self.dialect(dialect)).to_vec(),
            "unrecognised": self.tally(self.counts.unrecognised),
            "signaller": self.tally(self.relay),
            "panics": self.panics,
            "rooms": self.rooms(),
        });
        json["signaller"]["served"] = self.relay_served.into();
        if let Some(connections) = &self.connections {
            json["connection_list"] = connections.iter().map(connection).collect();
        }
        json
    }

    fn tally(&self, tally: ConnectionCount) -> Value {
        let seen = tally.seen(self.time).map(|seen| seen.to_string());
        json!({ "now": tally.now, "total": tally.total, "last_seen": seen })
    }

    fn dialect(&self, dialect: Dialect) -> Value {
        let used = self.counts.of(dialect);
        let by = Evidence::ALL.into_iter().zip(used.by).map(|(evidence, by)| {
            (evidence.name().replace(' ', "_"), json!({ "now": by.now, "total": by.total }))
        });
        let seen = used.taken.seen(self.time).map(|seen| seen.to_string());
        json!({
            "name": dialect.name(),
            "family": dialect.family().name(),
            "releases": versions(dialect),
            "served": self.serves(dialect),
            "now": used.taken.now,
            "total": used.taken.total,
            "last_seen": seen,
            "perhaps": self.tally(used.perhaps),
            "recognised_by": by.collect::<Map<String, Value>>(),
        })
    }

    fn rooms(&self) -> Value {
        let rooms = &self.rooms;
        let list = rooms.list.iter().map(|seen| {
            let peers = seen.peers.iter().map(|(dialect, count)| (dialect.name().to_owned(), json!(count)));
            json!({
                "room": format!("{:08x}", seen.room),
                "peers": peers.collect::<Map<String, Value>>(),
                "generations": seen.generations(),
            })
        });
        json!({
            "total": rooms.total,
            "mixed": rooms.mixed,
            "mixed_generations": rooms.generations,
            "mixed_generations_ever": rooms.generations_ever,
            "list": list.collect::<Value>(),
        })
    }
}

fn connection(live: &ConnectionInfo) -> Value {
    let releases = live.known.map(|known| known.releases.iter().map(version).collect::<Vec<_>>());
    json!({
        "id": live.peer.0,
        "since": live.since.to_string(),
        "dialect": live.known.map(|known| known.dialect.name()),
        "recognised_by": live.known.map(|known| known.evidence.name()),
        "releases": releases.unwrap_or_default(),
    })
}

/// The versions that speak a dialect, oldest first.
pub(super) fn versions(dialect: Dialect) -> Vec<String> {
    let of_it = Release::ALL.into_iter().filter(|release| release.dialect() == dialect);
    of_it.flat_map(|release| release.in_words().split(", ").map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// The version that stands for a release.
pub(super) fn version(release: Release) -> &'static str {
    release.versions().first().copied().unwrap_or_default()
}
