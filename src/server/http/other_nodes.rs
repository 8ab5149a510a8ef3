//! The event streams and listeners of this node for the requests that other nodes of a cluster receive.

use std::future::pending;
use std::sync::Arc;

use bytes::Bytes;

use super::Routes;
use super::sse_registry::{SseRegistry, StreamId};
use crate::protocol::dialect::sse::SseVariant;
use crate::protocol::frame::Message;
use crate::protocol::signaller::handle::Handle;
use crate::server::cluster::{AcceptedCall, Answer, Call, ClusterNode, NodeServices, Question, StreamName};
use crate::server::memory::MemoryBudget;
use crate::server::signaller::{Admitted, Signaller};
use crate::server::transport::sse_body::Posted;

/// The answers to questions of other nodes.
#[derive(Debug)]
struct HttpServices {
    streams: Option<Arc<SseRegistry>>,
    signaller: Option<Arc<Signaller>>,
    memory: Arc<MemoryBudget>,
}

impl Routes {
    /// Makes the event streams and the handles of signaller those of all nodes of a cluster.
    pub(crate) fn join_cluster(&self, node: &Arc<ClusterNode>) {
        node.set_services(Arc::new(HttpServices {
            streams: self.events.as_ref().map(|events| Arc::clone(events.registry())),
            signaller: self.signaller.as_ref().map(Arc::clone),
            memory: Arc::clone(self.admission.memory()),
        }));
        if let Some(signaller) = &self.signaller {
            signaller.join_cluster(node);
        }
    }
}

impl HttpServices {
    fn signaller(&self, handle: &str) -> Option<(&Arc<Signaller>, Handle)> {
        self.signaller.as_ref().zip(Handle::parse(handle))
    }
}

impl NodeServices for HttpServices {
    fn answer(&self, question: Question) -> Answer {
        match question {
            Question::HasStream(stream) => {
                let id = self.streams.as_ref().zip(stream_id(stream));
                let has = id.is_some_and(|(registry, id)| registry.has(id));
                Box::pin(std::future::ready(has))
            }
            Question::HasListener(handle) => {
                let signaller = self.signaller(&handle);
                let has =
                    signaller.is_some_and(|(signaller, handle)| signaller.registry().has_listener(&handle));
                Box::pin(std::future::ready(has))
            }
            Question::KeepsHandle(handle, rank) => {
                let signaller = self.signaller(&handle);
                let keeps = signaller
                    .is_some_and(|(signaller, handle)| !signaller.registry().yield_to(&handle, rank));
                Box::pin(std::future::ready(keeps))
            }
            Question::Post(stream, text) => {
                let Some(registry) = self.streams.as_ref().map(Arc::clone) else {
                    return Box::pin(std::future::ready(false));
                };
                let memory = Arc::clone(&self.memory);
                Box::pin(async move {
                    let Some(id) = stream_id(stream) else { return false };
                    let Ok(charge) = memory.charge(text.len()) else { return false };
                    let posted = Posted { message: Message::Text(text), _charge: Some(charge) };
                    registry.deliver(id, posted).await.is_ok()
                })
            }
        }
    }

    fn accept_call(&self, call: Call) -> Option<AcceptedCall> {
        let Call::Connect(handle) = call;
        let (signaller, handle) = self.signaller(&handle)?;
        let slot = signaller.registry().take_listener(&handle)?;
        let (signaller, memory) = (Arc::clone(signaller), Arc::clone(&self.memory));
        Some(Box::new(move |stream| {
            let admitted = Admitted::Connect(slot);
            let pipe = async move {
                signaller.serve(Box::new(stream), Bytes::new(), admitted, &memory, pending()).await;
            };
            tokio::spawn(pipe);
        }))
    }
}

/// Returns the name of a stream among nodes.
pub(super) fn stream_name((variant, id): StreamId) -> StreamName {
    let form = match variant {
        SseVariant::V8_1 => 8,
        SseVariant::V9 => 9,
    };
    StreamName { form, id }
}

fn stream_id(name: StreamName) -> Option<StreamId> {
    let variant = match name.form {
        8 => SseVariant::V8_1,
        9 => SseVariant::V9,
        _ => return None,
    };
    Some((variant, name.id))
}
