//! The limits in force, of which some depend on the system.

use std::fmt;

use super::fd_limit;
use super::memory::MemoryBudget;
use crate::config::ServerLimits;

/// Limits in force: what `auto` stands for, and the limit of the system that it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EffectiveLimits {
    /// Memory of the process, in bytes; `None` if the system does not state how much there is.
    pub max_memory: Option<u64>,
    /// Part of it for what clients make the server hold, in bytes.
    pub max_held: usize,
    /// Connections at the same time.
    pub max_connections: u32,
    /// Files that the process may have open at the same time, connections among them.
    pub open_files: u64,
}

impl EffectiveLimits {
    /// Returns what these limits would be on this system, for this process.
    pub fn new(limits: &ServerLimits) -> Self {
        Self::in_force(&MemoryBudget::from_limits(limits), fd_limit::configured_connections(limits))
    }

    /// Returns the limits of a server with this budget.
    pub(super) fn in_force(memory: &MemoryBudget, max_connections: u32) -> Self {
        EffectiveLimits {
            max_memory: memory.process_limit(),
            max_held: memory.limit(),
            max_connections,
            open_files: fd_limit::open_files(),
        }
    }
}

impl fmt::Display for EffectiveLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EffectiveLimits { max_memory, max_held, max_connections, open_files } = self;
        match max_memory {
            Some(bytes) => write!(f, "max-memory {bytes}")?,
            None => f.write_str("max-memory not limited, as the memory of the system is not known")?,
        }
        write!(f, ", {max_held} of it for what clients make the server hold; ")?;
        write!(f, "max-connections {max_connections}, with {open_files} open files")
    }
}
