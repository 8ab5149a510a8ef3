//! The negotiation with a clock of its own: evidence row by row, and conversations as they go with real
//! clients.

mod json;
mod properties;
mod recognised;
mod rooms;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::evidence::{FrameFacts, History, narrow};
use super::*;
use crate::protocol::dialect::{Dialect, Family, Output, PROBE, ParsedMessage, ReleaseSet, UpgradeRequest};
use crate::protocol::frame::{Close, Message, Outgoing};
use crate::protocol::model::{Command, Event, LinkId, LinkMessage, Payload, Side};
use bytes::Bytes;
use data_encoding::HEXLOWER_PERMISSIVE;

fn hex(text: &str) -> Message {
    Message::Binary(HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap().into())
}

fn policy(list: &str) -> Arc<Policy> {
    Arc::new(Policy::new(list.parse::<ProtocolSet>().unwrap().releases))
}

/// The names of the dialects in the set.
fn names(releases: ReleaseSet) -> String {
    let names: Vec<&str> =
        releases.iter().map(|release| release.dialect().name().trim_start_matches("sigver-")).collect();
    names.join(" ")
}

/// The names of the dialects whose clients send `connect`: 19, 20 and newer.
fn names_of_v2() -> String {
    names(policy("auto").releases.of_family(Family::ProtobufV2))
}

/// One connection, and the outputs of its detector.
struct Talk {
    conversation: ConnectionProtocol,
    start: Instant,
    steps: Vec<Output>,
    why: Vec<&'static str>,
    mixed: Vec<Dialect>,
}

impl Talk {
    fn open(protocols: &str, path: &str) -> Self {
        Talk::with(&policy(protocols), path)
    }

    /// A connection of a client that is no page, without a path.
    fn program(protocols: &str) -> Self {
        Talk::start(&policy(protocols), "/", false)
    }

    fn with(policy: &Arc<Policy>, path: &str) -> Self {
        Talk::start(policy, path, true)
    }

    fn start(policy: &Arc<Policy>, path: &str, from_page: bool) -> Self {
        let start = Instant::now();
        let mut steps = Vec::new();
        let upgrade = UpgradeRequest { path: path.to_owned(), favored: false, from_page };
        let conversation = ConnectionProtocol::open(policy, upgrade, start, &mut steps);
        Talk { conversation, start, steps, why: Vec::new(), mixed: Vec::new() }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// Lets the time run to `ms`, as the driver would.
    fn until(&mut self, ms: u64) -> &mut Self {
        while let Some(due) = self.conversation.deadline().filter(|due| *due <= self.at(ms)) {
            if matches!(self.steps.last(), Some(Output::Send(Outgoing::Close(_)))) {
                // The driver asks no more after the end.
                break;
            }
            self.conversation.on_timeout(due, &mut self.steps);
        }
        self
    }

    fn pong(&mut self, ms: u64) -> &mut Self {
        self.until(ms);
        self.conversation.on_pong(self.at(ms));
        self
    }

    fn frame(&mut self, ms: u64, message: &Message) -> &mut Self {
        self.until(ms);
        self.conversation.on_message(message.clone(), self.at(ms), &mut self.steps);
        self
    }

    fn event(&mut self, ms: u64, event: Event) -> &mut Self {
        self.until(ms);
        self.conversation.on_event(event, self.at(ms), &mut self.steps);
        self
    }

    /// Returns the outputs since the last call, in short form.
    fn did(&mut self) -> Vec<String> {
        let mut did = Vec::new();
        for step in self.steps.drain(..) {
            did.push(match step {
                Output::Send(outgoing) => match outgoing.into_message() {
                    Ok(Message::Binary(bytes)) => HEXLOWER_PERMISSIVE.encode(&bytes),
                    Ok(Message::Text(text)) => text.to_string(),
                    Err(Close { code, reason }) => format!("close {code:?} {reason}"),
                },
                Output::Ping => "ping".into(),
                Output::Enter(key, command) => format!("{} {}", key.as_str(), verb(&command)),
                Output::Ask(command) => verb(&command).into(),
                Output::Leave => "leave".into(),
                Output::Mixed(_, other) => {
                    self.mixed.push(other);
                    continue;
                }
                Output::Recognised(_, why) => {
                    self.why.push(why.name());
                    continue;
                }
            });
        }
        did
    }

    fn may_be(&self) -> String {
        names(self.conversation.candidates())
    }
}

fn verb(command: &Command) -> &'static str {
    match command {
        Command::Open(_) => "open",
        Command::Join(_) => "join",
        Command::Connect(_) => "attach",
        Command::BecomeMember => "settle",
        Command::TryAnother => "try another",
        Command::RevertAssumption => "forget",
        Command::Unlink => "unbind",
        Command::ReplyOnBehalf { .. } => "answer",
        Command::Relay { .. } => "relay",
    }
}

