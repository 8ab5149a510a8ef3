//! The frames of a client of sigver 20, for the programs that measure.

use anyhow::{Context, Result, bail};

use crate::wire::{Value, fields, put_bytes, put_number};

/// A content for the joiner with this id, or for the member if it is 0.
pub fn content(recipient: u64, data: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    put_number(&mut content, 2, recipient);
    put_bytes(&mut content, 4, data);
    let mut message = Vec::new();
    put_bytes(&mut message, 2, &content);
    message
}

/// Who sent a content.
///
/// # Errors
///
/// When it is none.
pub fn sender(message: &[u8]) -> Result<u64> {
    let outer = fields(message).context("no protobuf")?;
    let Some(Value::Bytes(content)) = outer.first().map(|field| field.value) else { bail!("no content") };
    match fields(content).context("no protobuf")?.first().map(|field| field.value) {
        Some(Value::Varint(sender)) => Ok(sender),
        _ => bail!("no sender"),
    }
}
