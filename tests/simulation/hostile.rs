//! Clients that violate the protocol, flood, do not read or do not answer, and the ends that they must have.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use sigver::protocol::dialect::{Dialect, Family};
use sigver::tools::client::dialects::{ClientEvent, Role};
use sigver::tools::client::message::{MessageKind, TestMessage};
use sigver::tools::protobuf::{delimited, number};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};

use crate::common::ws::{BINARY, Got, TEXT, Ws, frame, request};
use crate::conversation::Venue;
use crate::inspector::mark;
use crate::network::{Fault, SimStream};
use crate::peer::{NewPeer, Peer};
use crate::world::{LONGEST_DEADLINE, Mode, World};

/// Begin of the names of these clients, and of the marks of their payloads.
pub const NAME: &str = "hostile";

/// A kind of misbehaviour.
#[derive(Clone, Copy, Debug)]
pub enum Hostile {
    /// Bytes that are not HTTP.
    Garbage,
    /// A request without an end.
    HalfRequest,
    /// A WebSocket without a frame.
    Silent,
    /// A frame that violates RFC 6455, and the close code for it.
    InvalidFrame(&'static [u8], u16),
    /// The begin of a frame.
    TruncatedFrame,
    /// Frames of random bytes.
    RandomFrames,
    /// Pings as fast as possible, without reading the pongs.
    PingFlood,
    /// A client that opens a room and disappears without a close frame.
    HalfOpen,
    /// A joiner that sends as fast as possible to a member that does not read.
    FloodOfDeafMember,
    /// A joiner that sends as fast as possible to a member that reads.
    FloodOfMember,
}

/// Frames and the close code that each must have.
const INVALID_FRAMES: &[Hostile] = &[
    // Reserved bits.
    Hostile::InvalidFrame(&[0xf2, 0x80, 1, 2, 3, 4], 1002),
    // No mask.
    Hostile::InvalidFrame(&[0x82, 0x01, 7], 1002),
    // An unknown opcode.
    Hostile::InvalidFrame(&[0x83, 0x80, 1, 2, 3, 4], 1002),
    // A fragmented control frame.
    Hostile::InvalidFrame(&[0x09, 0x80, 1, 2, 3, 4], 1002),
    // A continuation of nothing.
    Hostile::InvalidFrame(&[0x80, 0x80, 1, 2, 3, 4], 1002),
    // A long ping.
    Hostile::InvalidFrame(&[0x89, 0xfe, 0, 126, 1, 2, 3, 4], 1002),
    // A text that is not UTF-8: 0xff behind a mask of zeros.
    Hostile::InvalidFrame(&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007),
    // A length of an exabyte.
    Hostile::InvalidFrame(&[0x82, 0xff, 0x10, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], 1009),
];

impl Hostile {
    /// Returns a kind that the run can have.
    pub fn random(rng: &mut Rng) -> Hostile {
        match rng.u8(..10) {
            0 => Hostile::Garbage,
            1 => Hostile::HalfRequest,
            2 => Hostile::Silent,
            3 => INVALID_FRAMES[rng.usize(..INVALID_FRAMES.len())],
            4 => Hostile::TruncatedFrame,
            5 => Hostile::RandomFrames,
            6 => Hostile::PingFlood,
            7 => Hostile::HalfOpen,
            8 => Hostile::FloodOfDeafMember,
            _ => Hostile::FloodOfMember,
        }
    }

    /// Misbehaves. `victim` is the room of a conversation.
    pub async fn run(self, world: Arc<World>, name: String, victim: Arc<Venue>, mut rng: Rng) {
        let (epoch, start) = (world.epoch(), Instant::now());
        world.trace.note(&name, format_args!("{self:?}"));
        let outcome = match self {
            Hostile::HalfOpen => self.half_open(&world, &name, &mut rng).await,
            Hostile::FloodOfDeafMember => self.flood_deaf_member(&world, &name, &mut rng).await,
            Hostile::FloodOfMember => self.flood(&world, &name, &victim).await,
            _ => self.on_stream(&world, &name, &mut rng).await,
        };
        // A restart ends them, too.
        if let Err(error) = &outcome
            && epoch == world.epoch()
            && !error.contains("is not connected")
        {
            world.trace.violation(&name, format_args!("{self:?} after {:?}: {error}", start.elapsed()));
        }
        world.trace.note(&name, format_args!("{outcome:?}"));
    }

