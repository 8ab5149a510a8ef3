//! The memory that clients can make the server hold: one count of it for the whole process, with a limit.
//!
//! Counted is what grows with what clients send and do not read: TLS handshakes, heads and bodies of
//! requests, parts of messages, and queues. Small queues are not counted, so that relaying a message does
//! not touch the count.
//!
//! The memory of the process has a limit as well, and more causes. Both are looked at several times a second,
//! and more often while much is added: near a limit no new clients are admitted, and nearer to it no client
//! may hold more than before, and those that hold most are closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Notify;

use crate::config::ServerLimits;
use crate::system_memory;

/// Limit of what is held for clients where the memory of the system is not known, in bytes.
const DEFAULT_BUFFERED: usize = 256 << 20;

/// Longest time between two looks at the memory.
pub(crate) const MEMORY_INTERVAL: Duration = Duration::from_millis(200);

/// Share of the limit of the process, as a divisor, after whose growth the memory is looked at again.
const GROWTH_STEPS: u64 = 64;

/// Number of bytes that a new connection takes.
pub(crate) const CONNECTION: usize = 2 << 10;
/// Number of bytes that an event stream takes in addition to its connection.
pub(crate) const EVENT_STREAM: usize = 8 << 10;
/// Number of bytes that a TLS handshake holds at most: its longest message, and its state.
pub(crate) const TLS_HANDSHAKE: usize = 68 << 10;

/// Nearness to a limit, in steps of 32nds of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum MemoryNeed {
    /// There is enough.
    None,
    /// No new clients are admitted.
    Refuse,
    /// No client may hold more, as what is charged is not all of the memory, and takes some of it only later.
    /// Of the process only.
    Full,
    /// The clients that hold most are closed.
    Shed,
    /// No client may hold more at all, and those are closed as well that hold little: many of these have made
    /// it so much. Of the process only.
    LastResort,
}

impl MemoryNeed {
    /// Returns the need by the bytes that are used and their limit.
    fn new(used: u64, limit: u64) -> Self {
        let steps = [
            (31, MemoryNeed::LastResort),
            (30, MemoryNeed::Shed),
            (29, MemoryNeed::Full),
            (28, MemoryNeed::Refuse),
        ];
        let reached = steps.into_iter().find(|(share, _)| used >= limit / 32 * share);
        reached.map_or(MemoryNeed::None, |(_, need)| need)
    }
}

/// Share of the limit, in sixteenths, up to which connections may hold something before their upgrade: they
/// are refused before any others.
const BEFORE_UPGRADE: usize = 12;

/// Number of bytes above which clients are the first that are closed.
const FIRST_SHED: usize = 4 << 20;
/// Number of bytes that a client may hold up to the last resort: more than clients that read need.
const LAST_SHED: usize = 64 << 10;
/// Number of bytes that a client may hold in any case.
const LEAST_SHED: usize = 1 << 10;
/// Number of bytes up to which a client may hold more even while the memory of the process is used up.
const SMALL_CHARGE: usize = 4 << 10;

/// The count of the memory that is held for clients, in bytes.
#[derive(Debug)]
pub struct MemoryBudget {
    used: AtomicUsize,
    limit: usize,
    /// Limit of the memory of the process, if it is known.
    process_limit: Option<u64>,
    refuses_clients: AtomicBool,
    /// Number of bytes to which the charge of a client may grow: few, and then none, while the memory of the
    /// process is almost used up.
    max_charge: AtomicUsize,
    /// True if a charge could not grow since the last look, as the memory of the process is almost used up.
    has_refused_charge: AtomicBool,
    /// Number of bytes that were added since the last look.
    grown: AtomicUsize,
    /// Notified while connections are closed that have no upgrade yet.
    shed_before_upgrade: Notify,
    /// Clients that hold more are closed.
    shed_above: AtomicUsize,
}

/// The limit of a [`MemoryBudget`] is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the memory that clients may hold is used up")]
pub(crate) struct BudgetExhausted;

