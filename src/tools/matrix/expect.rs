//! Waiting for the events that a client of a pair must receive.

use std::time::Duration;

use crate::tools::client::dialects::{ClientEvent, JoinerId};
use crate::tools::client::peer::{SyntheticPeer, close_text};

/// Time limit of an event that must happen: a gateway may hold messages for a silent member for some seconds.
pub(super) const EVENT_TIMEOUT: Duration = Duration::from_secs(8);
/// Time limit of the notice of a departure or of an end.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(3);

/// The event that a client received in place of the expected one.
pub(super) struct Unconfirmed(pub(super) String);

/// Waits for an event that confirms the client's role.
pub(super) async fn expect(peer: &mut SyntheticPeer, expected: &ClientEvent) -> Result<(), Unconfirmed> {
    let answer = |event: &ClientEvent| match event {
        event if event == expected => Some(Ok(())),
        ClientEvent::BecameMember => Some(Err("made the member".to_owned())),
        ClientEvent::LinkedToMember => Some(Err("linked to another client".to_owned())),
        ClientEvent::Rejected(reason) => Some(Err(format!("rejected: {reason}"))),
        ClientEvent::Unexpected(what) => Some(Err(format!("receives something unexpected: {what}"))),
        ClientEvent::Closed(code, reason) => Some(Err(close_text(*code, reason))),
        _ => None,
    };
    let answer = peer.wait_for(EVENT_TIMEOUT, answer).await;
    answer.unwrap_or_else(|| Err("not answered".to_owned())).map_err(Unconfirmed)
}

/// Waits until the server has read the request of a client that receives no confirmation.
pub(super) async fn expect_sync(peer: &mut SyntheticPeer) -> Result<(), Unconfirmed> {
    match peer.sync(EVENT_TIMEOUT).await {
        true => Ok(()),
        false => Err(Unconfirmed(peer.close_text().unwrap_or_else(|| "not answered".to_owned()))),
    }
}

pub(super) fn sender_of_end(event: &ClientEvent) -> Option<Option<&JoinerId>> {
    match event {
        ClientEvent::End { from } => Some(from.as_ref()),
        _ => None,
    }
}

/// Returns the client that has left; a close of the own connection counts, too.
pub(super) fn departed_client(event: &ClientEvent) -> Option<Option<&JoinerId>> {
    match event {
        ClientEvent::PeerLeft { from } => Some(from.as_ref()),
        ClientEvent::Closed(..) => Some(None),
        _ => None,
    }
}

/// Returns true if `peer` receives an event of which `from` returns a client that `matches`.
pub(super) async fn is_notified(
    peer: &mut SyntheticPeer,
    matches: impl Fn(Option<&JoinerId>) -> bool,
    from: fn(&ClientEvent) -> Option<Option<&JoinerId>>,
) -> bool {
    let notice = |event: &ClientEvent| from(event).filter(|from| matches(*from)).map(|_| ());
    peer.wait_for(NOTICE_TIMEOUT, notice).await.is_some()
}
