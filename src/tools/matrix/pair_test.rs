//! Runs one member and two joiners through every operation that both protocols support, and records what was
//! lost or altered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::time::sleep;

use super::expect::{
    EVENT_TIMEOUT, Unconfirmed, departed_client, expect, expect_sync, is_notified, sender_of_end,
};
use super::result::{PairId, PairResult, Verdict};
use crate::tools::client::dialects::{ClientEvent, JoinerId, Role};
use crate::tools::client::message::{Delivery, MessageKind, TestMessage};
use crate::tools::client::peer::SyntheticPeer;
use crate::tools::client::protocol::{DepartureNotice, Protocol};
use crate::tools::client::random_key;
use crate::tools::dial::{ConnectError, Target, error_chain};

/// Time limit of a message that may be lost, after others that were sent with it have arrived.
const LOSS_TIMEOUT: Duration = Duration::from_millis(1500);

/// Options of the measurement of a pair.
#[derive(Clone, Copy, Debug)]
pub struct PairOptions {
    /// Duration for which the connections are held before the second part, so that heartbeats arrive.
    pub hold: Duration,
}

impl Default for PairOptions {
    fn default() -> Self {
        // The first heartbeats are due after five seconds.
        PairOptions { hold: Duration::from_millis(5800) }
    }
}

/// The reason why a pair does not work together.
#[derive(Debug, Error)]
enum PairError {
    #[error("the {client} cannot connect")]
    Connect { client: &'static str, source: ConnectError },
    #[error("the {client} is not {expected}, but {found}")]
    NotConfirmed { client: &'static str, expected: &'static str, found: String },
    #[error("the member is not notified of the joiner")]
    NotAnnounced,
    #[error("both joiners have the same id")]
    SharedId,
    #[error("messages for one joiner reach the other, too")]
    Misdelivered,
    #[error("the {client} is {how} {during}")]
    Closed { client: &'static str, how: String, during: &'static str },
    #[error("no message of the {} reaches the {}", .0.sender(), .0.receiver())]
    Unreachable(Direction),
    #[error("the {client} receives something unexpected: {what}")]
    Unexpected { client: &'static str, what: String },
    #[error("two connectors share one listener")]
    TwoConnectors,
    #[error("{phase}")]
    During { phase: &'static str, source: Box<PairError> },
}

impl PairError {
    /// Returns a function that adds the phase of the measurement to an error.
    fn during(phase: &'static str) -> impl FnOnce(PairError) -> PairError {
        move |source| PairError::During { phase, source: Box::new(source) }
    }
}

/// Measures how well a member of one protocol and joiners of another work together.
pub(crate) async fn measure(
    target: &Target,
    member: Protocol,
    joiner: Protocol,
    options: PairOptions,
) -> PairResult {
    let mut run = PairRun { key: random_key(), losses: Vec::new(), messages: BTreeMap::new(), markers: 0 };
    let finished = match member {
        Protocol::Signaller => run.run_signaller(target).await,
        Protocol::Sigver(_) => run.run(target, member, joiner, options).await,
    };
    let verdict = match (finished, run.losses()) {
        (Err(error), _) => Verdict::Failed { reason: error_chain(&error) },
        (Ok(()), losses) if losses.is_empty() => Verdict::Ok,
        (Ok(()), losses) => Verdict::Degraded { losses },
    };
    PairResult { pair: PairId { member: Some(member), joiner }, verdict, answer: None }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    ToMember,
    ToJoiner,
}

impl Direction {
    fn sender(self) -> &'static str {
        match self {
            Direction::ToMember => "joiner",
            Direction::ToJoiner => "member",
        }
    }

    fn receiver(self) -> &'static str {
        match self {
            Direction::ToMember => "member",
            Direction::ToJoiner => "joiner",
        }
    }
}

/// One pair while it is measured.
struct PairRun {
    key: String,
    losses: Vec<String>,
    /// Kinds of messages that did not arrive intact.
    messages: BTreeMap<(Direction, Delivery), Vec<MessageKind>>,
    /// Number of markers used so far.
    markers: u32,
}

/// Kinds of the messages that were sent, with sender and delivery of those that arrived.
type Deliveries = Vec<(MessageKind, Option<(Option<JoinerId>, Delivery)>)>;

impl PairRun {
    fn message(&mut self, kind: MessageKind) -> TestMessage {
        self.markers += 1;
        TestMessage::new(kind, &format!("{}-{}-", self.key, self.markers))
    }

    fn add_loss(&mut self, loss: impl Into<String>) {
        let loss = loss.into();
        if !self.losses.contains(&loss) {
            self.losses.push(loss);
        }
    }

