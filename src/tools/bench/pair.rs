//! A member and a joiner that are bound to one another, and what they send. What is measured with them is elsewhere.

use super::bench_client::BenchClient;
use super::error::Error;
use crate::protocol::dialect::Dialect;
use crate::tools::client::dialects::{JoinerId, Role};
use crate::tools::client::message::{MessageKind, TestMessage};
use crate::tools::client::protocol::Protocol;
use crate::tools::client::random_key;
use crate::tools::dial::Target;

/// A member and its joiner.
pub struct Pair {
    /// The member.
    pub member: BenchClient,
    /// The joiner.
    pub joiner: BenchClient,
    /// What the member calls the joiner, once it is told.
    pub id: Option<JoinerId>,
}

/// What members and joiners send.
#[derive(Clone, Debug)]
pub struct Parcels {
    /// To the member.
    pub up: TestMessage,
    /// To the joiner.
    pub down: TestMessage,
}

impl Parcels {
    /// Contents of this size, which no server needs to translate if the two speak the same dialect.
    ///
    /// # Errors
    ///
    /// When a dialect has no words for one after the other, or the two cannot meet.
    pub fn opaque(member: Protocol, joiner: Protocol, bytes: usize) -> Result<Parcels, Error> {
        meet(member, joiner)?;
        for tongue in [member, joiner] {
            let why = match tongue {
                Protocol::Sigver(Dialect::Sigver6) => {
                    "it has words for one offer and one answer, and nothing else"
                }
                _ => continue,
            };
            return Err(Error::Cannot { tongue, why });
        }
        let binary = !member.is_json() && !joiner.is_json();
        let of = |tongue| match tongue {
            // Nothing but what is called an offer, or a candidate, has words.
            Protocol::Sigver(Dialect::Sigver1 | Dialect::Sigver4) => MessageKind::Offer,
            _ if binary => MessageKind::Bytes,
            _ => MessageKind::Json,
        };
        let sized = |tongue| TestMessage::with_size(of(tongue), bytes);
        Ok(Parcels { up: sized(joiner), down: sized(member) })
    }

    /// An offer and an answer, or what is nearest to one.
    ///
    /// # Errors
    ///
    /// When the two cannot meet.
    pub fn negotiation(member: Protocol, joiner: Protocol) -> Result<Parcels, Error> {
        meet(member, joiner)?;
        let down = match member {
            Protocol::Sigver(Dialect::Sigver1 | Dialect::Sigver4) => MessageKind::Offer,
            _ => MessageKind::Answer,
        };
        Ok(Parcels {
            up: TestMessage::new(MessageKind::Offer, "bench"),
            down: TestMessage::new(down, "bench"),
        })
    }
}

fn meet(member: Protocol, joiner: Protocol) -> Result<(), Error> {
    match member.is_compatible_with(joiner) {
        true => Ok(()),
        false => {
            Err(Error::Cannot { tongue: Protocol::Signaller, why: "the relay carries none but its own" })
        }
    }
}

impl Pair {
    /// A member in a room of its own, and a joiner. If its dialect joins with data, `first` is sent, and has come.
    ///
    /// # Errors
    ///
    /// When the server does not bind them.
    pub async fn bind(
        target: &Target,
        member: Protocol,
        joiner: Protocol,
        first: &TestMessage,
    ) -> Result<Pair, Error> {
        let key = random_key();
        let member = seat(target, member, Role::Member, &key, None).await?;
        let joins_with_data = joiner.capabilities().joins_with_data;
        let joiner = seat(target, joiner, Role::Joiner, &key, joins_with_data.then_some(first)).await?;
        let mut pair = Pair { member, joiner, id: None };
        if joins_with_data {
            pair.arrive().await?;
        }
        Ok(pair)
    }

    /// Waits at the member for what the joiner has sent.
    async fn arrive(&mut self) -> Result<(), Error> {
        let told = self.member.parcel("what the joiner sends").await.map_err(|error| error.of("a member"))?;
        // If nothing names the joiner, it is known by its place.
        self.id =
            told.or(self.member.tongue.capabilities().addresses_joiner.then(|| JoinerId::from_number(0)));
        Ok(())
    }

    /// The joiner sends something, and the member answers.
    ///
    /// # Errors
    ///
    /// When something does not come.
    pub async fn exchange(&mut self, parcels: &Parcels) -> Result<(), Error> {
        let frame = self.joiner.frame(None, &parcels.up)?;
        self.joiner.write(&frame).await.map_err(|error| error.of("a joiner"))?;
        self.arrive().await?;
        self.answer(&parcels.down).await
    }

    /// The member answers.
    ///
    /// # Errors
    ///
    /// When it does not come.
    pub async fn answer(&mut self, down: &TestMessage) -> Result<(), Error> {
        let frame = self.member.frame(self.id.as_ref(), down)?;
        self.member.write(&frame).await.map_err(|error| error.of("a member"))?;
        self.joiner.parcel("what the member sends").await.map_err(|error| error.of("a joiner"))?;
        Ok(())
    }
}

/// A client that is what it wants to be.
///
/// # Errors
///
/// When the server does not let it be that.
pub async fn seat(
    target: &Target,
    tongue: Protocol,
    role: Role,
    key: &str,
    first: Option<&TestMessage>,
) -> Result<BenchClient, Error> {
    let whose = if role == Role::Member { "a member" } else { "a joiner" };
    let of = |error: Error| error.of(whose);
    let mut seat = BenchClient::open(target, tongue, role, key).await.map_err(of)?;
    seat.begin(first).await.map_err(of)?;
    Ok(seat)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tongue(name: &str) -> Protocol {
        Protocol::from_name(name).unwrap()
    }

    #[test]
    fn contents_are_what_both_have_words_for() {
        let shapes = |member, joiner| {
            let parcels = Parcels::opaque(tongue(member), tongue(joiner), 64).unwrap();
            (parcels.up.kind, parcels.down.kind)
        };
        assert_eq!(shapes("sigver-20", "sigver-15"), (MessageKind::Bytes, MessageKind::Bytes));
        assert_eq!(shapes("sigver-20", "sigver-5"), (MessageKind::Json, MessageKind::Json));
        assert_eq!(shapes("sigver-1", "sigver-8"), (MessageKind::Json, MessageKind::Offer));
    }

    #[test]
    fn who_cannot_is_refused() {
        let refused =
            |member, joiner| Parcels::opaque(tongue(member), tongue(joiner), 64).unwrap_err().to_string();
        assert!(
            refused("sigver-6", "sigver-20")
                .starts_with("sigver-6 cannot do this: it has words for one offer")
        );
        assert!(refused("sigver-20", "signaller").contains("none but its own"));
        assert!(Parcels::negotiation(tongue("sigver-6"), tongue("sigver-6")).is_ok());
    }
}