fn relayed(side: Side, from: Dialect) -> Event {
    let message = LinkMessage::Data { payload: Payload::Bytes(Bytes::from_static(b"offer-J")), last: false };
    Event::Relayed { link: LinkId(0x7b), side, message, sender: from.tag() }
}

#[test]
fn evidence_table_holds_row_by_row() {
    let auto = policy("auto").releases;
    let none = History::default();
    let probed = History { probed: true, ..none };
    let expired = History { probe_expired: true, ..probed };
    let spoken = History { spoken: true, ..probed };
    let beaten = History { heartbeat_seen: true, ..spoken };
    let member = History { member: true, ..beaten };
    let v1 = "15 15.1 16 18";
    let json = "1 4 5 6 7 7.6 8 9 11 13";
    let v2 = &*names_of_v2();
    let everything = format!("{json} {v1} {v2}");
    let lone = History { member: true, joining: true, ..none };
    for (frame, context, expected) in [
        (Message::text("{\"type\":\"open\",\"key\":\"k\"}"), none, "4 5"),
        (Message::text("{\"open\":\"k\"}"), none, "8 9 11 13"),
        (Message::text("{\"open\":\"k\"}"), lone, "11 13"),
        (Message::text("{\"id\":1,\"data\":1}"), lone, "9"),
        (Message::text("garbage"), none, json),
        (Message::binary(&b"{\"type\":\"open\",\"key\":\"k\"}"[..]), none, "4 5"),
        (Message::binary(&b"{\"join\":\"k\"}"[..]), none, "7.6"),
        (hex("1a02080b"), none, v2),
        (hex("0801"), none, v2),
        (hex("1206080012022a2a"), none, v2),
        (hex("120b08001a076f666665722d4a"), none, "19"),
        (hex("120d0800100022076f666665722d4a"), none, "20"),
        (hex("0a0b08001a076f666665722d4a"), none, "15"),
        (hex("0a0b080012076f666665722d4a"), none, "15.1 16 18"),
        (hex("0a0b080012076f666665722d4a"), probed, "16 18"),
        (hex("0a022001"), none, v1),
        (hex("1801"), none, v1),
        (hex("2001"), none, v1),
        (hex("2001"), probed, v1),
        (hex("2001"), expired, "16 18"),
        (hex("2001"), spoken, "16 18"),
        (hex("2801"), none, "15 15.1"),
        (hex("2801"), spoken, "15 15.1"),
        (hex("2801"), beaten, "18"),
        (hex("2801"), member, "15 15.1"),
        (hex("ffff"), none, everything.as_str()),
        (hex(""), none, everything.as_str()),
    ] {
        assert_eq!(
            names(narrow(FrameFacts::new(&ParsedMessage::new(frame.clone())), context, auto)),
            expected,
            "{frame:?} {context:?}"
        );
    }
}

#[test]
fn client_of_20_is_answered_at_once() {
    let mut talk = Talk::open("auto", "/k");
    assert_eq!(talk.did(), ["ping"]);
    talk.frame(1, &hex("1a02080b"));
    assert_eq!(talk.did(), ["k attach"]);
    talk.event(1, Event::Admitted { first: true });
    assert_eq!((talk.did(), talk.may_be()), (vec!["2001".into()], names_of_v2()));
    talk.frame(2, &hex("120d0800100022076f666665722d4a"));
    assert_eq!((talk.did(), talk.may_be()), (vec!["relay".into()], "20".into()));
    // Heartbeats count from the beginning of the connection.
    talk.until(4_999);
    assert_eq!(talk.did(), [""; 0]);
    talk.until(5_000);
    assert_eq!(talk.did(), ["0801"]);
    talk.until(60_000);
    assert_eq!(talk.did(), ["0801", "close Some(4742) Too many missed hearbeats"]);
}

