//! Questions that a node asks another for one connection, and that are answered by yes or no: about event
//! streams, and messages for them.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytestring::ByteString;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::far::FarLink;
use super::node::ClusterNode;
use super::wire::{EdgeMessage, LINK_SESSION};
use crate::protocol::cluster::NodeId;

/// Longest time for the answers of nodes that are asked what they have.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest time for the answer to a message, which may wait for its stream.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(12);

/// An event stream, by the form of its requests and its random id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StreamName {
    /// The major version of sigver whose form it has.
    pub form: u8,
    /// The id.
    pub id: u64,
}

/// A question of one node to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::VariantNames))]
pub enum Question {
    /// The receiver has this event stream.
    HasStream(StreamName),
    /// The stream takes this message of its client.
    Post(StreamName, ByteString),
}

/// The answer to a question, once it is known.
pub type Answer = Pin<Box<dyn Future<Output = bool> + Send>>;

/// The parts of a node, besides rooms, that other nodes ask for.
pub trait NodeServices: Debug + Send + Sync {
    /// Answers a question of another node.
    fn answer(&self, question: Question) -> Answer;
}

/// The questions that were not answered yet, and the services that answer those of others.
#[derive(Debug, Default)]
pub(super) struct Questions {
    last: AtomicU32,
    open: Mutex<HashMap<u32, mpsc::UnboundedSender<(NodeId, bool)>>>,
    services: OnceLock<Arc<dyn NodeServices>>,
}

/// A question that was not answered by all. Dropping it drops later answers.
struct OpenQuestion<'a> {
    questions: &'a Questions,
    ticket: u32,
}

impl Questions {
    fn open(&self) -> (OpenQuestion<'_>, mpsc::UnboundedReceiver<(NodeId, bool)>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let ticket = self.last.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(ticket, sender);
        (OpenQuestion { questions: self, ticket }, receiver)
    }

    /// Takes note of an answer.
    pub(super) fn answered(&self, node: NodeId, ticket: u32, yes: bool) {
        if let Some(asker) = self.open.lock().get(&ticket) {
            // The asker may just have given up.
            let _ = asker.send((node, yes));
        }
    }

    /// Returns the answer of this node.
    pub(super) fn answer(&self, question: Question) -> Answer {
        match self.services.get() {
            Some(services) => services.answer(question),
            None => Box::pin(std::future::ready(false)),
        }
    }
}

impl Drop for OpenQuestion<'_> {
    fn drop(&mut self) {
        self.questions.open.lock().remove(&self.ticket);
    }
}

impl ClusterNode {
    /// Sets the services that answer questions of other nodes. Without an effect if there are any.
    pub fn set_services(&self, services: Arc<dyn NodeServices>) {
        // The first ones stay.
        let _ = self.questions.services.set(services);
    }

    /// Delivers a message to the event stream of another node. Returns false if the stream does not take it;
    /// true also if no node has the stream.
    pub async fn post(&self, stream: StreamName, text: ByteString) -> bool {
        let links: Vec<_> = self.state.lock().links.values().map(Arc::clone).collect();
        let Some(link) = self.ask(&links, &Question::HasStream(stream), SEARCH_TIMEOUT).await else {
            return true;
        };
        // What waits for the other node is bounded, also if many send to its streams.
        !link.queue.is_full()
            && self.ask(&[link], &Question::Post(stream, text), DELIVERY_TIMEOUT).await.is_some()
    }

    /// Asks nodes. Returns the link to the first one that says yes.
    async fn ask(
        &self,
        links: &[Arc<FarLink>],
        question: &Question,
        limit: Duration,
    ) -> Option<Arc<FarLink>> {
        let (open, mut answers) = self.questions.open();
        for link in links {
            let question = question.clone();
            link.queue.send(LINK_SESSION, &EdgeMessage::Ask { ticket: open.ticket, question });
        }
        let first = async {
            for _ in links {
                if let (node, true) = answers.recv().await? {
                    return links.iter().find(|link| link.node == node).map(Arc::clone);
                }
            }
            None
        };
        timeout(limit, first).await.ok().flatten()
    }
}
