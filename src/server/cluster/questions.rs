//! Questions that a node asks others for one connection, and that are answered by yes or no: about event
//! streams, messages for them, and handles of signaller.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::time::timeout;

use super::far::FarLink;
use super::link::OutgoingCall;
use super::node::ClusterNode;
use super::open_questions::NodeServices;
use super::question::{Question, StreamName};
use super::wire::{Call, EdgeMessage, LINK_SESSION};

/// Longest time for the answers of nodes that are asked what they have.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest time for the answer to a message, which may wait for its stream.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(12);

/// A node did not answer in time.
#[derive(Debug)]
struct Unanswered;

impl ClusterNode {
    /// Sets the services that answer questions of other nodes. Without an effect if there are any.
    pub(crate) fn set_services(&self, services: Arc<dyn NodeServices>) {
        self.questions.set_services(services);
    }

    /// Delivers a message to the event stream of another node. Returns false if the stream does not take it,
    /// or may be at a node that does not answer; true also if no node has the stream.
    pub(crate) async fn post(&self, stream: StreamName, text: ByteString) -> bool {
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
    pub(crate) async fn has_listener(&self, handle: &str) -> bool {
        matches!(self.ask_all(&Question::HasListener(handle.into())).await, Ok(Some(_)))
    }

    /// Returns true if another node has a listener under a handle that this one has reserved with a rank. A
    /// node that does not answer has none that could be connected to.
    pub(crate) async fn has_other_listener(&self, handle: &str, rank: u64) -> bool {
        matches!(self.ask_all(&Question::KeepsHandle(handle.into(), rank)).await, Ok(Some(_)))
    }

    /// Connects to the listener under a handle, which another node has; `None` if none has.
    pub(crate) async fn connect(&self, handle: &str) -> Option<OutgoingCall> {
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