    /// Returns all losses, in a fixed order and without anything that differs from run to run.
    fn losses(&self) -> Vec<String> {
        let messages = self.messages.iter().map(|((direction, delivery), kinds)| {
            let delivery = match delivery {
                Delivery::Lost => "lost",
                Delivery::KindLost => "without its kind",
                Delivery::Altered | Delivery::Intact => "altered",
            };
            let kinds: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            format!("to the {}: {} {delivery}", direction.receiver(), kinds.join(", "))
        });
        messages.chain(self.losses.iter().cloned()).collect()
    }

    /// Sends messages of these kinds, as far as the protocol can express them, after those in `sent`, and
    /// waits for all of them. At least one must arrive.
    async fn exchange(
        &mut self,
        from: &SyntheticPeer,
        to: &mut SyntheticPeer,
        direction: Direction,
        id: Option<&JoinerId>,
        mut sent: Vec<TestMessage>,
        kinds: &[MessageKind],
    ) -> Result<Deliveries, PairError> {
        for kind in kinds {
            let message = self.message(*kind);
            if from.send(id, &message) {
                sent.push(message);
            }
        }
        let mut deliveries = Deliveries::new();
        // Messages that are sent together arrive together, if they arrive at all.
        let mut deadline = Instant::now() + EVENT_TIMEOUT;
        for message in &sent {
            let delivery = to.receive(message, deadline.saturating_duration_since(Instant::now())).await;
            if delivery.is_some() {
                deadline = Instant::now() + LOSS_TIMEOUT;
            }
            deliveries.push((message.kind, delivery));
            if let Some(how) = to.close_text() {
                let during = match direction {
                    Direction::ToMember => "when the joiner sends",
                    Direction::ToJoiner => "when the member sends",
                };
                return Err(PairError::Closed { client: direction.receiver(), how, during });
            }
        }
        if !deliveries.is_empty() && deliveries.iter().all(|(_, delivery)| delivery.is_none()) {
            return Err(PairError::Unreachable(direction));
        }
        Ok(deliveries)
    }

    /// Records the messages that did not arrive intact.
    fn record(&mut self, direction: Direction, deliveries: &Deliveries) {
        for (kind, delivery) in deliveries {
            let delivery = delivery.as_ref().map_or(Delivery::Lost, |(_, delivery)| *delivery);
            if delivery != Delivery::Intact {
                let kinds = self.messages.entry((direction, delivery)).or_default();
                if !kinds.contains(kind) {
                    kinds.push(*kind);
                    kinds.sort();
                }
            }
        }
    }

    async fn run(
        &mut self,
        target: &Target,
        member: Protocol,
        joiner: Protocol,
        options: PairOptions,
    ) -> Result<(), PairError> {
        let mut m = self.connect_member(target, member).await?;
        let (mut j1, first1) = self.connect_joiner(target, joiner, &mut m, 1).await?;
        let (mut j2, first2) = self.connect_joiner(target, joiner, &mut m, 2).await?;
        let (id1, id2) = self.converse(&mut m, &mut j1, &mut j2, first1, first2).await?;
        let (id1, id2) = (id1.as_ref(), id2.as_ref());
        sleep((m.connected_at + options.hold).saturating_duration_since(Instant::now())).await;
        self.check_heartbeats(&mut m, &mut j1)?;
        self.converse_again(&mut m, &mut j1, id1).await.map_err(PairError::during("after the hold"))?;
        self.check_ends(&mut m, &mut j1, &mut j2, (id1, id2)).await;
        self.check_joiner_departure(&mut m, &mut j2, id2).await;
        if m.close_text().is_none() {
            let answered = self.answer(&mut m, &mut j1, id1).await;
            answered.map_err(PairError::during("after another joiner left"))?;
        }
        self.check_member_departure(&mut m, &mut j1).await;
        for (client, peer) in [("member", &m), ("joiner", &j1), ("joiner", &j2)] {
            let unexpected = peer.log.iter().find_map(|event| match event {
                ClientEvent::Unexpected(what) => Some(what.clone()),
                _ => None,
            });
            if let Some(what) = unexpected {
                return Err(PairError::Unexpected { client, what });
            }
        }
        Ok(())
    }

    async fn connect_member(
        &mut self,
        target: &Target,
        protocol: Protocol,
    ) -> Result<SyntheticPeer, PairError> {
        let member = SyntheticPeer::connect(target, protocol, Role::Member, &self.key, None).await;
        let mut member = member.map_err(|source| PairError::Connect { client: "member", source })?;
        let confirmed = match protocol.capabilities().confirms_member {
            true => expect(&mut member, &ClientEvent::BecameMember).await,
            false => expect_sync(&mut member).await,
        };
        confirmed.map_err(|Unconfirmed(found)| PairError::NotConfirmed {
            client: "member",
            expected: "admitted",
            found,
        })?;
        Ok(member)
    }

