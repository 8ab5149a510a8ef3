//! A client that tries to reach the clients of others: it guesses ids, uses those of others, names them as
//! members, reuses ids of event streams, and comes back again and again.
//!
//! It has the key of a room only as a joiner: a client that becomes a member is to be sent what joiners send.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use sigver::protocol::dialect::{Dialect, Family};
use sigver::tools::client::dialects::{ClientEvent, ClientFrame, JoinerId, Role, new_client};
use sigver::tools::client::message::{MessageKind, TestMessage};
use sigver::tools::client::protocol::Protocol;
use sigver::tools::protobuf::{WireField, WireValue, delimited, fields, number};
use tokio::time::{Instant, sleep};

use crate::conversation::{Venue, can_meet};
use crate::events::{self, EventStream};
use crate::hostile::NAME;
use crate::inspector::mark;
use crate::peer::{NewPeer, Peer};
use crate::world::{Mode, World};

/// Time for which an attacker goes on.
const ATTACK: Duration = Duration::from_secs(60);

/// Receiver of payloads that must reach no client.
pub const NOBODY: &str = "nobody";

/// A client that tries to reach others.
pub struct Attacker {
    world: Arc<World>,
    name: String,
    victim: Arc<Venue>,
    rng: Rng,
    payloads: u32,
}

impl Attacker {
    pub fn new(world: Arc<World>, number: u32, victim: Arc<Venue>, rng: Rng) -> Self {
        Attacker { world, name: format!("{NAME}{number}"), victim, rng, payloads: 0 }
    }

    /// Attacks until the time is over.
    pub async fn run(mut self) {
        let start = Instant::now();
        while start.elapsed() < ATTACK {
            let outcome = match self.rng.u8(..4) {
                0 => self.attack_from_another_room().await,
                1 | 2 => self.attack_as_a_joiner().await,
                _ => self.attack_event_streams().await,
            };
            self.world.trace.note(&self.name, format_args!("{outcome:?}"));
            sleep(Duration::from_millis(self.rng.u64(1..2000))).await;
        }
    }

    /// Sends to ids of others as the member of a room of its own.
    async fn attack_from_another_room(&mut self) -> Result<(), String> {
        let dialects = self.world.mode.dialects();
        let dialect = dialects[self.rng.usize(..dialects.len())];
        let key = format!("{}key", self.name);
        let peer = self.connect(dialect, Role::Member, &key, None).await?;
        sleep(Duration::from_millis(self.rng.u64(..1500))).await;
        self.send_forged(peer, dialect, Role::Member).await
    }

    /// Sends to ids of others as a joiner of the victim.
    async fn attack_as_a_joiner(&mut self) -> Result<(), String> {
        let member = self.victim.member;
        let dialects = self.world.mode.dialects();
        let dialect = match self.world.mode {
            Mode::Auto => dialects[self.rng.usize(..dialects.len())],
            Mode::ByGeneration | Mode::Pinned(_) => member,
        };
        // Older members count their joiners, or know of one only.
        if Dialect::ALL.iter().position(|known| *known == member)
            < Dialect::ALL.iter().position(|known| *known == Dialect::Sigver7)
            || !can_meet(member, dialect)
            || dialect == Dialect::Sigver6
            || !self.victim.wait_until_up().await
        {
            return Ok(());
        }
        let first = TestMessage::new(MessageKind::Offer, &self.mark(&self.victim.room.clone()));
        let joins_with_data = Protocol::Sigver(dialect).capabilities().joins_with_data;
        let key = self.victim.key.clone();
        let peer = self.connect(dialect, Role::Joiner, &key, joins_with_data.then_some(&first)).await?;
        sleep(Duration::from_millis(self.rng.u64(300..1500))).await;
        self.send_forged(peer, dialect, Role::Joiner).await
    }

    async fn connect(
        &self,
        dialect: Dialect,
        role: Role,
        key: &str,
        first: Option<&TestMessage>,
    ) -> Result<Peer, String> {
        let name = self.name.clone();
        Peer::connect(&self.world, NewPeer { name, dialect, role, key, first, by_events: false }).await
    }

    fn mark(&mut self, to: &str) -> String {
        self.payloads += 1;
        mark(&self.name, to, self.payloads)
    }

