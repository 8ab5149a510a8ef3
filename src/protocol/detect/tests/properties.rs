//! Invariants for any frames, in any order.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{TestCaseError, TestRunner};

use super::*;
use crate::protocol::dialect::{Evidence, Family, Release};
use crate::protocol::model::RoomKey;

fn any_frame() -> impl Strategy<Value = Message> {
    let tags = [0x08u8, 0x0a, 0x10, 0x12, 0x18, 0x1a, 0x20, 0x22, 0x28, 0x01, 0x00, 0xff, 0x03];
    let bytes = prop::collection::vec(prop_oneof![select(tags.to_vec()), any::<u8>()], 0..24);
    let names = [
        "type", "key", "index", "joinkey", "offer", "answer", "join", "open", "id", "data", "ping", "pong",
        "x",
    ];
    let values = [
        "null",
        "0",
        "1",
        "-1",
        "1e300",
        "7",
        "\"\"",
        "\"k\"",
        "\"open\"",
        "\"join\"",
        "\"7\"",
        "true",
        "[]",
        "{\"a\":1.50}",
    ];
    let attribute = (select(names.to_vec()), select(values.to_vec()));
    let json = prop::collection::vec(attribute, 0..4).prop_map(|attributes| {
        let inner: Vec<String> =
            attributes.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", inner.join(","))
    });
    prop_oneof![
        4 => bytes.prop_map(|bytes| Message::Binary(bytes.into())),
        3 => json.clone().prop_map(Message::text),
        1 => json.prop_map(|text| Message::Binary(text.into_bytes().into())),
        1 => select(vec!["5", "null", "[]", "\"open\""]).prop_map(Message::text),
        1 => ".{0,12}".prop_map(Message::text),
    ]
}

/// Frames of well-behaved clients of the dialect, or of one like it.
fn client_frame(dialect: Dialect) -> impl Strategy<Value = Message> {
    let frames: &[&str] = match dialect.family() {
        Family::Json if dialect < Dialect::Sigver6 => &[
            "{\"type\":\"open\",\"key\":\"k\"}",
            "{\"type\":\"join\",\"key\":\"k\"}",
            "{\"type\":\"offer\",\"offer\":\"o\",\"index\":0}",
            "{\"type\":\"candidate\",\"candidate\":\"c\",\"index\":0}",
        ],
        Family::Json => &[
            "{\"open\":\"k\"}",
            "{\"join\":\"k\"}",
            "{\"id\":\"7\",\"data\":\"offer\"}",
            "{\"id\":7,\"data\":\"offer\"}",
            "{\"data\":\"answer\"}",
        ],
        Family::ProtobufV1 => {
            &["0a0b08001a076f666665722d4a", "0a0b087b12076f666665722d4a", "0a022001", "1801", "2001", "2801"]
        }
        Family::ProtobufV2 => &[
            "1a02080b",
            "1a03080b0c",
            "0801",
            "120b08001a076f666665722d4a",
            "120d0800100022076f666665722d4a",
            "120408001801",
        ],
    };
    let json = dialect.family() == Family::Json;
    select(frames).prop_map(move |text| if json { Message::text(text) } else { hex(text) })
}

/// One input of a connection.
#[derive(Clone, Debug)]
enum Input {
    Frame(Message),
    Pong,
    Event(Event),
}

fn input(dialect: Dialect) -> impl Strategy<Value = Input> {
    let link = prop_oneof![Just(LinkId(7)), Just(LinkId(0x7b))];
    let side = select(vec![Side::Member, Side::Joiner]);
    let events = prop_oneof![
        2 => link.clone().prop_map(|link| Event::LinkedToJoiner { link }),
        2 => (side.clone(), select(Dialect::ALL.to_vec())).prop_map(|(side, from)| relayed(side, from)),
        1 => (link, side, any::<bool>())
            .prop_map(|(link, side, normal_closure)| Event::LinkEnded { link, side, normal_closure }),
    ];
    prop_oneof![
        12 => client_frame(dialect).prop_map(Input::Frame),
        1 => any_frame().prop_map(Input::Frame),
        1 => Just(Input::Pong),
        4 => events.prop_map(Input::Event),
    ]
}

/// A configuration, and the inputs of one connection with the pauses before them, in milliseconds.
#[derive(Clone, Debug)]
struct Case {
    protocols: String,
    rooms: RoomPolicy,
    path: String,
    /// The rooms that the client enters are empty.
    first: bool,
    inputs: Vec<(u64, Input)>,
}