#[test]
fn silence_is_evidence_after_round_trip_and_margin() {
    let mut talk = Talk::open("auto", "/k");
    talk.pong(20).until(169);
    assert_eq!(talk.did(), ["ping"]);
    talk.until(170);
    assert_eq!(talk.did(), ["10012001", "k join"]);
    talk.event(171, Event::Admitted { first: true });
    assert_eq!(talk.did(), ["1001"]);
    assert_eq!(talk.why, ["silence"]);
}

#[test]
fn wait_ends_with_window_on_fast_link_and_with_pong_on_slow_link() {
    for (pong, speaks) in [(0, 150), (300, 450), (400, 500), (499, 574), (1_000, 1_075)] {
        let mut talk = Talk::open("auto", "/k");
        talk.pong(pong).until(speaks - 1);
        assert_eq!(talk.did(), ["ping"], "{pong}");
        talk.until(speaks);
        assert_eq!(talk.did().len(), 2, "{pong}");
    }
    let mut talk = Talk::open("auto", "/k");
    talk.until(1_999);
    assert_eq!(talk.did(), ["ping"], "a client that answers no ping");
    talk.until(2_000);
    assert_eq!(talk.did().len(), 2);
}

/// netflux 1.1.0-beta answers the probe; its pings then look like those of sigver 15.0.4.
#[test]
fn pong_to_probe_means_sigver_15() {
    let mut talk = Talk::open("auto", "/k");
    talk.pong(1).until(151).event(152, Event::Admitted { first: true }).did();
    talk.frame(153, &hex("2801"));
    assert_eq!((talk.did(), talk.may_be()), (vec!["2001".into()], "15 15.1".into()));
    talk.event(160, relayed(Side::Member, Dialect::Sigver15));
    talk.event(161, relayed(Side::Member, Dialect::Sigver20));
    assert_eq!(talk.did(), ["0a0b087b1a076f666665722d4a", "0a0b087b1a076f666665722d4a"]);
    talk.frame(165, &hex("2801")).until(5_153).frame(5_160, &hex("2801")).until(15_152);
    assert_eq!(talk.did(), ["2001", "2001"]);
    talk.until(15_153);
    assert_eq!(talk.did(), ["close Some(4002) Signaling: pong not received in 5000 milliseconds"]);
}

/// netflux 3.0.0 ignores the probe and sends heartbeats of its own.
#[test]
fn heartbeat_without_pong_means_sigver_16_or_18() {
    let mut talk = Talk::open("auto", "/k");
    talk.pong(1).until(151).event(152, Event::LinkedToMember { link: LinkId(9) });
    assert_eq!(talk.did(), ["ping", "10012001", "k join", "1000"]);
    talk.frame(160, &hex("0a0b080012076f666665722d4a"));
    assert_eq!((talk.did(), talk.may_be()), (vec!["relay".into()], "16 18".into()));
    talk.frame(200, &hex("2001")).frame(300, &hex("2801"));
    assert_eq!((talk.did(), talk.may_be()), (vec!["try another".into()], "18".into()));
}

/// netflux 4.3 ignores what we sent, and sends connect when its page gets to it.
#[test]
fn late_connect_reverts_assumption() {
    let mut talk = Talk::open("auto", "/k");
    talk.pong(1).until(151).event(152, Event::Admitted { first: true }).did();
    // A joiner of its own generation joined in the meantime: what it sent is held, not lost.
    talk.event(200, relayed(Side::Member, Dialect::Sigver20));
    talk.frame(250, &hex("1a02080b"));
    assert_eq!((talk.did(), talk.may_be()), (vec!["forget".to_owned(), "k attach".into()], names_of_v2()));
    talk.event(251, Event::Admitted { first: true });
    assert_eq!(talk.did(), ["2001", "120d087b100022076f666665722d4a"]);
    talk.until(5_000);
    assert_eq!(talk.did(), ["0801"]);
}

