//! Tries whether two clients of one protocol can meet on a server, and reach one another. It sends nothing
//! that harms a Node.js server: a joiner joins only when the room is known to be open, and nothing is sent to
//! a client that left.

use std::time::Duration;

use thiserror::Error;
use tokio::time::sleep;

use crate::protocol::dialect::Dialect;
use crate::tools::client::dialects::{ClientEvent, JoinerId, Role};
use crate::tools::client::message::{Delivery, MessageKind, TestMessage};
use crate::tools::client::peer::SyntheticPeer;
use crate::tools::client::protocol::Protocol;
use crate::tools::client::random_key;
use crate::tools::dial::{ConnectError, Target};

/// Time limit of each step.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);
/// Time after which a server has closed a connection whose first message it does not understand.
const REJECTION_DELAY: Duration = Duration::from_millis(250);

/// The reason why two clients cannot meet.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum SessionError {
    /// A client cannot connect.
    #[error("cannot connect")]
    Connect(#[from] ConnectError),
    /// The first client was closed.
    #[error("the first is {0}")]
    Closed(String),
    /// The first client's request is not answered.
    #[error("the first receives nothing")]
    NotAnswered,
    /// The second client receives no confirmation.
    #[error("the second is not linked to the first")]
    NotLinked,
    /// The first client is not notified of the second.
    #[error("the first is not notified of the second")]
    NotAnnounced,
    /// The second client's message does not arrive.
    #[error("messages of the second do not reach the first")]
    OfferLost,
    /// The first client's protocol has no answers.
    #[error("the first cannot answer")]
    CannotAnswer,
    /// The first client's answer does not arrive.
    #[error("messages of the first do not reach the second")]
    AnswerLost,
    /// The first client receives no ping.
    #[error("the first is not pinged at once")]
    NotPinged,
}

/// Lets two clients of one protocol exchange a message in each direction.
pub(crate) async fn attempt(target: &Target, protocol: Protocol) -> Result<(), SessionError> {
    let key = random_key();
    let capabilities = protocol.capabilities();
    let mut member = SyntheticPeer::connect(target, protocol, Role::Member, &key, None).await?;
    let admitted = match capabilities.confirms_member && protocol != Protocol::Signaller {
        true => receives(&mut member, &ClientEvent::BecameMember).await,
        false => member.sync(STEP_TIMEOUT).await,
    };
    sleep(REJECTION_DELAY).await;
    member.drain_events();
    if let Some(how) = member.close_text() {
        return Err(SessionError::Closed(how));
    }
    if !admitted {
        return Err(SessionError::NotAnswered);
    }
    let first = capabilities.joins_with_data.then(|| TestMessage::new(MessageKind::Offer, &key));
    let mut joiner = SyntheticPeer::connect(target, protocol, Role::Joiner, &key, first.as_ref()).await?;
    let result = exchange(&mut member, &mut joiner, first, &key).await;
    // The joiner leaves first: some Node.js servers crash on the next message of a joiner whose member has
    // left.
    joiner.leave(STEP_TIMEOUT).await;
    member.leave(STEP_TIMEOUT).await;
    result
}

/// Returns true if `peer` receives this event before its connection or its request ends.
async fn receives(peer: &mut SyntheticPeer, expected: &ClientEvent) -> bool {
    let end = |event: &ClientEvent| (event == expected || is_end(event)).then(|| event == expected);
    peer.wait_for(STEP_TIMEOUT, end).await.unwrap_or(false)
}

fn is_end(event: &ClientEvent) -> bool {
    matches!(event, ClientEvent::Closed(..) | ClientEvent::Rejected(_) | ClientEvent::Unexpected(_))
}

async fn exchange(
    member: &mut SyntheticPeer,
    joiner: &mut SyntheticPeer,
    first: Option<TestMessage>,
    key: &str,
) -> Result<(), SessionError> {
    let capabilities = member.protocol.capabilities();
    if capabilities.confirms_joiner && !receives(joiner, &ClientEvent::LinkedToMember).await {
        return Err(SessionError::NotLinked);
    }
    if capabilities.announces_joiner && !receives(member, &ClientEvent::JoinerArrived).await {
        return Err(SessionError::NotAnnounced);
    }
    let offer = match first {
        Some(offer) => offer,
        None => {
            let offer = TestMessage::new(MessageKind::Offer, key);
            joiner.send(None, &offer);
            offer
        }
    };
    let Some((id, Delivery::Intact)) = member.receive(&offer, STEP_TIMEOUT).await else {
        return Err(SessionError::OfferLost);
    };
    // A joiner that no frame names is the only one.
    let id = id.or(capabilities.addresses_joiner.then(|| JoinerId::from_number(0)));
    let id = id.filter(|_| member.protocol != Protocol::Signaller);
    let answers = [TestMessage::new(MessageKind::Answer, key), TestMessage::new(MessageKind::Offer, key)];
    let sent = answers.into_iter().find(|answer| member.send(id.as_ref(), answer));
    let sent = sent.ok_or(SessionError::CannotAnswer)?;
    let Some((_, Delivery::Intact)) = joiner.receive(&sent, STEP_TIMEOUT).await else {
        return Err(SessionError::AnswerLost);
    };
    // Other heartbeats are due after five seconds.
    let is_pinged_at_once =
        matches!(member.protocol, Protocol::Sigver(Dialect::Sigver15 | Dialect::Sigver15_1));
    if is_pinged_at_once && !receives(member, &ClientEvent::HeartbeatRequest).await {
        return Err(SessionError::NotPinged);
    }
    Ok(())
}
