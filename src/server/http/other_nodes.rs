//! The event streams of this node for the requests that other nodes of a cluster receive.

use std::fmt;
use std::sync::Arc;

use super::sse_registry::{SseRegistry, StreamId};
use crate::protocol::dialect::sse::SseVariant;
use crate::protocol::frame::Message;
use crate::server::cluster::{Answer, NodeServices, Question, StreamName};
use crate::server::memory::MemoryBudget;
use crate::server::transport::sse_body::Posted;

/// The answers to questions of other nodes.
pub(super) struct StreamServices {
    pub(super) registry: Arc<SseRegistry>,
    pub(super) memory: Arc<MemoryBudget>,
}

impl fmt::Debug for StreamServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.registry, f)
    }
}

impl NodeServices for StreamServices {
    fn answer(&self, question: Question) -> Answer {
        match question {
            Question::HasStream(stream) => {
                let has = stream_id(stream).is_some_and(|id| self.registry.has(id));
                Box::pin(std::future::ready(has))
            }
            Question::Post(stream, text) => {
                let registry = Arc::clone(&self.registry);
                let mut charge = self.memory.empty_charge();
                Box::pin(async move {
                    let Some(id) = stream_id(stream) else { return false };
                    if charge.resize(text.len()).is_err() {
                        return false;
                    }
                    let posted = Posted { message: Message::Text(text), _charge: Some(charge) };
                    registry.deliver(id, posted).await.is_ok()
                })
            }
        }
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
