//! The memory that HTTP needs for what a connection sends before its upgrade.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderMap;

use super::MAX_HEAD;
use crate::server::memory::{BudgetExhausted, MemoryBudget, MemoryCharge};

/// Number of bytes up to which hyper receives them in its first buffer.
const FIRST_BUFFER: usize = 4 * 1024;
/// Number of bytes that a connection takes for the state of hyper and its first buffer.
const SMALL_REQUEST: usize = 2 * FIRST_BUFFER;
/// Number of bytes that a connection takes at most: the buffer that holds a head, the longer one that it was
/// copied to as it grew, and the one that is read into while the head is looked at.
const LARGE_REQUEST: usize = 3 * MAX_HEAD;
/// Number of bytes that a request with a body takes while that is received, in addition to the body and what
/// its connection takes: the states of the handlers, and what is left of its head.
pub(super) const REQUEST_WITH_BODY: usize = 20 * 1024;
/// Number of bytes that a header takes in addition to its text, at most.
const HEADER: usize = 160;

/// Longest time for the body of a request for an upgrade.
const UPGRADE_BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest body of a request for an upgrade, in bytes. It is discarded, as by the Node.js servers.
const MAX_UPGRADE_BODY: usize = 16 * 1024;

/// The charge of the buffers of a connection.
#[derive(Debug)]
pub(super) struct ReceiveCharge {
    charge: MemoryCharge,
    /// Number of bytes that were received since the last response began.
    received: usize,
    /// Number of bytes that were received between the last response and the one before: what was behind the
    /// request is still in the buffer.
    before: usize,
}

impl ReceiveCharge {
    /// Returns the charge of a connection that sent `received` bytes.
    ///
    /// # Errors
    /// There is no memory for them.
    pub(super) fn new(budget: &Arc<MemoryBudget>, received: usize) -> Result<Self, BudgetExhausted> {
        let charge = budget.charge_before_upgrade(SMALL_REQUEST)?;
        let mut this = ReceiveCharge { charge, received: 0, before: 0 };
        this.on_received(received)?;
        Ok(this)
    }

    /// Counts bytes that were received.
    ///
    /// # Errors
    /// There is no memory for them.
    pub(super) fn on_received(&mut self, bytes: usize) -> Result<(), BudgetExhausted> {
        self.received = self.received.saturating_add(bytes);
        let is_small = self.received.saturating_add(self.before) < FIRST_BUFFER;
        let needed = if is_small { SMALL_REQUEST } else { LARGE_REQUEST };
        match needed == self.charge.bytes() {
            true => Ok(()),
            false => self.charge.resize_before_upgrade(needed),
        }
    }

    /// Notes that a response is sent, if one is due.
    pub(super) fn on_response(&mut self) {
        if self.received > 0 {
            self.before = std::mem::take(&mut self.received);
        }
    }
}

/// Returns the number of bytes that the headers of a request take in addition to their text.
pub(super) fn headers_size(headers: &HeaderMap) -> usize {
    headers.len().saturating_mul(HEADER)
}

/// Reads a body up to its end, and keeps nothing of it. Returns false if it is too long or does not arrive in
/// time.
pub(super) async fn discard(body: Incoming) -> bool {
    let rest = async {
        let mut body = Limited::new(body, MAX_UPGRADE_BODY);
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        true
    };
    matches!(tokio::time::timeout(UPGRADE_BODY_TIMEOUT, rest).await, Ok(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charge_covers_what_may_be_left_behind_a_request() {
        let budget = MemoryBudget::new(1 << 20);
        let mut charge = ReceiveCharge::new(&budget, 100).unwrap();
        assert_eq!(budget.used(), SMALL_REQUEST);
        charge.on_received(MAX_HEAD).unwrap();
        assert_eq!(budget.used(), LARGE_REQUEST);
        // Two responses to what was received at once, and behind both requests half of another.
        charge.on_response();
        charge.on_response();
        charge.on_received(1).unwrap();
        assert_eq!(budget.used(), LARGE_REQUEST);
        charge.on_response();
        charge.on_received(1).unwrap();
        assert_eq!(budget.used(), SMALL_REQUEST);
        drop(charge);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn connection_without_memory_for_a_long_head_fails() {
        let budget = MemoryBudget::new(LARGE_REQUEST);
        let mut charge = ReceiveCharge::new(&budget, FIRST_BUFFER - 1).unwrap();
        assert_eq!(charge.on_received(1), Err(BudgetExhausted));
    }
}