#[test]
fn events_sent_in_wrong_dialect_are_sent_again() {
    let mut talk = Talk::open("auto", "/k");
    talk.pong(1).until(151).event(152, Event::Admitted { first: true }).did();
    talk.event(500, relayed(Side::Member, Dialect::Sigver18));
    assert_eq!(talk.did(), ["0a0b087b12076f666665722d4a"], "rooms are rarely mixed");
    talk.frame(1_500, &hex("1a02080b")).did();
    talk.event(1_501, Event::Admitted { first: true });
    assert_eq!(talk.did(), ["2001", "120d087b100022076f666665722d4a"]);
}

#[test]
fn held_events_are_released_after_hold_timeout() {
    let mut talk = Talk::open("auto", "/k");
    talk.pong(20).until(170).event(172, Event::Admitted { first: true }).did();
    talk.event(200, relayed(Side::Member, Dialect::Sigver20));
    talk.event(201, Event::LinkEnded { link: LinkId(0x7b), side: Side::Member, normal_closure: false });
    // The round trip, and two seconds.
    talk.until(2_189);
    assert_eq!(talk.did(), [""; 0]);
    talk.until(2_190);
    assert_eq!(talk.did(), ["0a0b087b12076f666665722d4a", "0a04087b1801"]);
    talk.event(2_200, relayed(Side::Member, Dialect::Sigver15));
    assert_eq!(talk.did(), ["0a0b087b12076f666665722d4a"], "one of 15 would have answered the probe");
    // Late, it turns out to be a client of netflux 4: all of it is sent again.
    talk.frame(2_900, &hex("1a02080b")).event(2_901, Event::Admitted { first: true });
    let again = "120d087b100022076f666665722d4a";
    assert_eq!(talk.did(), ["forget", "k attach", "2001", again, "1204087b1000", again]);
}

#[test]
fn late_pong_to_probe_means_sigver_15() {
    let mut talk = Talk::open("auto", "/k");
    talk.pong(1).until(151).event(152, Event::Admitted { first: true }).until(3_000).did();
    talk.frame(3_000, &hex("2801"));
    assert_eq!((talk.did(), talk.may_be()), (vec!["2001".into()], "15 15.1".into()));
}

/// A plain `2001` would mean to a client of netflux 4 that it is connected.
#[test]
fn silent_client_is_pinged_by_probe() {
    let mut talk = Talk::open("auto", "/k");
    talk.pong(1).until(151).event(152, Event::Admitted { first: true }).did();
    talk.until(5_000);
    assert_eq!(talk.did(), ["10012001"]);
    talk.frame(5_100, &hex("2001")).until(10_000);
    assert_eq!(talk.did(), ["2001"]);
}

#[test]
fn member_of_uncertain_dialect_times_out() {
    let mut talk = Talk::open("auto", "/k");
    talk.pong(1)
        .until(151)
        .event(152, Event::Admitted { first: true })
        .frame(200, &hex("0a0b080012076f666665722d4a"))
        .did();
    talk.until(60_000);
    assert_eq!(talk.did().last().map(String::as_str), Some("close Some(4002) Too many missed hearbeats"));
}

#[test]
fn events_wait_for_the_answer_after_a_reverted_assumption() {
    let mut talk = Talk::open("auto", "/k");
    talk.pong(1).until(151).event(152, Event::Admitted { first: true });
    talk.event(200, relayed(Side::Member, Dialect::Sigver20)).frame(300, &hex("1a02080b")).did();
    talk.event(301, Event::LinkEnded { link: LinkId(0x7b), side: Side::Member, normal_closure: false });
    assert_eq!(talk.did(), [""; 0]);
    talk.event(302, Event::Admitted { first: true });
    assert_eq!(talk.did(), ["2001", "120d087b100022076f666665722d4a", "1204087b1000"]);
}

#[test]
fn held_events_are_released_by_first_frame() {
    let mut talk = Talk::open("auto", "/k");
    talk.pong(1).until(151).event(152, Event::Admitted { first: true }).did();
    talk.event(160, relayed(Side::Member, Dialect::Sigver20));
    talk.frame(170, &hex("1801"));
    assert_eq!(talk.did(), ["0a0b087b12076f666665722d4a", "settle"]);
}