    async fn on_stream(self, world: &Arc<World>, name: &str, rng: &mut Rng) -> Result<String, String> {
        let Some((mut stream, _)) = world.connect(name, world.random_link()).await else {
            return Ok("no connection".to_owned());
        };
        match self {
            Hostile::Garbage => {
                let bytes: Vec<u8> = (0..rng.usize(1..3000)).map(|_| rng.u8(..)).collect();
                let _ = stream.write_all(&bytes).await;
                return ends(&mut stream, Duration::from_secs(15)).await;
            }
            Hostile::HalfRequest => {
                let request = request("/k");
                let part = rng.usize(1..request.len() - 1);
                let _ = stream.write_all(&request.as_bytes()[..part]).await;
                return ends(&mut stream, Duration::from_secs(15)).await;
            }
            _ => {}
        }
        let own = format!("/{name}");
        let path = if rng.bool() { "/" } else { own.as_str() };
        let mut ws = match Ws::try_open(stream, request(path).as_bytes()).await {
            Ok(ws) => ws,
            Err(error) => return if error.contains("HTTP/1.1") { Err(error) } else { Ok(error) },
        };
        let codes: &[Option<u16>] = match self {
            Hostile::Silent if world.mode != Mode::Auto => &[],
            // As one of sigver 15 to 18 that answers no ping, or as one that never sends what it wants.
            Hostile::Silent if path == "/" => &[Some(1008)],
            Hostile::Silent => &[Some(4002)],
            Hostile::InvalidFrame(bytes, code) => {
                ws.raw(bytes).await;
                let (got, _) = end(&mut ws, LONGEST_DEADLINE).await.ok_or("no close")?;
                return match got == Some(code) || is_early(path, world.mode, got) {
                    true => Ok(format!("{name}: closed with {got:?}")),
                    false => Err(format!("closed with {got:?} instead of {code}")),
                };
            }
            Hostile::TruncatedFrame => {
                let whole = frame(BINARY, &[7; 1000]);
                ws.raw(&whole[..rng.usize(1..whole.len())]).await;
                &[]
            }
            Hostile::RandomFrames => {
                for _ in 0..rng.u8(1..20) {
                    let payload: Vec<u8> = (0..rng.usize(..40)).map(|_| rng.u8(..)).collect();
                    if !ws.raw(&frame(if rng.bool() { BINARY } else { TEXT }, &payload)).await {
                        break;
                    }
                }
                &[]
            }
            _ => {
                let ping = frame(0x89, &[7; 100]).repeat(20);
                let flood = async { while ws.raw(&ping).await {} };
                let _ = timeout(Duration::from_secs(40), flood).await;
                return ends(&mut ws.stream, LONGEST_DEADLINE).await;
            }
        };
        let (code, _) = end(&mut ws, LONGEST_DEADLINE).await.ok_or("no close")?;
        match codes.is_empty() || codes.contains(&code) {
            true => Ok(format!("closed with {code:?}")),
            false => Err(format!("closed with {code:?} instead of {codes:?}")),
        }
    }

    /// Disappears without a close frame after it has become a member.
    async fn half_open(self, world: &Arc<World>, name: &str, rng: &mut Rng) -> Result<String, String> {
        let member = connect(world, name, name, Role::Member, rng).await?;
        sleep(Duration::from_secs(2)).await;
        member.wire.fail(Fault::HalfOpen);
        sleep(LONGEST_DEADLINE).await;
        // The key is free again.
        let mut next = connect_as(world, name, name, member.dialect, Role::Member).await?;
        let confirmed = next.capabilities().confirms_member;
        next.wait_for_role(&ClientEvent::BecameMember, confirmed).await?;
        Ok("replaced".to_owned())
    }

