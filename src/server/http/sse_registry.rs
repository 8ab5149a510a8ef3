//! The open event streams, by the id that a client shows with its other requests.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_rustls::rustls::crypto::{SecureRandom, ring};

use crate::protocol::dialect::sse::SseVariant;
use crate::server::transport::sse_body::{Posted, inbox};

/// Longest time that a message may wait for its stream to take it.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// The key of a stream: its variant, and its random id.
pub(super) type StreamId = (SseVariant, u64);

/// The open event streams.
pub(super) struct SseRegistry {
    streams: Mutex<HashMap<StreamId, mpsc::Sender<Posted>>>,
    random: &'static dyn SecureRandom,
}

impl fmt::Debug for SseRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SseRegistry").field("streams", &self.streams.lock().len()).finish_non_exhaustive()
    }
}

/// A registered stream. Dropping it removes the stream.
pub(super) struct RegistrationGuard {
    registry: Arc<SseRegistry>,
    id: StreamId,
}

/// A stream did not take a message in time.
#[derive(Debug)]
pub(super) struct Congested;

impl SseRegistry {
    /// Returns an empty registry.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(SseRegistry { streams: Mutex::default(), random: ring::default_provider().secure_random })
    }

    /// Registers a stream under a new random id. Returns its registration, its id and both ends of its inbox,
    /// or `None` if the system has no random numbers.
    pub(super) fn register(
        self: &Arc<Self>,
        variant: SseVariant,
    ) -> Option<(RegistrationGuard, u64, mpsc::Sender<Posted>, mpsc::Receiver<Posted>)> {
        let (sender, receiver) = inbox();
        let mut streams = self.streams.lock();
        loop {
            let id = (variant, self.random_id()?);
            if let Entry::Vacant(entry) = streams.entry(id) {
                entry.insert(sender.clone());
                let guard = RegistrationGuard { registry: Arc::clone(self), id };
                return Some((guard, id.1, sender, receiver));
            }
        }
    }

    /// Delivers a message to a stream. Returns `Ok` also if there is no such stream.
    ///
    /// # Errors
    /// The stream does not take the message in time.
    pub(super) async fn deliver(&self, id: StreamId, message: Posted) -> Result<(), Congested> {
        let inbox = self.streams.lock().get(&id).cloned();
        let Some(inbox) = inbox else {
            return Ok(());
        };
        match tokio::time::timeout(DELIVERY_TIMEOUT, inbox.send(message)).await {
            // The send fails if the stream has just ended.
            Ok(Ok(()) | Err(_)) => Ok(()),
            Err(_) => Err(Congested),
        }
    }

    /// Returns true if a stream is open.
    #[cfg(feature = "cluster")]
    pub(super) fn has(&self, id: StreamId) -> bool {
        self.streams.lock().contains_key(&id)
    }

    /// Returns an unpredictable id, which is all that authenticates a client. It is at most
    /// `Number.MAX_SAFE_INTEGER`.
    fn random_id(&self) -> Option<u64> {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes) >> 11)
    }
}

impl Drop for RegistrationGuard {
    fn drop(&mut self) {
        self.registry.streams.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that authenticates the client of a stream, so from the generator for keys.
    #[test]
    fn ids_of_streams_have_53_random_bits() {
        let registry = SseRegistry::new();
        let ids: Vec<u64> = (0..4096).map(|_| registry.random_id().unwrap()).collect();
        assert!(ids.iter().all(|id| id >> 53 == 0));
        for bit in 0..53 {
            let set = ids.iter().filter(|id| *id >> bit & 1 == 1).count();
            // Six standard deviations.
            assert!((1856..=2240).contains(&set), "bit {bit}: {set} of 4096");
        }
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }

    #[test]
    fn id_of_a_stream_that_has_ended_is_not_registered() {
        let registry = SseRegistry::new();
        let (guard, id, ..) = registry.register(SseVariant::V9).unwrap();
        assert!(registry.streams.lock().contains_key(&(SseVariant::V9, id)));
        drop(guard);
        assert!(registry.streams.lock().is_empty());
    }
}
