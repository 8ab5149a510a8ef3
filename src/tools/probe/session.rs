//! Two clients of one dialect on a server: whether they meet, and reach one another. It says nothing that harms an
//! original: who joins does so only when the key is known to be open, and nothing is sent to who has left.

use std::time::Duration;

use tokio::time::sleep;

use crate::tools::client::dialects::{ClientEvent, Id, Role};
use crate::tools::client::message::{Delivery, MessageKind, TestMessage};
use crate::tools::client::peer::Peer;
use crate::tools::client::protocol::Protocol;
use crate::tools::client::target::Target;
use crate::tools::matrix::pair_test::random_key;

/// How long each step may take.
const STEP: Duration = Duration::from_secs(3);
/// How long a server may take to close a connection whose first word it does not understand.
const SECOND_THOUGHTS: Duration = Duration::from_millis(250);

/// Lets two clients talk; why they cannot.
///
/// # Errors
///
/// Why they cannot.
pub async fn attempt(target: &Target, tongue: Protocol) -> Result<(), String> {
    let key = random_key();
    let words = tongue.words();
    let mut member = connect(target, tongue, Role::Member, &key, None).await?;
    let admitted = match words.admits && tongue != Protocol::Signaller {
        true => heard(&mut member, &ClientEvent::Member).await,
        false => member.fence(STEP).await,
    };
    sleep(SECOND_THOUGHTS).await;
    member.catch_up();
    if let Some(closed) = member.closed() {
        return Err(format!("the first is {closed}"));
    }
    if !admitted {
        return Err("the first hears nothing".to_owned());
    }
    let first = words.joins_with_data.then(|| TestMessage::new(MessageKind::Offer, &key));
    let mut joiner = connect(target, tongue, Role::Joiner, &key, first.as_ref()).await?;
    let done = talk(&mut member, &mut joiner, first, &key).await;
    // The joiner first: some originals let a joiner that remains die of its next word.
    joiner.leave(STEP).await;
    member.leave(STEP).await;
    done
}

async fn connect(
    target: &Target,
    tongue: Protocol,
    role: Role,
    key: &str,
    first: Option<&TestMessage>,
) -> Result<Peer, String> {
    Peer::connect(target, tongue, role, key, first).await.map_err(|error| error.to_string())
}

async fn heard(peer: &mut Peer, expected: &ClientEvent) -> bool {
    let end = |heard: &ClientEvent| (heard == expected || is_end(heard)).then(|| heard == expected);
    peer.until(STEP, end).await.unwrap_or(false)
}

fn is_end(heard: &ClientEvent) -> bool {
    matches!(heard, ClientEvent::Closed(..) | ClientEvent::Refused(_) | ClientEvent::Strange(_))
}

async fn talk(
    member: &mut Peer,
    joiner: &mut Peer,
    first: Option<TestMessage>,
    key: &str,
) -> Result<(), String> {
    let words = member.tongue.words();
    if words.binds && !heard(joiner, &ClientEvent::Bound).await {
        return Err("the second is not told that it is bound".to_owned());
    }
    if words.announces && !heard(member, &ClientEvent::Arrival).await {
        return Err("the first is not told of the second".to_owned());
    }
    let offer = match first {
        Some(offer) => offer,
        None => {
            let offer = TestMessage::new(MessageKind::Offer, key);
            joiner.say(None, &offer);
            offer
        }
    };
    let Some((id, Delivery::Intact)) = member.receive(&offer, STEP).await else {
        return Err("what the second says does not reach the first".to_owned());
    };
    // Without an id it is the only one.
    let id = id.or(words.addresses.then(|| Id::number(0)));
    let id = id.filter(|_| member.tongue != Protocol::Signaller);
    let answers = [TestMessage::new(MessageKind::Answer, key), TestMessage::new(MessageKind::Offer, key)];
    let said = answers.into_iter().find(|answer| member.say(id.as_ref(), answer));
    let said = said.ok_or("the first has no words for an answer")?;
    let Some((_, Delivery::Intact)) = joiner.receive(&said, STEP).await else {
        return Err("what the first says does not reach the second".to_owned());
    };
    if words.beats_member && is_v15(member.tongue) && !heard(member, &ClientEvent::Beat).await {
        return Err("the first is not pinged at once".to_owned());
    }
    Ok(())
}

/// Only these are pinged at once, and not after five seconds.
fn is_v15(tongue: Protocol) -> bool {
    use crate::protocol::dialect::Dialect;
    matches!(tongue, Protocol::Sigver(Dialect::Sigver15 | Dialect::Sigver15_1))
}