impl MemoryBudget {
    /// Returns a budget of `limit` bytes.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Self::with_limits(limit, None)
    }

    /// Returns the budget of a configuration, which may depend on the memory of the system.
    pub(crate) fn from_limits(limits: &ServerLimits) -> Arc<Self> {
        let process = limits.max_memory.or_else(|| Some(system_memory::available()? / 5 * 4));
        let half = process.map(|bytes| usize::try_from(bytes / 2).unwrap_or(usize::MAX));
        Self::with_limits(limits.max_buffered.or(half).unwrap_or(DEFAULT_BUFFERED), process)
    }

    fn with_limits(limit: usize, process_limit: Option<u64>) -> Arc<Self> {
        Arc::new(MemoryBudget {
            used: AtomicUsize::new(0),
            limit,
            process_limit,
            refuses_clients: AtomicBool::new(false),
            max_charge: AtomicUsize::new(usize::MAX),
            has_refused_charge: AtomicBool::new(false),
            grown: AtomicUsize::new(0),
            shed_before_upgrade: Notify::new(),
            shed_above: AtomicUsize::new(usize::MAX),
        })
    }

    /// Returns the number of bytes that the process may have, if it is limited.
    pub(crate) fn process_limit(&self) -> Option<u64> {
        self.process_limit
    }

    /// Returns true while no new clients are to be admitted.
    pub fn refuses_clients(&self) -> bool {
        self.refuses_clients.load(Ordering::Relaxed)
    }

    /// Returns true if a client that holds so many bytes is to be closed.
    pub(crate) fn sheds(&self, held: usize) -> bool {
        held > self.shed_above.load(Ordering::Relaxed)
    }

    /// Looks at the memory. Returns true if clients have to ask whether they are to be [shed](Self::sheds).
    pub(crate) fn look(&self) -> bool {
        self.look_at(system_memory::resident())
    }

    fn look_at(&self, resident: Option<u64>) -> bool {
        let (process, all) = self.update_refusals(resident);
        // Clients that hold much would else keep the memory where no client can send and they are not closed.
        let is_in_need =
            self.has_refused_charge.swap(false, Ordering::Relaxed) && process >= MemoryNeed::Full;
        let sheds = is_in_need || all >= MemoryNeed::Shed;
        let shed_above = match self.shed_above.load(Ordering::Relaxed) {
            _ if !sheds => usize::MAX,
            before if process == MemoryNeed::LastResort => (before / 2).clamp(LEAST_SHED, LAST_SHED),
            usize::MAX => FIRST_SHED,
            before => (before / 2).max(LAST_SHED),
        };
        self.shed_above.store(shed_above, Ordering::Relaxed);
        if sheds {
            self.shed_before_upgrade.notify_waiters();
        }
        sheds
    }

    /// Decides what is refused from now on. Returns the need of the process, and the greater one of that and
    /// of what is held for clients.
    fn update_refusals(&self, resident: Option<u64>) -> (MemoryNeed, MemoryNeed) {
        self.grown.store(0, Ordering::Relaxed);
        let process = resident.zip(self.process_limit);
        let process = process.map_or(MemoryNeed::None, |(used, limit)| MemoryNeed::new(used, limit));
        let all = process.max(MemoryNeed::new(self.used() as u64, self.limit as u64));
        self.refuses_clients.store(all >= MemoryNeed::Refuse, Ordering::Relaxed);
        let max_charge = match process {
            MemoryNeed::None | MemoryNeed::Refuse => usize::MAX,
            MemoryNeed::Full | MemoryNeed::Shed => SMALL_CHARGE,
            MemoryNeed::LastResort => 0,
        };
        self.max_charge.store(max_charge, Ordering::Relaxed);
        (process, all)
    }

    /// Notes that the process is about to take more memory. Looks at it if it has grown much since the last
    /// look: a crowd of clients takes more within [`MEMORY_INTERVAL`] than is left.
    pub(crate) fn note_growth(&self, bytes: usize) {
        let Some(limit) = self.process_limit else { return };
        let grown = self.grown.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if grown as u64 >= limit / GROWTH_STEPS {
            self.update_refusals(system_memory::resident());
        }
    }

    /// Completes when a connection without an upgrade is to be closed.
    pub(crate) async fn shed_before_upgrade(&self) {
        self.shed_before_upgrade.notified().await;
    }

    /// Returns a charge of what a new connection holds before its upgrade.
    ///
    /// # Errors
    /// No new clients are admitted, or connections hold as much as they may before their upgrade.
    pub(crate) fn charge_before_upgrade(
        self: &Arc<Self>,
        bytes: usize,
    ) -> Result<MemoryCharge, BudgetExhausted> {
        if self.refuses_clients() {
            return Err(BudgetExhausted);
        }
        let mut charge = self.empty_charge();
        charge.resize_before_upgrade(bytes)?;
        Ok(charge)
    }

    /// Returns a charge of `bytes`.
    ///
    /// # Errors
    /// So much cannot be held besides what is held now.
    #[cfg(any(feature = "cluster", test))]
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Result<MemoryCharge, BudgetExhausted> {
        let mut charge = self.empty_charge();
        charge.resize(bytes)?;
        Ok(charge)
    }

    /// Returns the number of bytes that are held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes that may be held.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns a charge of nothing, which grows with what its owner holds.
    pub(crate) fn empty_charge(self: &Arc<Self>) -> MemoryCharge {
        MemoryCharge { budget: Arc::clone(self), bytes: 0 }
    }
}

