//! Actions that the state of a node asks for.

use super::{Claim, Generation};

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action<N> {
    /// Send a claim to the engine.
    Claim {
        /// The name.
        name: N,
        /// The claim.
        claim: Claim,
        /// The claim that it replaces, as the lease of its node has expired.
        over: Option<Claim>,
        /// The data that the claim is for.
        generation: Generation,
    },
    /// Send the engine that a name is free.
    Release {
        /// The name.
        name: N,
        /// The claim to it.
        claim: Claim,
        /// The data that the claim is in.
        generation: Generation,
    },
    /// Ask the linked nodes which of them has the name, as the engine does not answer.
    Ask(N),
    /// Renew the lease at once.
    Renew,
    /// The place of a name that was unknown may be known.
    Found(N),
    /// The name is lost: close its room.
    Close(N, LossCause),
}

/// The cause for which a name is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LossCause {
    /// The lease had lapsed.
    Lapsed,
    /// The engine has other data, and was not sent the claim in time.
    Forgotten,
    /// Another node has the name.
    Taken,
}
