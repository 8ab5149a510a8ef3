//! Questions that a node asks another for one connection, and that are answered by yes or no: about event
//! streams, messages for them, and handles of signaller.

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
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsStream;

use super::far::FarLink;
use super::link::OutgoingCall;
use super::node::ClusterNode;
use super::wire::{Call, EdgeMessage, LINK_SESSION, WITH_HANDLES};
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
    /// The receiver has a listener under this handle of signaller.
    HasListener(ByteString),
    /// The receiver has a listener under this handle, or has reserved it with no higher rank than this one,
    /// with which the asker has.
    KeepsHandle(ByteString, u64),
}

impl Question {
    /// Returns the version from which on nodes know the question.
    fn version(&self) -> u16 {
        match self {
            Question::HasStream(_) | Question::Post(..) => 1,
            Question::HasListener(_) | Question::KeepsHandle(..) => WITH_HANDLES,
        }
    }
}

/// The answer to a question, once it is known.
pub type Answer = Pin<Box<dyn Future<Output = bool> + Send>>;

/// The parts of a node, besides rooms, that other nodes ask for.
pub trait NodeServices: Debug + Send + Sync {
    /// Answers a question of another node.
    fn answer(&self, question: Question) -> Answer;

    /// Accepts a call of another node, or returns `None`.
    fn accept_call(&self, call: Call) -> Option<AcceptedCall>;
}

/// The connection to another node. Rustls reads a few kilobytes at a time, each of which would be a system
/// call without a buffer.
pub(super) type NodeSocket = BufReader<TcpStream>;

/// The stream of a call.
pub type CallStream = TlsStream<NodeSocket>;

/// The receiver of the stream of a call. Dropping it ends the call.
pub type AcceptedCall = Box<dyn FnOnce(CallStream) + Send>;

/// The questions that were not answered yet, and the services that answer those of others.
#[derive(Debug, Default)]
pub(super) struct Questions {
    last: AtomicU32,
    open: Mutex<HashMap<u32, mpsc::UnboundedSender<(NodeId, bool)>>>,
    services: OnceLock<Arc<dyn NodeServices>>,
}

/// A node did not answer in time.
#[derive(Debug)]
struct Unanswered;

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

    /// Takes note that a node answers no more.
    pub(super) fn unlinked(&self, node: NodeId) {
        for asker in self.open.lock().values() {
            // The asker may just have given up.
            let _ = asker.send((node, false));
        }
    }

    /// Accepts a call of another node, or returns `None`.
    pub(super) fn accept_call(&self, call: Call) -> Option<AcceptedCall> {
        self.services.get()?.accept_call(call)
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

    /// Delivers a message to the event stream of another node. Returns false if the stream does not take it,
    /// or may be at a node that does not answer; true also if no node has the stream.
    pub async fn post(&self, stream: StreamName, text: ByteString) -> bool {
        let link = match self.ask_all(&Question::HasStream(stream)).await {
            Ok(Some(link)) => link,
            Ok(None) => return true,
            Err(Unanswered) => return false,
        };
        // What waits for the other node is bounded, also if many send to its streams.
        let question = Question::Post(stream, text);
        !link.queue.is_full() && matches!(self.ask(&[link], &question, DELIVERY_TIMEOUT).await, Ok(Some(_)))
    }

    /// Returns true if another node has a listener under a handle of signaller.
    pub async fn has_listener(&self, handle: &str) -> bool {
        matches!(self.ask_all(&Question::HasListener(handle.into())).await, Ok(Some(_)))
    }

    /// Returns true if another node has a listener under a handle that this one has reserved with a rank. A
    /// node that does not answer has none that could be connected to.
    pub async fn has_other_listener(&self, handle: &str, rank: u64) -> bool {
        matches!(self.ask_all(&Question::KeepsHandle(handle.into(), rank)).await, Ok(Some(_)))
    }

    /// Connects to the listener under a handle, which another node has; `None` if none has.
    pub async fn connect(&self, handle: &str) -> Option<OutgoingCall> {
        let link = self.ask_all(&Question::HasListener(handle.into())).await.ok()??;
        match self.links.get()?.call(&link, &Call::Connect(handle.into())).await {
            Ok(call) => call,
            Err(error) => {
                tracing::debug!(%error, "a call to a node failed");
                None
            }
        }
    }

    /// Asks all nodes that know the question.
    async fn ask_all(&self, question: &Question) -> Result<Option<Arc<FarLink>>, Unanswered> {
        let links: Vec<_> = self.state.lock().links.values().map(Arc::clone).collect();
        self.ask(&links, question, SEARCH_TIMEOUT).await
    }

    /// Asks nodes. Returns the link to the first one that answers yes, or `None` once all have answered
    /// no or are linked no longer.
    ///
    /// # Errors
    /// Not all have answered in time.
    async fn ask(
        &self,
        links: &[Arc<FarLink>],
        question: &Question,
        limit: Duration,
    ) -> Result<Option<Arc<FarLink>>, Unanswered> {
        let (open, mut answers) = self.questions.open();
        let mut asked: Vec<_> = links.iter().filter(|link| link.version() >= question.version()).collect();
        for link in &asked {
            let question = question.clone();
            link.queue.send(LINK_SESSION, &EdgeMessage::Ask { ticket: open.ticket, question });
        }
        // One that ends from now on is reported.
        asked.retain(|link| !link.ended.is_cancelled());
        let first = async {
            while !asked.is_empty() {
                let (node, yes) = answers.recv().await?;
                if yes {
                    return links.iter().find(|link| link.node == node).map(Arc::clone);
                }
                asked.retain(|link| link.node != node);
            }
            None
        };
        timeout(limit, first).await.map_err(|_| Unanswered)
    }
}
