//! The negative control of the matrix: a joiner without a member.

use super::expect::EVENT_TIMEOUT;
use super::result::{PairId, PairResult, Verdict};
use crate::tools::client::dialects::{ClientEvent, Role};
use crate::tools::client::message::{MessageKind, TestMessage};
use crate::tools::client::peer::{SyntheticPeer, close_text};
use crate::tools::client::protocol::Protocol;
use crate::tools::client::random_key;
use crate::tools::dial::{ConnectError, Target, error_chain};

/// Runs the negative control: a joiner of a room without a member must be rejected, or become the member.
pub(super) async fn control(target: &Target, joiner: Protocol) -> PairResult {
    let first = TestMessage::new(MessageKind::Offer, "control");
    let peer = SyntheticPeer::connect(target, joiner, Role::Joiner, &random_key(), Some(&first)).await;
    let answer = match peer {
        Err(ConnectError::Status(status)) if joiner == Protocol::Signaller => Ok(format!("HTTP {status}")),
        Err(error) => Err(error_chain(&error)),
        Ok(mut peer) => {
            let answer = |event: &ClientEvent| match event {
                ClientEvent::BecameMember => Some(Ok("becomes the member".to_owned())),
                ClientEvent::Rejected(reason) => Some(Ok(format!("rejected: {reason}"))),
                ClientEvent::Closed(code, reason) => Some(Ok(close_text(*code, reason))),
                ClientEvent::LinkedToMember => Some(Err("linked to a member that does not exist".to_owned())),
                _ => None,
            };
            let nothing = || Err("neither rejected nor made the member".to_owned());
            peer.wait_for(EVENT_TIMEOUT, answer).await.unwrap_or_else(nothing)
        }
    };
    let (verdict, answer) = match answer {
        Ok(answer) => (Verdict::Ok, Some(answer)),
        Err(reason) => (Verdict::Failed { reason }, None),
    };
    PairResult { pair: PairId { member: None, joiner }, verdict, answer }
}
