//! The dialects of JSON text, and how some of them wrote it as events.

mod sigver5;
pub mod sse;

pub(super) use sigver5::Sigver5;