/// A part of a [`MemoryBudget`], which is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryCharge {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl MemoryCharge {
    /// Returns what is charged.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Changes the charge to `bytes`. A charge that cannot grow stays as it is.
    ///
    /// # Errors
    /// The charge would grow beyond the limit of its budget, or the memory of the process is used up.
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), BudgetExhausted> {
        self.resize_within(self.budget.limit, bytes)
    }

    /// Changes the charge to `bytes`, for a connection before its upgrade. A charge that cannot grow stays as
    /// it is.
    ///
    /// # Errors
    /// Connections hold as much as they may before their upgrade.
    pub(crate) fn resize_before_upgrade(&mut self, bytes: usize) -> Result<(), BudgetExhausted> {
        self.resize_within(self.budget.limit / 16 * BEFORE_UPGRADE, bytes)
    }

    fn resize_within(&mut self, limit: usize, bytes: usize) -> Result<(), BudgetExhausted> {
        let used = &self.budget.used;
        if bytes <= self.bytes {
            used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        } else {
            let more = bytes - self.bytes;
            if bytes > self.budget.max_charge.load(Ordering::Relaxed) {
                self.budget.has_refused_charge.store(true, Ordering::Relaxed);
                return Err(BudgetExhausted);
            }
            let grow = |used: usize| used.checked_add(more).filter(|used| *used <= limit);
            used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).map_err(|_| BudgetExhausted)?;
            self.budget.note_growth(more);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for MemoryCharge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_memory_is_for_what_clients_hold() {
        let limits = ServerLimits { max_memory: Some(1 << 30), ..ServerLimits::default() };
        let budget = MemoryBudget::from_limits(&limits);
        assert_eq!((budget.process_limit(), budget.limit()), (Some(1 << 30), 1 << 29));
        let limits = ServerLimits { max_buffered: Some(100), ..limits };
        assert_eq!(MemoryBudget::from_limits(&limits).limit(), 100);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_of_the_system_is_the_default() {
        let budget = MemoryBudget::from_limits(&ServerLimits::default());
        assert_eq!(budget.process_limit(), system_memory::available().map(|bytes| bytes / 5 * 4));
    }

    #[test]
    fn clients_are_refused_and_then_those_that_hold_most_are_closed() {
        let budget = MemoryBudget::with_limits(1 << 30, Some(1600));
        let state = |resident| {
            let sheds = budget.look_at(Some(resident));
            (budget.refuses_clients(), sheds, [LAST_SHED, 3 << 20, 5 << 20].map(|held| budget.sheds(held)))
        };
        assert_eq!(state(1399), (false, false, [false; 3]));
        assert_eq!(state(1400), (true, false, [false; 3]));
        assert_eq!(state(1500), (true, true, [false, false, true]));
        assert_eq!(state(1500), (true, true, [false, true, true]));
        // What clients that read hold is not too much.
        for _ in 0..100 {
            assert_eq!(state(1549), (true, true, [false, true, true]));
        }
        assert_eq!(state(1400), (true, false, [false; 3]));
        assert_eq!(state(0), (false, false, [false; 3]));
    }

    #[test]
    fn many_clients_that_hold_little_are_closed_in_the_last_resort() {
        let budget = MemoryBudget::with_limits(1 << 30, Some(1600));
        let closed_at = |resident, held| {
            assert!(budget.look_at(Some(resident)));
            budget.sheds(held)
        };
        assert!(!closed_at(1550, LAST_SHED) && closed_at(1550, LAST_SHED));
        for _ in 0..100 {
            assert!(!closed_at(9999, LEAST_SHED));
        }
        assert!(closed_at(9999, LEAST_SHED + 1));
        // Those that were not closed go on when there is more memory.
        assert!(!closed_at(1549, LAST_SHED));
        let mut charge = budget.empty_charge();
        assert_eq!(charge.resize(1), Ok(()));
        budget.look_at(Some(1550));
        assert_eq!(
            (charge.resize(2), charge.resize(1), charge.resize(0)),
            (Err(BudgetExhausted), Ok(()), Ok(()))
        );
    }

    #[test]
    fn no_client_may_hold_more_while_the_process_is_almost_at_its_limit() {
        let budget = MemoryBudget::with_limits(1 << 30, Some(1600));
        let (mut before, mut small) = (budget.empty_charge(), budget.empty_charge());
        before.resize(2 * SMALL_CHARGE).unwrap();
        budget.look_at(Some(1450));
        assert_eq!(before.resize(2 * SMALL_CHARGE + 1), Err(BudgetExhausted));
        assert_eq!((before.resize(2 * SMALL_CHARGE), small.resize(SMALL_CHARGE)), (Ok(()), Ok(())));
        budget.look_at(Some(1400));
        assert_eq!(before.resize(3 * SMALL_CHARGE), Ok(()));
    }

    #[test]
    fn clients_that_hold_most_are_closed_when_others_cannot_send() {
        let budget = MemoryBudget::with_limits(1 << 30, Some(1600));
        let mut message = budget.empty_charge();
        // At 29/32 of the limit, and below 30/32.
        assert!(!budget.look_at(Some(1450)) && !budget.sheds(5 << 20));
        assert_eq!(message.resize(SMALL_CHARGE + 1), Err(BudgetExhausted));
        assert!(budget.look_at(Some(1450)) && budget.sheds(5 << 20) && !budget.sheds(3 << 20));
        assert_eq!(message.resize(SMALL_CHARGE + 1), Err(BudgetExhausted));
        assert!(budget.look_at(Some(1450)) && budget.sheds(3 << 20));
        assert!(!budget.look_at(Some(1450)) && !budget.sheds(5 << 20));
        // Enough was closed.
        assert_eq!(message.resize(SMALL_CHARGE + 1), Err(BudgetExhausted));
        assert!(!budget.look_at(Some(1400)));
        assert_eq!(message.resize(SMALL_CHARGE + 1), Ok(()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_looked_at_when_it_has_grown() {
        // Less than the test takes, which is known only after a look.
        let budget = MemoryBudget::with_limits(usize::MAX, Some(64 << 10));
        budget.note_growth(1000);
        assert!(!budget.refuses_clients());
        let charge = budget.charge_before_upgrade(100);
        assert!(budget.refuses_clients() && charge.is_ok() && budget.charge_before_upgrade(1).is_err());
    }

    #[test]
    fn what_clients_hold_has_the_same_shares() {
        let budget = MemoryBudget::new(1600);
        let mut charge = budget.empty_charge();
        let mut look = |bytes| {
            charge.resize(bytes).unwrap();
            (budget.look_at(Some(u64::MAX)), budget.refuses_clients())
        };
        assert_eq!(
            [1399, 1400, 1500, 0].map(&mut look),
            [(false, false), (false, true), (true, true), (false, false)]
        );
    }

    #[test]
    fn connections_before_their_upgrade_are_refused_before_others() {
        let budget = MemoryBudget::new(1600);
        let mut head = budget.charge_before_upgrade(1000).unwrap();
        assert_eq!(head.resize_before_upgrade(1201), Err(BudgetExhausted));
        assert_eq!((head.resize_before_upgrade(1200), head.bytes()), (Ok(()), 1200));
        assert!(budget.charge_before_upgrade(1).is_err());
        let mut message = budget.empty_charge();
        assert_eq!((message.resize(400), message.resize(401)), (Ok(()), Err(BudgetExhausted)));
        drop(head);
        assert!(budget.charge_before_upgrade(1).is_ok());
        budget.look_at(Some(0));
        assert!(!budget.refuses_clients());
        message.resize(1400).unwrap();
        budget.look_at(Some(0));
        message.resize(0).unwrap();
        // Until the next look.
        assert!(budget.charge_before_upgrade(1).is_err());
    }

    #[test]
    fn charges_share_one_limit_and_give_back_what_they_hold() {
        let budget = MemoryBudget::new(100);
        let (mut a, mut b) = (budget.empty_charge(), budget.empty_charge());
        assert_eq!((a.resize(60), b.resize(40), budget.used()), (Ok(()), Ok(()), 100));
        // A charge that would grow beyond the limit stays as it is.
        assert_eq!(
            (b.resize(41), b.resize(usize::MAX), budget.used()),
            (Err(BudgetExhausted), Err(BudgetExhausted), 100)
        );
        assert_eq!((a.resize(10), b.resize(41), budget.used()), (Ok(()), Ok(()), 51));
        drop(a);
        assert_eq!(budget.used(), 41);
        drop(b);
        assert_eq!(budget.used(), 0);
    }
}
