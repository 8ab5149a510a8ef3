//! The dialects of JSON text.

mod sigver5;

pub(super) use sigver5::Sigver5;