/// A client of netflux 2 pings before it answers the probe.
#[test]
fn held_events_wait_for_pong_of_a_client_that_pings() {
    for sender in [Dialect::Sigver20, Dialect::Sigver18] {
        let mut talk = Talk::open("auto", "/k");
        talk.frame(1, &hex("2001"));
        assert_eq!(talk.did(), ["ping", "10012001", "k join", "2801"]);
        talk.event(2, Event::Admitted { first: true }).did();
        talk.event(3, relayed(Side::Member, sender));
        assert_eq!(talk.did(), [""; 0]);
        talk.frame(40, &hex("2801"));
        assert_eq!(talk.did(), ["2001", "0a0b087b1a076f666665722d4a"]);
        assert_eq!(talk.may_be(), "15 15.1");
    }
}

/// The clients of `sigver bench` answer heartbeats, and so the probe, by a heartbeat.
#[test]
fn client_that_answers_probe_by_heartbeat_is_soon_one_of_16_or_18() {
    let mut talk = Talk::open("auto", "/k");
    talk.pong(1).until(151).event(152, Event::Admitted { first: true }).frame(153, &hex("2001"));
    talk.event(160, relayed(Side::Member, Dialect::Sigver18)).did();
    talk.until(302);
    assert_eq!(talk.did(), [""; 0]);
    talk.until(303);
    assert_eq!(talk.did(), ["0a0b087b12076f666665722d4a"]);
}

/// No such client is known, but nothing else distinguishes the two.
#[test]
fn early_heartbeat_without_pong_is_one_of_16_or_18() {
    let mut talk = Talk::open("auto", "/k");
    talk.frame(1, &hex("2001")).event(2, Event::Admitted { first: true });
    talk.event(3, relayed(Side::Member, Dialect::Sigver18)).did();
    talk.until(4_999);
    assert_eq!(talk.did(), ["0a0b087b12076f666665722d4a"]);
    talk.frame(5_001, &hex("2001"));
    assert_eq!(talk.may_be(), "16 18");
}

#[test]
fn late_json_reverts_assumption() {
    let mut talk = Talk::open("auto", "/111111");
    talk.pong(1).until(151).event(152, Event::Admitted { first: true }).did();
    talk.frame(900, &Message::text("{\"type\":\"open\",\"key\":\"k\"}"));
    assert_eq!((talk.did(), talk.may_be()), (vec!["leave".to_owned(), "k open".into()], "4 5".into()));
}

#[test]
fn frame_without_evidence_confirms_nothing() {
    let mut talk = Talk::open("auto", "/k");
    talk.pong(1).until(151).event(152, Event::Admitted { first: true }).did();
    talk.frame(200, &hex(""));
    talk.frame(1_000, &hex("1a02080b"));
    assert_eq!(talk.did(), ["forget", "k attach"]);
}

#[test]
fn client_without_path_times_out_or_speaks_json() {
    let mut talk = Talk::open("auto", "/");
    talk.pong(1).until(59_999);
    assert_eq!(talk.did(), ["ping"]);
    talk.until(60_000);
    assert_eq!(talk.did(), ["close Some(1008) the first message did not arrive in time"]);
    let mut talk = Talk::open("auto", "/");
    talk.frame(1, &hex("1a02080b"));
    assert_eq!(talk.did()[1], "close Some(4741) 4741: The key  is an empty string");
}

#[test]
fn pinned_dialect_starts_at_once() {
    for (protocols, first) in [
        ("sigver-18", &["k join"][..]),
        ("sigver-20", &[]),
        ("current", &[]),
        ("sigver-5", &[]),
        ("protobuf-v1", &["10012001", "k join"]),
    ] {
        assert_eq!(Talk::open(protocols, "/k").did(), first, "{protocols}");
    }
    assert_eq!(
        Talk::open("sigver-17.0.1", "/").did(),
        ["close Some(4001) ERR_KEY: The key  is an empty string"]
    );
}

#[test]
fn key_length_counts_utf_16_units() {
    let path = |units: usize| format!("/{}", "\u{1f600}".repeat(units / 2));
    assert_eq!(Talk::open("sigver-20", &path(512)).did(), [""; 0]);
    assert_eq!(
        Talk::open("sigver-20", &path(514)).did(),
        ["close Some(4741) 4741: The key length exceeds the limit of 512 characters"]
    );
}

#[test]
fn disallowed_dialect_is_answered_in_allowed_one() {
    let mut talk = Talk::open("sigver-18,sigver-20", "/k");
    talk.frame(1, &Message::text("{}"));
    assert_eq!(talk.did(), ["ping", "close Some(4743) Wrong data type"]);
}
