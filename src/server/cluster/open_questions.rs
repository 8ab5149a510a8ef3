//! The questions of a node that wait for answers, and the services that answer those of other nodes.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::question::{AcceptedCall, Answer, Question};
use super::wire::Call;
use crate::protocol::cluster::NodeId;

/// The parts of a node, besides rooms, that other nodes ask for.
pub(crate) trait NodeServices: Debug + Send + Sync {
    /// Answers a question of another node.
    fn answer(&self, question: Question) -> Answer;

    /// Accepts a call of another node, or returns `None`.
    fn accept_call(&self, call: Call) -> Option<AcceptedCall>;
}

/// The questions that were not answered yet, and the services that answer those of others.
#[derive(Debug, Default)]
pub(super) struct Questions {
    last: AtomicU32,
    open: Mutex<HashMap<u32, mpsc::UnboundedSender<(NodeId, bool)>>>,
    services: OnceLock<Arc<dyn NodeServices>>,
}

/// A question that was not answered by all. Dropping it drops later answers.
pub(super) struct OpenQuestion<'a> {
    questions: &'a Questions,
    pub(super) ticket: u32,
}

impl Questions {
    /// Opens a question. Its answers arrive at the receiver.
    pub(super) fn open(&self) -> (OpenQuestion<'_>, mpsc::UnboundedReceiver<(NodeId, bool)>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let ticket = self.last.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(ticket, sender);
        (OpenQuestion { questions: self, ticket }, receiver)
    }

    /// Sets the services that answer. Without an effect if there are any.
    pub(super) fn set_services(&self, services: Arc<dyn NodeServices>) {
        // The first ones stay.
        let _ = self.services.set(services);
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