    /// Returns a joiner that is linked to the member, and the message that it sent with its request.
    async fn connect_joiner(
        &mut self,
        target: &Target,
        protocol: Protocol,
        member: &mut SyntheticPeer,
        number: usize,
    ) -> Result<(SyntheticPeer, Vec<TestMessage>), PairError> {
        let capabilities = protocol.capabilities();
        let first = capabilities.joins_with_data.then(|| self.message(MessageKind::Offer));
        let joiner = SyntheticPeer::connect(target, protocol, Role::Joiner, &self.key, first.as_ref()).await;
        let mut joiner = joiner.map_err(|source| PairError::Connect { client: "joiner", source })?;
        let confirmed = match capabilities.confirms_joiner {
            true => expect(&mut joiner, &ClientEvent::LinkedToMember).await,
            false => expect_sync(&mut joiner).await,
        };
        confirmed.map_err(|Unconfirmed(found)| PairError::NotConfirmed {
            client: "joiner",
            expected: "linked to the member",
            found,
        })?;
        if member.protocol.capabilities().announces_joiner {
            let mut arrivals = 0;
            let all = |event: &ClientEvent| {
                arrivals += usize::from(*event == ClientEvent::JoinerArrived);
                (arrivals >= number).then_some(())
            };
            member.wait_for(EVENT_TIMEOUT, all).await.ok_or(PairError::NotAnnounced)?;
        }
        Ok((joiner, first.into_iter().collect()))
    }

    /// Lets both joiners send to the member, which answers each. Returns their ids.
    async fn converse(
        &mut self,
        m: &mut SyntheticPeer,
        j1: &mut SyntheticPeer,
        j2: &mut SyntheticPeer,
        first1: Vec<TestMessage>,
        first2: Vec<TestMessage>,
    ) -> Result<(Option<JoinerId>, Option<JoinerId>), PairError> {
        use Direction::{ToJoiner, ToMember};
        let addresses = m.protocol.capabilities().addresses_joiner;
        // A request that carries data has carried the offer.
        let offers = if first1.is_empty() { MessageKind::ALL } else { &MessageKind::ALL[1..] };
        let from1 = self.exchange(j1, m, ToMember, None, first1, offers).await?;
        self.record(ToMember, &from1);
        let offer: &[MessageKind] = if first2.is_empty() { &[MessageKind::Offer] } else { &[] };
        let from2 = self.exchange(j2, m, ToMember, None, first2, offer).await?;
        self.record(ToMember, &from2);
        // Where no frame names the joiner, it is known by its place.
        let id = |deliveries: &Deliveries, place: u32| {
            let named = deliveries.iter().find_map(|(_, delivery)| delivery.as_ref()?.0.clone());
            named.or(addresses.then(|| JoinerId::from_number(place)))
        };
        let (id1, id2) = (id(&from1, 0), id(&from2, 1));
        if addresses && id1 == id2 {
            return Err(PairError::SharedId);
        }
        let to1 = self.exchange(m, j1, ToJoiner, id1.as_ref(), Vec::new(), MessageKind::ALL).await?;
        self.record(ToJoiner, &to1);
        let answered = self.answer(m, j2, id2.as_ref()).await;
        answered.map_err(PairError::during("with two joiners"))?;
        self.check_isolation(j1, j2, addresses).await?;
        Ok((id1, id2))
    }

    /// Checks that messages for one joiner did not reach the other.
    async fn check_isolation(
        &mut self,
        j1: &mut SyntheticPeer,
        j2: &mut SyntheticPeer,
        addresses: bool,
    ) -> Result<(), PairError> {
        let (mut received, mut twice) = (Vec::new(), false);
        let message = |event: &ClientEvent| matches!(event, ClientEvent::Message { .. }).then_some(());
        for peer in [&mut *j1, &mut *j2] {
            // The answer to both may come over another node than what follows it.
            if !addresses {
                peer.wait_for(EVENT_TIMEOUT, message).await;
            }
            peer.sync(LOSS_TIMEOUT).await;
            peer.drain_events();
            let messages = peer.log.iter().filter_map(|event| match event {
                ClientEvent::Message { message, .. } => Some(message.clone()),
                _ => None,
            });
            let messages: Vec<_> = messages.collect();
            twice |= messages.iter().any(|message| received.contains(message));
            received.extend(messages);
        }
        match (twice, addresses) {
            (false, _) => {}
            (true, true) => return Err(PairError::Misdelivered),
            (true, false) => self.add_loss("an answer reaches every waiting joiner"),
        }
        Ok(())
    }

