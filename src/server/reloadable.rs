//! Settings of a running gateway that a reload can change, as their readers have them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::config::LogIp;

/// A time that a reload can change.
#[derive(Debug)]
pub(crate) struct ReloadableTime(AtomicU64);

impl ReloadableTime {
    pub(crate) fn new(time: Duration) -> Arc<Self> {
        Arc::new(ReloadableTime(AtomicU64::new(milliseconds(time))))
    }

    pub(crate) fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, time: Duration) {
        self.0.store(milliseconds(time), Ordering::Relaxed);
    }
}

/// The part of clients' addresses that is logged, which a reload can change.
#[derive(Debug, Default)]
pub(crate) struct ReloadableLogIp(AtomicU8);

impl ReloadableLogIp {
    pub(crate) fn new(log_ip: LogIp) -> Arc<Self> {
        let this = ReloadableLogIp::default();
        this.set(log_ip);
        Arc::new(this)
    }

    pub(crate) fn get(&self) -> LogIp {
        match self.0.load(Ordering::Relaxed) {
            2 => LogIp::Full,
            1 => LogIp::Prefix,
            _ => LogIp::Off,
        }
    }

    pub(super) fn set(&self, log_ip: LogIp) {
        let value = match log_ip {
            LogIp::Off => 0,
            LogIp::Prefix => 1,
            LogIp::Full => 2,
        };
        self.0.store(value, Ordering::Relaxed);
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
