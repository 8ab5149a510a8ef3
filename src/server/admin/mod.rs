//! The status of a server that runs: the counts and the rooms as they are now. Who may ask is up to `control`.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::conn::Context;
use crate::telemetry::{Asked, Report, Rooms, Seconds};

/// What is needed to tell the status.
#[derive(Clone, Debug)]
pub struct Status {
    /// What the connections share.
    pub context: Arc<Context>,
    /// Where the server listens.
    pub address: SocketAddr,
}

impl Status {
    /// The status as it was asked for, with a line end. It is written where it holds no connection up, however many
    /// there are to be walked through.
    pub async fn written(&self, asked: Asked) -> String {
        let status = self.clone();
        tokio::task::spawn_blocking(move || status.report(asked).written(asked)).await.unwrap_or_default()
    }

    fn report(&self, asked: Asked) -> Report {
        let Context { hub, telemetry, policy, signaller, .. } = &*self.context;
        let mut rooms =
            Rooms { every: asked.rooms, generations_ever: telemetry.mixtures(), ..Rooms::default() };
        hub.for_each_room(|room, peers| {
            rooms.see(room, peers.iter().filter_map(|peer| telemetry.dialect(*peer)));
        });
        rooms.sort();
        let (counts, started) = telemetry.counts();
        Report {
            address: self.address.to_string(),
            started,
            time: Seconds::now(),
            served: policy.releases,
            relay_served: signaller.is_some(),
            counts,
            relay: telemetry.relay(),
            rooms,
            connections: asked.connections.then(|| telemetry.live()),
        }
    }
}