    /// Sends frames to ids of others, and leaves in one way or another.
    async fn send_forged(&mut self, mut peer: Peer, dialect: Dialect, role: Role) -> Result<(), String> {
        // What a joiner sends is for its member, whatever id is in it.
        let to = if role == Role::Joiner { self.victim.room.clone() } else { NOBODY.to_owned() };
        for _ in 0..self.rng.u32(3..30) {
            let (id, text) = (self.id(), self.mark(&to));
            let frame = match self.blocked_eviction(dialect, role) {
                Some(frame) if self.rng.u8(..4) == 0 => frame,
                _ => forged_frame(dialect, role, &id, &text, &mut self.rng),
            };
            peer.send_frame(frame);
            sleep(Duration::from_millis(self.rng.u64(..200))).await;
            peer.take_events();
            // There is no other client: what others send would be for it.
            if role == Role::Joiner && peer.log.contains(&ClientEvent::BecameMember) {
                self.victim.intruders.fetch_add(1, Ordering::Relaxed);
                return Err("became the member".to_owned());
            }
            if peer.log.iter().any(|event| matches!(event, ClientEvent::Closed(..))) {
                return Err("closed".to_owned());
            }
        }
        if self.rng.bool() {
            peer.close();
            sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }

    /// Returns the frame by which a joiner of sigver 18 or newer replaces the only member, if the member is
    /// none that it may replace.
    fn blocked_eviction(&self, dialect: Dialect, role: Role) -> Option<ClientFrame> {
        if role == Role::Member || dialect.family() == self.victim.member.family() {
            return None;
        }
        match dialect.family() {
            Family::ProtobufV2 => Some(ClientFrame::Binary(delimited(3, &number(1, 12)))),
            Family::ProtobufV1 if dialect == Dialect::Sigver18 => Some(ClientFrame::Binary(number(5, 1))),
            Family::ProtobufV1 | Family::Json => None,
        }
    }

    /// Returns the id of a joiner of another, one near it, or a guess.
    fn id(&mut self) -> Value {
        let known = self.world.any_joiner_id(&mut self.rng);
        match (self.rng.u8(..4), known) {
            (0 | 1, Some(known)) => known,
            (2, Some(known)) => match known.as_u64() {
                Some(id) => (id ^ 1 << self.rng.u8(..31)).into(),
                None => known,
            },
            (_, _) if self.rng.bool() => self.rng.u32(..4).into(),
            _ => self.rng.u32(..).into(),
        }
    }

    /// Sends in the name of event streams that are not its own, or not any more.
    async fn attack_event_streams(&mut self) -> Result<(), String> {
        if !self.world.mode.dialects().contains(&events::DIALECT) {
            return Ok(());
        }
        let link = self.world.random_link();
        let (stream, _) = self.world.connect(&self.name, link).await.ok_or("is not connected")?;
        let own = EventStream::open(&self.world, &self.name, link, stream).await?;
        let id: u64 = own.id.parse().map_err(|_| "the id of a stream is no number")?;
        for step in 0..self.rng.u64(2..8) {
            let other = match self.rng.u8(..3) {
                0 => id.wrapping_add(1 + step),
                1 => id ^ 1 << self.rng.u8(..53),
                _ => self.rng.u64(..1 << 53),
            };
            let text = self.mark(NOBODY);
            let message = match self.rng.bool() {
                true => json!({"data": text}),
                false => json!({"id": self.id(), "data": text}),
            };
            events::post(&self.world, &self.name, link, &other.to_string(), &message.to_string()).await;
        }
        // A stream that has ended has no id any more.
        let message = json!({"data": self.mark(NOBODY)}).to_string();
        drop(own);
        sleep(Duration::from_secs(1)).await;
        events::post(&self.world, &self.name, link, &id.to_string(), &message).await;
        Ok(())
    }
}

/// Returns a frame that names an id.
fn forged_frame(dialect: Dialect, role: Role, id: &Value, text: &str, rng: &mut Rng) -> ClientFrame {
    let data = json!({"offer": text});
    let bytes = data.to_string().into_bytes();
    let number_of_id = id.as_u64().and_then(|id| u32::try_from(id).ok()).unwrap_or(1);
    let id_field = |field| number(field, number_of_id);
    let is_last = u32::from(rng.u8(..4) == 0);
    match dialect.family() {
        Family::Json => {
            let frame = match dialect {
                Dialect::Sigver1 | Dialect::Sigver4 => json!({"type": "offer", "index": id, "data": data}),
                Dialect::Sigver5 => json!({"index": id, "offer": text}),
                Dialect::Sigver6 if role == Role::Member => json!({"answer": text, "id": id}),
                Dialect::Sigver6 => json!({"offer": text, "id": id}),
                _ if rng.bool() || role == Role::Member => json!({"id": id, "data": data}),
                _ => json!({"data": data}),
            };
            ClientFrame::Text(frame.to_string())
        }
        // Either data or the end of the link, as if it were another's.
        Family::ProtobufV1 if dialect == Dialect::Sigver15 => ClientFrame::Binary(delimited(
            1,
            &[id_field(1), number(2, is_last), delimited(3, &bytes)].concat(),
        )),
        Family::ProtobufV1 => {
            let end = if is_last == 1 { number(3 + u32::from(rng.bool()), 1) } else { delimited(2, &bytes) };
            ClientFrame::Binary(delimited(1, &[id_field(1), end].concat()))
        }
        // The members of other rooms have these ids, too.
        Family::ProtobufV2 if role == Role::Member && rng.u8(..8) == 0 => {
            ClientFrame::Binary(delimited(3, &[id_field(1), delimited(2, &[11, 12])].concat()))
        }
        Family::ProtobufV2 => {
            ClientFrame::Binary(delimited(2, &forged_content(dialect, number_of_id, is_last, bytes)))
        }
    }
}

/// Returns a content of sigver 19 or newer in which every id is this one: a content of a synthetic client,
/// whose numbers are ids but for the last, the mark of the last content.
fn forged_content(dialect: Dialect, id: u32, is_last: u32, data: Vec<u8>) -> Vec<u8> {
    let mut client = new_client(Protocol::Sigver(dialect), Role::Member, "");
    let message = TestMessage::from_bytes(data);
    let Some(ClientFrame::Binary(frame)) = client.encode(Some(&JoinerId::from_number(id)), &message) else {
        panic!("{dialect} has no contents")
    };
    let message = fields(&frame).unwrap();
    let [WireField { value: WireValue::Bytes(content), .. }] = message[..] else { panic!("{frame:?}") };
    let content = fields(content).unwrap();
    let last = content.iter().rposition(|field| matches!(field.value, WireValue::Varint(_)));
    let forged = content.iter().enumerate().flat_map(|(at, field)| match field.value {
        WireValue::Varint(_) => {
            number(u32::try_from(field.number).unwrap(), if Some(at) == last { is_last } else { id })
        }
        WireValue::Bytes(_) | WireValue::Fixed => field.raw.to_vec(),
    });
    forged.collect()
}
