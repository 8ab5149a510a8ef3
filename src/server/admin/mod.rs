//! The status of a server that runs: the counts and the rooms as they are now. Who may ask is up to `control`.

pub mod unix;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::server::conn::Shared;
use crate::server::signaller::Signaller;
use crate::server::telemetry::{Report, RoomsReport, StatusQuery, UnixSeconds};

/// What is needed to tell the status.
#[derive(Clone, Debug)]
pub struct StatusService {
    /// What the connections share.
    pub shared: Arc<Shared>,
    /// The signaller, if it is served.
    pub signaller: Option<Arc<Signaller>>,
    /// Where the server listens.
    pub address: SocketAddr,
}

impl StatusService {
    /// The status as it was asked for, with a line end. It is written where it holds no connection up, however many
    /// there are to be walked through.
    pub async fn written(&self, asked: StatusQuery) -> String {
        let status = self.clone();
        tokio::task::spawn_blocking(move || status.report(asked).written(asked)).await.unwrap_or_default()
    }

    fn report(&self, asked: StatusQuery) -> Report {
        let Shared { hub, telemetry, policy, .. } = &*self.shared;
        let mut rooms = RoomsReport {
            every: asked.rooms,
            generations_ever: telemetry.mixtures(),
            ..RoomsReport::default()
        };
        hub.for_each_room(|room, peers| {
            rooms.see(room, peers.iter().filter_map(|peer| telemetry.dialect(*peer)));
        });
        rooms.sort();
        let (counts, started) = telemetry.counts();
        Report {
            address: self.address.to_string(),
            started,
            time: UnixSeconds::now(),
            served: policy.releases,
            relay_served: self.signaller.is_some(),
            counts,
            relay: telemetry.relay(),
            panics: telemetry.panics(),
            rooms,
            connections: asked.connections.then(|| telemetry.live()),
        }
    }
}
