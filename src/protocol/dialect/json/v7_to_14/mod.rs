//! sigver 7 to 14: a key is opened or joined. Then `{"data":D}` is for the opener and `{"id":N,"data":D}` for
//! a joiner.
//!
//! While several releases are possible, one answer has the members that each of them looks for, and a message
//! that only some of them know is not sent. The answers of each release are measured on the Node.js servers.

mod capabilities;
mod decode;
mod encode;

use std::time::{Duration, Instant};

use bytestring::ByteString;

use self::capabilities::Capabilities;
use super::joiner_index::JoinerIndex;
use super::unanswered_joiners::UnansweredJoiners;
use super::{JsonClient, V6Codec};
use crate::protocol::dialect::json_errors::{JsonError, close};
use crate::protocol::dialect::keepalive::{KeepaliveDue, KeepaliveTimer};
use crate::protocol::dialect::{Dialect, Family, OutputSink, Release, ReleaseSet};
use crate::protocol::frame::Close;
use crate::protocol::model::{LinkId, Reason};

/// Time in which an [`OpenerConfirmation`] must arrive after the first message of a joiner.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for which the answer to a `{"key":K}` is withheld if it could harm the client: a joiner that joins by
/// then shows what its opener is. Below the timeouts of test suites, above that of netflux 0.10.3 (2 s).
const OPENER_ANSWER_DELAY: Duration = Duration::from_secs(4);

/// The joiner of the identity probe, which no room has.
const PROBE_JOINER: LinkId = LinkId(0);

const PING: &str = "{\"ping\":true}";
const PONG: &str = "{\"pong\":true}";

/// The codec of one connection.
#[derive(Debug)]
pub(in crate::protocol::dialect) struct V7To14Codec {
    capabilities: Capabilities,
    client: JsonClient,
    /// The key of the last request, for error texts that name it.
    key: ByteString,
    last_request: LastRequest,
    opened: bool,
    joined: bool,
    /// Indexes of the joiners, for an opener that may know them by index (7.0 and 7.1).
    joiners: Option<JoinerIndex>,
    /// All joiners, for a client that may be an opener of sigver 6.
    unanswered_joiners: Option<Box<UnansweredJoiners>>,
    opener_confirmation: OpenerConfirmation,
    /// The client was sent the identity probe.
    identity_probed: bool,
    keepalive: KeepaliveTimer,
}

/// The last request of a client.
#[derive(Clone, Copy, Debug, PartialEq)]
enum LastRequest {
    Open,
    Join,
}

/// Evidence that a client acts as the opener after it sent `join` and was answered `opened`. Clients of
/// sigver 9 do; those of 7.6 and 8 treat the answer as a refusal but stay connected.
#[derive(Clone, Copy, Debug, PartialEq)]
enum OpenerConfirmation {
    NotNeeded,
    /// Required, but no joiner has sent anything yet.
    Pending,
    /// A joiner waits for an answer until this time.
    PendingUntil(Instant),
    /// Not required, but the answer to a `{"key":K}` is due at this time: see [`OPENER_ANSWER_DELAY`].
    AnswerDueAt(Instant),
}

impl V7To14Codec {
    pub(in crate::protocol::dialect) fn new(
        releases: ReleaseSet,
        most_likely: Release,
        client: JsonClient,
    ) -> Self {
        let capabilities = Capabilities::new(releases.of_family(Family::Json), most_likely);
        V7To14Codec {
            capabilities,
            client,
            key: ByteString::new(),
            last_request: LastRequest::Join,
            opened: false,
            joined: false,
            joiners: capabilities.joiner_index.any.then(JoinerIndex::default),
            unanswered_joiners: capabilities.sigver_6.any.then(Box::default),
            opener_confirmation: OpenerConfirmation::NotNeeded,
            identity_probed: false,
            keepalive: KeepaliveTimer::new(capabilities.keepalive()),
        }
    }

