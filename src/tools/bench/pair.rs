//! A member and a joiner that are linked, and the messages they exchange.

use std::time::Duration;

use tokio::time::sleep;

use super::bench_client::BenchClient;
use super::error::Error;
use crate::protocol::dialect::Dialect;
use crate::tools::client::dialects::{JoinerId, Role};
use crate::tools::client::message::{MessageKind, TestMessage};
use crate::tools::client::protocol::Protocol;
use crate::tools::client::random_key;
use crate::tools::dial::Target;

/// Time in which the client that opened a room at another node has left it.
const OPENER_LEAVES: Duration = Duration::from_millis(200);

/// A member and its joiner.
pub(crate) struct Pair {
    /// The member.
    pub(crate) member: BenchClient,
    /// The joiner.
    pub(crate) joiner: BenchClient,
    /// The joiner's id at the member, once known.
    pub(crate) id: Option<JoinerId>,
}

/// Messages of members and joiners.
#[derive(Clone, Debug)]
pub(crate) struct PairMessages {
    /// From joiner to member.
    pub(crate) up: TestMessage,
    /// From member to joiner.
    pub(crate) down: TestMessage,
}

impl PairMessages {
    /// Returns contents of `bytes` bytes that need no translation between clients of one dialect.
    pub(crate) fn opaque(member: Protocol, joiner: Protocol, bytes: usize) -> Result<PairMessages, Error> {
        meet(member, joiner)?;
        for protocol in [member, joiner] {
            let why = match protocol {
                Protocol::Sigver(Dialect::Sigver6) => "it relays one offer and one answer only",
                _ => continue,
            };
            return Err(Error::Unsupported { protocol, why });
        }
        let binary = !member.is_json() && !joiner.is_json();
        let of = |protocol| match protocol {
            // These dialects relay only offers and candidates.
            Protocol::Sigver(Dialect::Sigver1 | Dialect::Sigver4) => MessageKind::Offer,
            _ if binary => MessageKind::Bytes,
            _ => MessageKind::Json,
        };
        let sized = |protocol| TestMessage::with_size(of(protocol), bytes);
        Ok(PairMessages { up: sized(joiner), down: sized(member) })
    }

    /// Returns an offer and an answer, or the nearest a dialect has.
    pub(crate) fn negotiation(member: Protocol, joiner: Protocol) -> Result<PairMessages, Error> {
        meet(member, joiner)?;
        let down = match member {
            Protocol::Sigver(Dialect::Sigver1 | Dialect::Sigver4) => MessageKind::Offer,
            _ => MessageKind::Answer,
        };
        Ok(PairMessages {
            up: TestMessage::new(MessageKind::Offer, "bench"),
            down: TestMessage::new(down, "bench"),
        })
    }
}

fn meet(member: Protocol, joiner: Protocol) -> Result<(), Error> {
    match member.is_compatible_with(joiner) {
        true => Ok(()),
        false => Err(Error::Unsupported {
            protocol: Protocol::Signaller,
            why: "a signaller pipe links signaller clients only",
        }),
    }
}

/// Addresses of a pair's servers.
#[derive(Clone, Debug)]
pub(crate) struct PairTargets {
    /// That of the member.
    pub(crate) member: Target,
    /// That of the joiner.
    pub(crate) joiner: Target,
    /// That of the node that has the room, if another than the member's.
    pub(crate) room: Option<Target>,
}

impl From<&Target> for PairTargets {
    fn from(target: &Target) -> Self {
        PairTargets { member: target.clone(), joiner: target.clone(), room: None }
    }
}

impl Pair {
    /// Connects a member, in a room of its own, and a joiner. In a dialect that joins with data, `first` is
    /// sent and received.
    pub(crate) async fn bind(
        targets: &PairTargets,
        member: Protocol,
        joiner: Protocol,
        first: &TestMessage,
    ) -> Result<Pair, Error> {
        let key = random_key();
        // A room is at the node of its first client, for as long as it has clients.
        let opener = match &targets.room {
            Some(node) => Some(connect_client(node, member, Role::Member, &key, None).await?),
            None => None,
        };
        let member = connect_client(&targets.member, member, Role::Member, &key, None).await?;
        if let Some(opener) = opener {
            opener.leave().await?;
            // No event reports to the member that the other has left.
            sleep(OPENER_LEAVES).await;
        }
        let joins_with_data = joiner.capabilities().joins_with_data;
        let joiner =
            connect_client(&targets.joiner, joiner, Role::Joiner, &key, joins_with_data.then_some(first))
                .await?;
        let mut pair = Pair { member, joiner, id: None };
        if joins_with_data {
            pair.arrive().await?;
        }
        Ok(pair)
    }

    /// Waits until the member receives the joiner's message.
    async fn arrive(&mut self) -> Result<(), Error> {
        let sender = self
            .member
            .message("message of the joiner")
            .await
            .map_err(|error| error.in_context("a member"))?;
        // If no message names the joiner, its position does.
        self.id =
            sender.or(self.member.protocol.capabilities().addresses_joiner.then(|| JoinerId::from_number(0)));
        Ok(())
    }

    /// Sends a message from the joiner and an answer from the member.
    pub(crate) async fn exchange(&mut self, messages: &PairMessages) -> Result<(), Error> {
        let frame = self.joiner.frame(None, &messages.up)?;
        self.joiner.write(&frame).await.map_err(|error| error.in_context("a joiner"))?;
        self.arrive().await?;
        self.answer(&messages.down).await
    }

    /// Sends an answer from the member.
    pub(crate) async fn answer(&mut self, down: &TestMessage) -> Result<(), Error> {
        let frame = self.member.frame(self.id.as_ref(), down)?;
        self.member.write(&frame).await.map_err(|error| error.in_context("a member"))?;
        self.joiner.message("message of the member").await.map_err(|error| error.in_context("a joiner"))?;
        Ok(())
    }
}

/// Connects a client and waits until it is member or joiner, by its `role`.
pub(crate) async fn connect_client(
    target: &Target,
    protocol: Protocol,
    role: Role,
    key: &str,
    first: Option<&TestMessage>,
) -> Result<BenchClient, Error> {
    let name = if role == Role::Member { "a member" } else { "a joiner" };
    let in_context = |error: Error| error.in_context(name);
    let mut client = BenchClient::open(target, protocol, role, key).await.map_err(in_context)?;
    client.begin(first).await.map_err(in_context)?;
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(name: &str) -> Protocol {
        Protocol::from_name(name).unwrap()
    }

    #[test]
    fn contents_suit_both_dialects() {
        let shapes = |member, joiner| {
            let messages = PairMessages::opaque(protocol(member), protocol(joiner), 64).unwrap();
            (messages.up.kind, messages.down.kind)
        };
        assert_eq!(shapes("sigver-20", "sigver-15"), (MessageKind::Bytes, MessageKind::Bytes));
        assert_eq!(shapes("sigver-20", "sigver-5"), (MessageKind::Json, MessageKind::Json));
        assert_eq!(shapes("sigver-1", "sigver-8"), (MessageKind::Json, MessageKind::Offer));
    }

    #[test]
    fn incapable_dialects_are_rejected() {
        let refused = |member, joiner| {
            PairMessages::opaque(protocol(member), protocol(joiner), 64).unwrap_err().to_string()
        };
        assert!(refused("sigver-6", "sigver-20").starts_with("sigver-6 cannot do this: it relays one offer"));
        assert!(refused("sigver-20", "signaller").contains("links signaller clients only"));
        assert!(PairMessages::negotiation(protocol("sigver-6"), protocol("sigver-6")).is_ok());
    }
}