fn any_case() -> impl Strategy<Value = Case> {
    let release = select(Release::ALL.to_vec());
    let pause = prop_oneof![12 => 0u64..20, 5 => 0u64..3_000, 1 => 0u64..70_000];
    let path = prop_oneof![
        1 => Just("/".to_owned()),
        12 => Just("/k".to_owned()),
        1 => Just("//a/b".to_owned()),
        1 => Just(format!("/{}", "k".repeat(600))),
    ];
    release.prop_flat_map(move |release| {
        let protocols = prop_oneof![
            3 => Just("auto".to_owned()),
            1 => Just(release.to_string()),
            1 => select(vec!["json", "protobuf-v1", "sigver-18,sigver-20", "sigver-15,sigver-9"])
                .prop_map(str::to_owned),
        ];
        let rooms = prop_oneof![2 => Just(RoomPolicy::Shared), 1 => Just(RoomPolicy::Partitioned)];
        let inputs = prop::collection::vec((pause.clone(), input(release.dialect())), 0..12);
        (protocols, rooms, path.clone(), any::<bool>(), inputs).prop_map(
            |(protocols, rooms, path, first, inputs)| Case { protocols, rooms, path, first, inputs },
        )
    })
}

/// Number of cases in which something happened.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    established: u32,
    closed: u32,
    entered: u32,
    asked: u32,
    placed: u32,
    narrowed: u32,
    corrected: u32,
    early: u32,
    text: u32,
    binary: u32,
}

/// A connection whose outputs are checked after each call.
struct Checked {
    talk: Talk,
    /// Time since the upgrade, in milliseconds.
    now: u64,
    /// The releases that were reported last.
    reported: ReleaseSet,
    /// Events with which the rooms answer.
    answers: Vec<Event>,
    first: bool,
    partitioned: bool,
    room: Option<RoomKey>,
    seen: Seen,
}

impl Checked {
    fn ended(&self) -> bool {
        self.seen.closed > 0
    }

    fn deadline(&self) -> Option<Instant> {
        self.talk.conversation.deadline()
    }

    /// Checks the outputs of one call.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let candidates = self.talk.conversation.candidates();
        for output in std::mem::take(&mut self.talk.steps) {
            prop_assert!(!self.ended(), "{output:?} after the close frame");
            match output {
                Output::Send(outgoing) => match outgoing.into_message() {
                    Ok(Message::Text(text)) => {
                        self.seen.text = 1;
                        let json = candidates.all(|release| release.family() == Family::Json);
                        prop_assert!(json, "{text} to {candidates}");
                    }
                    Ok(Message::Binary(bytes)) => {
                        self.seen.binary = 1;
                        let json = candidates.any(|release| release.family() == Family::Json);
                        prop_assert!(!json, "{bytes:?} to {candidates}");
                    }
                    Err(_) => self.seen.closed = 1,
                },
                Output::Enter(key, command) => {
                    self.seen.entered = 1;
                    self.room = Some(key);
                    let linked = !self.first && !matches!(command, Command::Open(_));
                    self.answers.push(match linked {
                        true => Event::LinkedToMember { link: LinkId(9) },
                        false => Event::Admitted { first: self.first },
                    });
                }
                // Outside a room, a command has no effect.
                Output::Ask(_) => self.seen.asked |= u32::from(self.room.is_some()),
                Output::Leave => self.room = None,
                Output::Recognised(releases, evidence) => {
                    let corrected = evidence == Evidence::Corrected;
                    self.seen.corrected |= u32::from(corrected);
                    self.seen.narrowed |= u32::from(releases.len() < self.reported.len());
                    let narrower = releases.iter().all(|release| self.reported.contains(release));
                    prop_assert!(corrected || narrower, "{releases} after {}", self.reported);
                    self.reported = releases;
                }
                Output::Ping | Output::Mixed(..) => {}
            }
        }
        prop_assert_eq!(candidates, self.reported);
        if self.ended() {
            return Ok(());
        }
        if let (Some(generation), Some(room), true) =
            (candidates.peer_protocol(), &self.room, self.partitioned)
        {
            self.seen.placed = 1;
            let expected = RoomKey::from(room.as_str()).with_partition(generation.partition_id());
            prop_assert_eq!(room, &expected, "{} in the room of another generation", candidates);
        }
        if candidates.len() == Dialect::ALL.len() {
            prop_assert!(self.deadline().is_some(), "an unknown client has no timeout");
        }
        self.seen.established |= u32::from(self.talk.conversation.is_established());
        Ok(())
    }

    /// Lets the time pass until the next input, and calls once more before a deadline.
    fn wait(&mut self, pause: u64) -> Result<(), TestCaseError> {
        self.now += pause;
        let now = self.talk.at(self.now);
        while let Some(due) = self.deadline().filter(|due| *due <= now && !self.ended()) {
            self.talk.conversation.on_timeout(due, &mut self.talk.steps);
            self.check()?;
            let next = self.deadline().filter(|_| !self.ended());
            prop_assert!(next.is_none_or(|next| next > due), "the deadline stays in the past");
        }
        if !self.ended() {
            let before = self.deadline();
            self.talk.conversation.on_timeout(now, &mut self.talk.steps);
            prop_assert!(self.talk.steps.is_empty(), "{:?} before the deadline", self.talk.steps);
            prop_assert_eq!(self.deadline(), before, "the deadline moves without input");
            self.seen.early |= u32::from(before.is_some());
        }
        Ok(())
    }

    fn event(&mut self, event: Event) -> Result<(), TestCaseError> {
        if !self.ended() {
            self.talk.conversation.on_event(event, self.talk.at(self.now), &mut self.talk.steps);
            self.check()?;
        }
        Ok(())
    }

    fn input(&mut self, input: Input) -> Result<(), TestCaseError> {
        let now = self.talk.at(self.now);
        match input {
            Input::Frame(message) => self.talk.conversation.on_message(message, now, &mut self.talk.steps),
            Input::Pong => self.talk.conversation.on_pong(now),
            Input::Event(event) if self.seen.entered > 0 => {
                self.talk.conversation.on_event(event, now, &mut self.talk.steps);
            }
            Input::Event(_) => {}
        }
        self.check()?;
        for event in std::mem::take(&mut self.answers) {
            self.event(event)?;
        }
        Ok(())
    }
}