    /// Checks that no client was closed, and that each received heartbeats if its protocol has them.
    fn check_heartbeats(&mut self, m: &mut SyntheticPeer, j1: &mut SyntheticPeer) -> Result<(), PairError> {
        for (client, peer) in [("member", &mut *m), ("joiner", &mut *j1)] {
            peer.drain_events();
            if let Some(how) = peer.close_text() {
                return Err(PairError::Closed { client, how, during: "while it is idle" });
            }
            let capabilities = peer.protocol.capabilities();
            let expected = match client {
                "member" => capabilities.heartbeats_member,
                _ => capabilities.heartbeats_joiner,
            };
            if expected && !peer.log.contains(&ClientEvent::HeartbeatRequest) {
                self.add_loss(format!("no heartbeats for the {client}"));
            }
        }
        Ok(())
    }

    /// Checks that both still reach one another.
    async fn converse_again(
        &mut self,
        m: &mut SyntheticPeer,
        j1: &mut SyntheticPeer,
        id: Option<&JoinerId>,
    ) -> Result<(), PairError> {
        self.answer(m, j1, id).await?;
        let offer = [MessageKind::Offer];
        let deliveries = self.exchange(j1, m, Direction::ToMember, None, Vec::new(), &offer).await?;
        self.record(Direction::ToMember, &deliveries);
        Ok(())
    }

    /// Sends an answer of the member to a joiner, or an offer if the member's protocol has no answers.
    async fn answer(
        &mut self,
        m: &mut SyntheticPeer,
        joiner: &mut SyntheticPeer,
        id: Option<&JoinerId>,
    ) -> Result<(), PairError> {
        let answers = [self.message(MessageKind::Answer), self.message(MessageKind::Offer)];
        let sent: Vec<TestMessage> =
            answers.into_iter().find(|answer| m.send(id, answer)).into_iter().collect();
        match self.exchange(m, joiner, Direction::ToJoiner, id, sent, &[]).await {
            Ok(deliveries) => self.record(Direction::ToJoiner, &deliveries),
            Err(_) if !m.protocol.capabilities().addresses_joiner && joiner.close_text().is_none() => {
                self.add_loss("each joiner receives one answer, the first");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Checks that the end of one joiner reaches the member, and the member's end the other joiner.
    async fn check_ends(
        &mut self,
        m: &mut SyntheticPeer,
        j1: &mut SyntheticPeer,
        j2: &mut SyntheticPeer,
        (id1, id2): (Option<&JoinerId>, Option<&JoinerId>),
    ) {
        let receives_end = |peer: &SyntheticPeer| peer.protocol.capabilities().receives_end;
        if j1.send_end(None) && receives_end(m) && !is_notified(m, |from| from == id1, sender_of_end).await {
            self.add_loss("the joiner's end does not reach the member");
        }
        if m.send_end(id2) && receives_end(j2) && !is_notified(j2, |_| true, sender_of_end).await {
            self.add_loss("the member's end does not reach the joiner");
        }
    }

    async fn check_joiner_departure(
        &mut self,
        m: &mut SyntheticPeer,
        j2: &mut SyntheticPeer,
        id: Option<&JoinerId>,
    ) {
        j2.leave(EVENT_TIMEOUT).await;
        let notice = m.protocol.capabilities().joiner_departure;
        if notice == DepartureNotice::OnNextSend {
            let message = self.message(MessageKind::Answer);
            m.send(id, &message);
        }
        if notice != DepartureNotice::Never
            && !is_notified(m, |from| from.is_none() || from == id, departed_client).await
        {
            self.add_loss("the departure of a joiner is not reported");
        }
    }

    async fn check_member_departure(&mut self, m: &mut SyntheticPeer, j1: &mut SyntheticPeer) {
        m.leave(EVENT_TIMEOUT).await;
        let notice = j1.protocol.capabilities().member_departure;
        if notice == DepartureNotice::OnNextSend {
            let message = self.message(MessageKind::Offer);
            j1.send(None, &message);
        }
        if notice != DepartureNotice::Never && !is_notified(j1, |_| true, departed_client).await {
            self.add_loss("the departure of the member is not reported");
        }
    }

    /// Runs signaller: one listener, one connector.
    async fn run_signaller(&mut self, target: &Target) -> Result<(), PairError> {
        use Direction::{ToJoiner, ToMember};
        let key = self.key.clone();
        let connect = async |role, client| {
            let peer = SyntheticPeer::connect(target, Protocol::Signaller, role, &key, None).await;
            peer.map_err(|source| PairError::Connect { client, source })
        };
        let mut m = connect(Role::Member, "listener").await?;
        let mut j = connect(Role::Joiner, "connector").await?;
        if connect(Role::Joiner, "connector").await.is_ok() {
            return Err(PairError::TwoConnectors);
        }
        let up = self.exchange(&j, &mut m, ToMember, None, Vec::new(), MessageKind::ALL).await?;
        self.record(ToMember, &up);
        let down = self.exchange(&m, &mut j, ToJoiner, None, Vec::new(), MessageKind::ALL).await?;
        self.record(ToJoiner, &down);
        self.check_joiner_departure(&mut m, &mut j, None).await;
        Ok(())
    }
}
