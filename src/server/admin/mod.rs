//! The status of a running server, and the ways to ask for it: the control socket, and the admin listener.
//! Both call [`StatusService::report`].

mod history;
pub(crate) mod http;
mod metrics;
mod process_stats;
pub(super) mod unix;

pub use metrics::metrics_markdown;
use std::sync::Arc;

use crate::protocol::model::PeerId;
use crate::server::bridge::BridgeLink;
use crate::server::conn::Shared;
use crate::server::telemetry::{self, Format, LogCounts, Report, RoomsReport, ServerSummary, UnixSeconds};
use crate::server::tls::{CertificateExpiry, ReloadableTls};

/// Optional parts of a status report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusQuery {
    /// Includes every connection.
    pub connections: bool,
    /// Includes every room, and not only those that mix dialects.
    pub rooms: bool,
    /// Includes in the text what is zero, and the columns of detection.
    pub all: bool,
}

impl StatusQuery {
    /// Returns the request line for this query on the control socket, without its end: `status json rooms`.
    pub(crate) fn to_line(self, format: Format) -> String {
        let flags = [
            (format == Format::Json, " json"),
            (self.connections, " connections"),
            (self.rooms, " rooms"),
            (self.all, " all"),
        ];
        let words = flags.into_iter().filter(|(set, _)| *set).map(|(_, word)| word);
        std::iter::once("status").chain(words).collect()
    }

    /// Parses a request line of the control socket. Returns `None` if the line is malformed.
    pub(crate) fn parse_line(line: &str) -> Option<(Self, Format)> {
        let (mut query, mut format) = (StatusQuery::default(), Format::Text);
        let mut words = line.split_whitespace();
        if words.next() != Some("status") {
            return None;
        }
        for word in words {
            match word {
                "json" => format = Format::Json,
                "connections" => query.connections = true,
                "rooms" => query.rooms = true,
                "all" => query.all = true,
                _ => return None,
            }
        }
        Some((query, format))
    }
}

/// Access to the status of the server.
#[derive(Clone, Debug)]
pub struct StatusService {
    /// State shared by all connections.
    pub shared: Arc<Shared>,
    /// Addresses that the server listens on, with commas.
    pub address: String,
    /// True if the protocol of signallerd is served.
    pub signaller: bool,
    /// Counts of the program's log, if it has some.
    pub log: Option<Arc<LogCounts>>,
    /// Way to the bridge, if there can be one.
    pub(in crate::server) bridge: Option<Arc<BridgeLink>>,
    /// The TLS of the addresses for clients, if they have it.
    pub(in crate::server) tls: Option<Arc<ReloadableTls>>,
}

impl StatusService {
    /// Returns the status in `format`, with a line end. It is computed on a thread of its own, as a walk
    /// through many rooms would delay the connections.
    pub async fn render(&self, query: StatusQuery, format: Format) -> String {
        let service = self.clone();
        let rendered = tokio::task::spawn_blocking(move || telemetry::render(&service.report(query), format));
        rendered.await.unwrap_or_default()
    }

    /// Returns the expiry of the certificate; `None` without TLS.
    fn certificate_expiry(&self) -> Option<CertificateExpiry> {
        self.tls.as_ref()?.expiry()
    }

    /// Returns the status. Blocks for a time that grows with the number of rooms and connections.
    pub fn report(&self, query: StatusQuery) -> Report {
        let Shared { hub, telemetry, policy, .. } = &*self.shared;
        let server = ServerSummary {
            address: self.address.clone(),
            releases: policy.releases,
            signaller: self.signaller,
        };
        let mut rooms = RoomsReport {
            list_all: query.rooms,
            mixed_generations_ever: telemetry.mixed_rooms(),
            ..RoomsReport::default()
        };
        hub.for_each_room(|room, peers, links| {
            rooms.add(room, peers.iter().filter_map(|peer| telemetry.recognition(*peer)));
            let dialect = |peer: &PeerId| telemetry.recognition(*peer).map(|known| known.dialect);
            for (joiner, member) in links {
                *rooms.links.0.entry((dialect(joiner), dialect(member))).or_default() += 1;
            }
        });
        rooms.sort();
        let mut report = Report::new(server, telemetry, UnixSeconds::now());
        report.certificate_expires = self.certificate_expiry().map(CertificateExpiry::time);
        report.draining = self.shared.shutdown.is_draining();
        report.rooms = rooms;
        report.refused = self.shared.refusals.counts();
        report.all = query.all;
        report.bridge = self.bridge.as_ref().map(|bridge| bridge.report());
        report.log = self.log.as_ref().map(|counts| counts.report());
        report.cluster = self.shared.cluster_report();
        report.connection_list =
            query.connections.then(|| telemetry.connections().into_iter().map(Into::into).collect());
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_line_round_trips() {
        for line in ["status", "status json", "status connections rooms", "status json connections rooms all"]
        {
            let (query, format) = StatusQuery::parse_line(line).unwrap();
            assert_eq!(query.to_line(format), line);
        }
        for line in ["", "json", "status everything", "GET / HTTP/1.1"] {
            assert_eq!(StatusQuery::parse_line(line), None, "{line}");
        }
    }
}