    /// Starts the keepalive: sigver 13 sends a ping at once.
    pub(in crate::protocol::dialect) fn open(&mut self, opened: Instant, out: &mut dyn OutputSink) {
        if self.capabilities.pings_joiners.all {
            self.start_pings(opened, out);
        }
    }

    fn start_pings(&mut self, since: Instant, out: &mut dyn OutputSink) {
        if !self.keepalive.is_running() && self.keepalive.start(since) {
            out.static_text(PING);
        }
    }

    /// Narrows the releases that the client may speak. Returns the codec that replaces this one, if the
    /// client speaks sigver 6.
    pub(in crate::protocol::dialect) fn adopt(
        &mut self,
        releases: ReleaseSet,
        most_likely: Release,
        now: Instant,
        out: &mut dyn OutputSink,
    ) -> Option<V6Codec> {
        let had_pings = self.capabilities.pings.all;
        self.capabilities = Capabilities::new(releases, most_likely);
        if !self.capabilities.refuses_keys.any {
            self.opener_confirmation = OpenerConfirmation::NotNeeded;
        }
        if self.capabilities.pings.all && !had_pings {
            self.keepalive.set_policy(self.capabilities.keepalive());
            if self.opened || self.capabilities.pings_joiners.all {
                self.start_pings(now, out);
            }
        }
        let unanswered_joiners = self
            .unanswered_joiners
            .take_if(|_| self.capabilities.sigver_6.all || !self.capabilities.sigver_6.any);
        self.capabilities.sigver_6.all.then(|| V6Codec::from_opener(*unanswered_joiners.unwrap_or_default()))
    }

    pub(in crate::protocol::dialect) fn deadline(&self) -> Option<Instant> {
        let confirmation = match self.opener_confirmation {
            OpenerConfirmation::PendingUntil(at) | OpenerConfirmation::AnswerDueAt(at) => Some(at),
            OpenerConfirmation::NotNeeded | OpenerConfirmation::Pending => None,
        };
        self.keepalive.deadline().into_iter().chain(confirmation).min()
    }

    pub(in crate::protocol::dialect) fn poll(&mut self, now: Instant, out: &mut dyn OutputSink) {
        match self.opener_confirmation {
            OpenerConfirmation::PendingUntil(at) if at <= now => {
                self.opener_confirmation = OpenerConfirmation::NotNeeded;
                // The server of a client that does not answer would have refused the key at once.
                let release = self.capabilities.refusing_release.unwrap_or(self.capabilities.most_likely);
                return out.close(close(release, JsonError::KeyUnknown(&self.key)));
            }
            OpenerConfirmation::AnswerDueAt(at) if at <= now => {
                self.opener_confirmation = OpenerConfirmation::NotNeeded;
                if let Some(probe) = self.identity_probe() {
                    out.send(probe);
                }
            }
            OpenerConfirmation::NotNeeded
            | OpenerConfirmation::Pending
            | OpenerConfirmation::PendingUntil(_)
            | OpenerConfirmation::AnswerDueAt(_) => {}
        }
        match self.keepalive.poll(now) {
            None => {}
            Some(KeepaliveDue::SendPing) => out.static_text(PING),
            Some(KeepaliveDue::Close | KeepaliveDue::SendPingThenClose) => {
                out.close(self.close_for(&Reason::Unresponsive))
            }
        }
    }

    fn close_for(&self, reason: &Reason) -> Close {
        close(self.close_release(reason), JsonError::from_reason(reason, &self.key))
    }

    /// Returns the release in whose form the reason is reported. A key that is free is one of 7.0, unless 7.1
    /// is configured: its clients of 2016 check the code, later ones do not (measured).
    fn close_release(&self, reason: &Reason) -> Release {
        let most_likely = self.capabilities.most_likely;
        if *reason == Reason::KeyUnknown && most_likely.dialect() == Dialect::Sigver7 && !self.client.pinned {
            return Release::V7_0_0;
        }
        most_likely
    }
}