    async fn flood_deaf_member(
        self,
        world: &Arc<World>,
        name: &str,
        rng: &mut Rng,
    ) -> Result<String, String> {
        let (Mode::Auto | Mode::Pinned(Dialect::Sigver20)) = world.mode else { return Ok("none".to_owned()) };
        let path = format!("/{name}");
        let open = |world: Arc<World>| {
            let path = path.clone();
            async move {
                let (stream, _) =
                    world.connect(name, world.random_link()).await.ok_or("the flood is not connected")?;
                Ws::try_open(stream, request(&path).as_bytes()).await
            }
        };
        let connect = delimited(3, &number(1, 5));
        let mut deaf = open(Arc::clone(world)).await?;
        deaf.raw(&frame(BINARY, &connect)).await;
        sleep(Duration::from_secs(2)).await;
        let mut flooding = open(Arc::clone(world)).await?;
        flooding.raw(&frame(BINARY, &connect)).await;
        sleep(Duration::from_secs(2)).await;
        let data = vec![7; rng.usize(100..60_000)];
        let content = delimited(2, &[number(1, 0), number(2, 0), delimited(4, &data)].concat());
        let sent = frame(BINARY, &content);
        let flood = async { while flooding.raw(&sent).await {} };
        let _ = timeout(Duration::from_secs(60), flood).await;
        drop(flooding);
        ends(&mut deaf.stream, LONGEST_DEADLINE).await
    }

    /// Sends to the member of a conversation for some seconds.
    async fn flood(self, world: &Arc<World>, name: &str, victim: &Venue) -> Result<String, String> {
        // Others cannot distinguish their joiners, or know each by its place.
        if victim.member.family() != Family::ProtobufV2 {
            return Ok("none".to_owned());
        }
        if !victim.wait_until_up().await {
            return Ok("nobody to flood".to_owned());
        }
        let joiner = connect_as(world, name, &victim.key, victim.member, Role::Joiner).await;
        let mut joiner = match joiner {
            Ok(joiner) => joiner,
            Err(error) => return Ok(error),
        };
        let (start, text) = (Instant::now(), mark(name, &victim.room, 0));
        while start.elapsed() < Duration::from_secs(5) {
            joiner.take_events();
            if joiner.log.contains(&ClientEvent::BecameMember) {
                victim.intruders.fetch_add(1, Ordering::Relaxed);
                return Ok("too late".to_owned());
            }
            for _ in 0..8 {
                joiner.send(None, &TestMessage::new(MessageKind::Json, &text));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok("flooded".to_owned())
    }
}

/// Returns true if the gateway closed before the frame arrived, as the client had sent nothing.
fn is_early(path: &str, mode: Mode, code: Option<u16>) -> bool {
    // An empty key is refused by pinned releases at once.
    path == "/" && mode != Mode::Auto && code.is_none_or(|code| code >= 4000)
}

async fn connect(
    world: &Arc<World>,
    name: &str,
    key: &str,
    role: Role,
    rng: &mut Rng,
) -> Result<Peer, String> {
    let dialects = world.mode.dialects();
    connect_as(world, name, key, dialects[rng.usize(..dialects.len())], role).await
}

pub async fn connect_as(
    world: &Arc<World>,
    name: &str,
    key: &str,
    dialect: Dialect,
    role: Role,
) -> Result<Peer, String> {
    let name = name.to_owned();
    Peer::connect(world, NewPeer { name, dialect, role, key, first: None, by_events: false }).await
}

/// Waits for the end of a stream, whatever is sent before.
async fn ends(stream: &mut SimStream, limit: Duration) -> Result<String, String> {
    let mut received = Vec::new();
    let read = async { while stream.read_buf(&mut received).await.is_ok_and(|count| count > 0) {} };
    match timeout(limit, read).await {
        Ok(()) => Ok(format!("ended after {} bytes", received.len())),
        Err(_) => Err("no end in time".to_owned()),
    }
}

/// Waits for the close frame, without an answer to anything that is sent before. Returns its code, or 1006 if
/// there is none.
async fn end(ws: &mut Ws<SimStream>, limit: Duration) -> Option<(Option<u16>, String)> {
    let close = async {
        loop {
            match ws.next().await {
                Got::Close(code, reason) => return (code, reason),
                Got::End => return (Some(1006), String::new()),
                _ => {}
            }
        }
    };
    timeout(limit, close).await.ok()
}