fn run(case: Case) -> Result<Seen, TestCaseError> {
    let partitioned = matches!(case.rooms, RoomPolicy::Partitioned);
    let policy = Policy { rooms: case.rooms, ..(*policy(&case.protocols)).clone() };
    let reported = policy.releases;
    let talk = Talk::with(&Arc::new(policy), &case.path);
    let mut connection = Checked {
        talk,
        now: 0,
        reported,
        answers: Vec::new(),
        first: case.first,
        partitioned,
        room: None,
        seen: Seen::default(),
    };
    connection.check()?;
    for (pause, input) in case.inputs {
        connection.wait(pause)?;
        if connection.ended() {
            break;
        }
        connection.input(input)?;
    }
    Ok(connection.seen)
}

/// No frame of any dialect causes a panic or breaks an invariant, and the cases reach all that is checked.
#[test]
fn invariants_hold_for_any_frames() {
    let seen = std::cell::RefCell::new(Vec::new());
    let config = ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&any_case(), |case| {
        seen.borrow_mut().push(run(case)?);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let seen = seen.into_inner();
    let share = |count: fn(&Seen) -> u32| seen.iter().map(count).sum::<u32>() * 100 / 1_000;
    let shares = [
        ("established", share(|seen| seen.established), 20),
        ("closed", share(|seen| seen.closed), 20),
        ("entered", share(|seen| seen.entered), 20),
        ("asked", share(|seen| seen.asked), 10),
        ("placed", share(|seen| seen.placed), 5),
        ("narrowed", share(|seen| seen.narrowed), 20),
        ("corrected", share(|seen| seen.corrected), 2),
        ("called before the deadline", share(|seen| seen.early), 30),
        ("sent text", share(|seen| seen.text), 5),
        ("sent bytes", share(|seen| seen.binary), 15),
    ];
    for (what, percent, least) in shares {
        assert!(percent >= least, "too few cases {what}: {shares:?}");
    }
}

fn any_history() -> impl Strategy<Value = History> {
    any::<[bool; 7]>().prop_map(
        |[probed, probe_expired, spoken, heartbeat_seen, member, joining, identity_probed]| History {
            probed,
            probe_expired,
            spoken,
            heartbeat_seen,
            member,
            joining,
            identity_probed,
        },
    )
}

proptest! {
    /// Evidence only narrows, whatever was sent before, and the same frame is no evidence twice.
    #[test]
    fn evidence_only_narrows(
        frame in prop_oneof![any_frame(), select(Dialect::ALL.to_vec()).prop_flat_map(client_frame)],
        history in any_history(),
        dialects in prop::sample::subsequence(Dialect::ALL.to_vec(), 0..=Dialect::ALL.len()),
    ) {
        let before: ReleaseSet = dialects.into_iter().map(Dialect::release).collect();
        let after = narrow(FrameFacts::new(&ParsedMessage::new(frame.clone())), history, before);
        prop_assert!(after.iter().all(|release| before.contains(release)), "{before} to {after}");
        prop_assert_eq!(narrow(FrameFacts::new(&ParsedMessage::new(frame.clone())), history, after), after);
    }

    /// The order of evidence does not matter as long as nothing was sent on an assumption.
    #[test]
    fn order_of_evidence_does_not_matter(first in any_frame(), second in any_frame()) {
        let auto = policy("auto").releases;
        let one = |set, frame| narrow(FrameFacts::new(&ParsedMessage::new(Message::clone(frame))), History::default(), set);
        prop_assert_eq!(one(one(auto, &first), &second), one(one(auto, &second), &first));
    }
}

#[test]
fn probe_is_one_frame() {
    assert_eq!(PROBE, Bytes::from_static(&[0x10, 0x01, 0x20, 0x01]));
}
