//! One pair of dialects on a server: a member, two joiners, and everything they can do with one another. What is lost
//! is found by comparing what came with what was sent, and what was told with what there are words for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::result::{PairResult, Verdict};
use crate::tools::client::dialects::{ClientEvent, Id, Role};
use crate::tools::client::message::{Delivery, MessageKind, TestMessage};
use crate::tools::client::peer::Peer;
use crate::tools::client::protocol::{DepartureNotice, Protocol};
use crate::tools::client::target::{ConnectError, Target};

/// How long what is to happen may take: what is for a silent member may be held for some seconds.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long what may be lost is waited for, when other things have come.
const QUIET: Duration = Duration::from_millis(1500);
/// How long a departure, or an end, may take to be told.
const TOLD: Duration = Duration::from_secs(3);

/// How a cell is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long the connections are held before the second part, for heartbeats to come.
    pub hold: Duration,
}

impl Default for Options {
    fn default() -> Self {
        // The first heartbeats come after five seconds.
        Options { hold: Duration::from_millis(5800) }
    }
}

/// A key that no one else has. It suits every dialect, and is a proper handle of the relay.
pub fn random_key() -> String {
    format!("m{:015x}", fastrand::u64(..) >> 4)
}

/// Measures how well a member of one dialect and joiners of another work together.
pub async fn measure(target: &Target, member: Protocol, joiner: Protocol, options: Options) -> PairResult {
    let mut room = Room { key: random_key(), lost: Vec::new(), payloads: BTreeMap::new(), marks: 0 };
    let done = match member {
        Protocol::Signaller => room.relay(target).await,
        Protocol::Sigver(_) => room.run(target, member, joiner, options).await,
    };
    let verdict = match (done, room.losses()) {
        (Err(why), _) => Verdict::Failed(why),
        (Ok(()), lost) if lost.is_empty() => Verdict::Ok,
        (Ok(()), lost) => Verdict::Degraded(lost),
    };
    PairResult { member: Some(member), joiner, verdict, told: None }
}

/// The negative control: a joiner of a key that nobody has opened must be refused, or told that it is the first.
pub async fn control(target: &Target, joiner: Protocol) -> PairResult {
    let first = TestMessage::new(MessageKind::Offer, "nobody");
    let told = match Peer::connect(target, joiner, Role::Joiner, &random_key(), Some(&first)).await {
        Err(ConnectError::Refused(status)) if joiner == Protocol::Signaller => Ok(format!("HTTP {status}")),
        Err(error) => Err(error.to_string()),
        Ok(mut peer) => {
            let answer = |heard: &ClientEvent| match heard {
                ClientEvent::Member => Some(Ok("is told that it is the first".to_owned())),
                ClientEvent::Refused(words) => Some(Ok(format!("refused: {words}"))),
                ClientEvent::Closed(code, reason) => {
                    Some(Ok(crate::tools::client::peer::closing(*code, reason)))
                }
                ClientEvent::Bound => Some(Err("is told that it is bound to somebody".to_owned())),
                _ => None,
            };
            let nothing = || Err("neither refused nor told that it is the first".to_owned());
            peer.until(PATIENCE, answer).await.unwrap_or_else(nothing)
        }
    };
    let (verdict, told) = match told {
        Ok(told) => (Verdict::Ok, Some(told)),
        Err(why) => (Verdict::Failed(why), None),
    };
    PairResult { member: None, joiner, verdict, told }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    Up,
    Down,
}

struct Room {
    key: String,
    lost: Vec<String>,
    /// Which kinds of things came how, if not intact.
    payloads: BTreeMap<(Direction, Delivery), Vec<MessageKind>>,
    marks: u32,
}

/// What was sent, and how it came.
type Came = Vec<(MessageKind, Option<(Option<Id>, Delivery)>)>;

impl Room {
    fn parcel(&mut self, shape: MessageKind) -> TestMessage {
        self.marks += 1;
        TestMessage::new(shape, &format!("{}-{}-", self.key, self.marks))
    }

    fn lose(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.lost.contains(&what) {
            self.lost.push(what);
        }
    }

    /// All that was lost, in a fixed order and without anything that differs from run to run.
    fn losses(&self) -> Vec<String> {
        let payloads = self.payloads.iter().map(|((way, state), shapes)| {
            let way = if *way == Direction::Up { "to the member" } else { "to the joiner" };
            let state = match state {
                Delivery::Lost => "lost",
                Delivery::Untyped => "without its kind",
                Delivery::Altered | Delivery::Intact => "altered",
            };
            let shapes: Vec<&str> = shapes.iter().map(|shape| shape.name()).collect();
            format!("{way}: {} {state}", shapes.join(", "))
        });
        payloads.chain(self.lost.iter().cloned()).collect()
    }

    /// Sends these, as far as there are words for them, after those that were sent already, and waits for them.
    /// Something must come.
    async fn exchange(
        &mut self,
        from: &Peer,
        to: &mut Peer,
        way: Direction,
        id: Option<&Id>,
        mut sent: Vec<TestMessage>,
        shapes: &[MessageKind],
    ) -> Result<Came, String> {
        for shape in shapes {
            let parcel = self.parcel(*shape);
            if from.say(id, &parcel) {
                sent.push(parcel);
            }
        }
        let mut came = Came::new();
        // What is sent together comes together, if it comes at all.
        let mut deadline = Instant::now() + PATIENCE;
        for parcel in &sent {
            let how = to.receive(parcel, deadline.saturating_duration_since(Instant::now())).await;
            if how.is_some() {
                deadline = Instant::now() + QUIET;
            }
            came.push((parcel.shape, how));
            if let Some(closed) = to.closed() {
                let (who, what) =
                    if way == Direction::Up { ("member", "joiner") } else { ("joiner", "member") };
                return Err(format!("the {who} is {closed} when the {what} sends"));
            }
        }
        if !came.is_empty() && came.iter().all(|(_, how)| how.is_none()) {
            return Err(match way {
                Direction::Up => "nothing that the joiner sends reaches the member".to_owned(),
                Direction::Down => "nothing that the member sends reaches the joiner".to_owned(),
            });
        }
        Ok(came)
    }

    /// Notes what did not come intact.
    fn note(&mut self, way: Direction, came: &Came) {
        for (shape, how) in came {
            let state = how.as_ref().map_or(Delivery::Lost, |(_, state)| *state);
            if state != Delivery::Intact {
                let shapes = self.payloads.entry((way, state)).or_default();
                if !shapes.contains(shape) {
                    shapes.push(*shape);
                    shapes.sort();
                }
            }
        }
    }

    async fn run(
        &mut self,
        target: &Target,
        member: Protocol,
        joiner: Protocol,
        options: Options,
    ) -> Result<(), String> {
        let mut m = self.admit(target, member).await?;
        let (mut j1, first1) = self.bind(target, joiner, &mut m, 1).await?;
        let (mut j2, first2) = self.bind(target, joiner, &mut m, 2).await?;
        let (id1, id2) = self.talk(&mut m, &mut j1, &mut j2, first1, first2).await?;
        let (id1, id2) = (id1.as_ref(), id2.as_ref());
        sleep((m.since + options.hold).saturating_duration_since(Instant::now())).await;
        self.beats(&mut m, &mut j1)?;
        self.late(&mut m, &mut j1, id1).await.map_err(|why| format!("later: {why}"))?;
        self.ends(&mut m, &mut j1, &mut j2, (id1, id2)).await;
        self.joiner_leaves(&mut m, &mut j2, id2).await;
        if m.closed().is_none() {
            let down = self.once_more(&mut m, &mut j1, id1).await;
            down.map_err(|why| format!("when another joiner has left: {why}"))?;
        }
        self.member_leaves(&mut m, &mut j1).await;
        for (who, peer) in [("member", &m), ("joiner", &j1), ("joiner", &j2)] {
            let strange = peer.log.iter().find_map(|heard| match heard {
                ClientEvent::Strange(what) => Some(what),
                _ => None,
            });
            if let Some(what) = strange {
                return Err(format!("the {who} is told what it does not understand: {what}"));
            }
        }
        Ok(())
    }

    async fn admit(&mut self, target: &Target, tongue: Protocol) -> Result<Peer, String> {
        let member = Peer::connect(target, tongue, Role::Member, &self.key, None).await;
        let mut member = member.map_err(|error| format!("the member: {error}"))?;
        let admitted = match tongue.words().admits {
            true => expect(&mut member, &ClientEvent::Member).await,
            false => match member.fence(PATIENCE).await {
                true => Ok(()),
                false => Err(member.closed().unwrap_or_else(|| "not answered".to_owned())),
            },
        };
        admitted.map_err(|why| format!("the member is not admitted, but {why}"))?;
        Ok(member)
    }

    /// A joiner that is bound to the member, and what it sent as it joined.
    async fn bind(
        &mut self,
        target: &Target,
        tongue: Protocol,
        member: &mut Peer,
        number: usize,
    ) -> Result<(Peer, Vec<TestMessage>), String> {
        let first = tongue.words().joins_with_data.then(|| self.parcel(MessageKind::Offer));
        let joiner = Peer::connect(target, tongue, Role::Joiner, &self.key, first.as_ref()).await;
        let mut joiner = joiner.map_err(|error| format!("the joiner: {error}"))?;
        let bound = match tongue.words().binds {
            true => expect(&mut joiner, &ClientEvent::Bound).await,
            false => match joiner.fence(PATIENCE).await {
                true => Ok(()),
                false => Err(joiner.closed().unwrap_or_else(|| "not answered".to_owned())),
            },
        };
        bound.map_err(|why| format!("the joiner is not bound, but {why}"))?;
        if member.tongue.words().announces {
            let mut arrivals = 0;
            let all = |heard: &ClientEvent| {
                arrivals += usize::from(*heard == ClientEvent::Arrival);
                (arrivals >= number).then_some(())
            };
            member.until(PATIENCE, all).await.ok_or("the member is not told that somebody joins")?;
        }
        Ok((joiner, first.into_iter().collect()))
    }

    /// Both joiners talk with the member, which answers each. Returns their ids.
    async fn talk(
        &mut self,
        m: &mut Peer,
        j1: &mut Peer,
        j2: &mut Peer,
        first1: Vec<TestMessage>,
        first2: Vec<TestMessage>,
    ) -> Result<(Option<Id>, Option<Id>), String> {
        let addresses = m.tongue.words().addresses;
        // Whose request carries data has sent its offer with it.
        let offers = if first1.is_empty() { MessageKind::ALL.as_slice() } else { &MessageKind::ALL[1..] };
        let up1 = self.exchange(j1, m, Direction::Up, None, first1, offers).await?;
        self.note(Direction::Up, &up1);
        let offer: &[MessageKind] = if first2.is_empty() { &[MessageKind::Offer] } else { &[] };
        let up2 = self.exchange(j2, m, Direction::Up, None, first2, offer).await?;
        self.note(Direction::Up, &up2);
        // If nothing names the joiner, it is known by its place.
        let id = |came: &Came, place: u32| {
            let told = came.iter().find_map(|(_, how)| how.as_ref()?.0.clone());
            told.or(addresses.then(|| Id::number(place)))
        };
        let (id1, id2) = (id(&up1, 0), id(&up2, 1));
        if addresses && id1 == id2 {
            return Err("both joiners have the same id".to_owned());
        }
        let down1 =
            self.exchange(m, j1, Direction::Down, id1.as_ref(), Vec::new(), &MessageKind::ALL).await?;
        self.note(Direction::Down, &down1);
        let down2 = self.once_more(m, j2, id2.as_ref()).await;
        down2.map_err(|why| format!("of two joiners: {why}"))?;
        self.apart(j1, j2, addresses).await?;
        Ok((id1, id2))
    }

    /// What is for one joiner must not reach the other.
    async fn apart(&mut self, j1: &mut Peer, j2: &mut Peer, addresses: bool) -> Result<(), String> {
        let (mut received, mut twice) = (Vec::new(), false);
        for peer in [&mut *j1, &mut *j2] {
            peer.fence(QUIET).await;
            peer.catch_up();
            let parcels = peer.log.iter().filter_map(|heard| match heard {
                ClientEvent::TestMessage { got, .. } => Some(got.clone()),
                _ => None,
            });
            let parcels: Vec<_> = parcels.collect();
            twice |= parcels.iter().any(|got| received.contains(got));
            received.extend(parcels);
        }
        match (twice, addresses) {
            (false, _) => {}
            (true, true) => return Err("what is for one joiner reaches the other, too".to_owned()),
            (true, false) => self.lose("an answer reaches every joiner that waits"),
        }
        Ok(())
    }

    /// Nobody was closed, and everybody was asked whether it is there whose dialect has words for that.
    fn beats(&mut self, m: &mut Peer, j1: &mut Peer) -> Result<(), String> {
        for (who, peer) in [("member", &mut *m), ("joiner", &mut *j1)] {
            peer.catch_up();
            if let Some(closed) = peer.closed() {
                return Err(format!("the {who} is {closed} while nothing happens"));
            }
            let words = peer.tongue.words();
            let asked = if who == "member" { words.beats_member } else { words.beats_joiner };
            if asked && !peer.log.contains(&ClientEvent::Beat) {
                self.lose(format!("no heartbeats for the {who}"));
            }
        }
        Ok(())
    }

    /// Both still reach one another.
    async fn late(&mut self, m: &mut Peer, j1: &mut Peer, id: Option<&Id>) -> Result<(), String> {
        self.once_more(m, j1, id).await?;
        let up = self.exchange(j1, m, Direction::Up, None, Vec::new(), &[MessageKind::Offer]).await?;
        self.note(Direction::Up, &up);
        Ok(())
    }

    /// The member still reaches the joiner, with an answer, or with an offer if it has no words for answers.
    async fn once_more(&mut self, m: &mut Peer, joiner: &mut Peer, id: Option<&Id>) -> Result<(), String> {
        let answers = [self.parcel(MessageKind::Answer), self.parcel(MessageKind::Offer)];
        let said: Vec<TestMessage> =
            answers.into_iter().find(|answer| m.say(id, answer)).into_iter().collect();
        let down = self.exchange(m, joiner, Direction::Down, id, said, &[]).await;
        match down {
            Ok(down) => self.note(Direction::Down, &down),
            Err(_) if !m.tongue.words().addresses && joiner.closed().is_none() => {
                self.lose("each joiner gets one answer, the first");
            }
            Err(why) => return Err(why),
        }
        Ok(())
    }

    /// One joiner says that it has nothing more to say, and the member says so to the other.
    async fn ends(
        &mut self,
        m: &mut Peer,
        j1: &mut Peer,
        j2: &mut Peer,
        (id1, id2): (Option<&Id>, Option<&Id>),
    ) {
        let hears = |peer: &Peer| peer.tongue.words().hears_end;
        if j1.end(None) && hears(m) && !is_told(m, |from| from == id1, ended).await {
            self.lose("the joiner's end is not told");
        }
        if m.end(id2) && hears(j2) && !is_told(j2, |_| true, ended).await {
            self.lose("the member's end is not told");
        }
    }

    async fn joiner_leaves(&mut self, m: &mut Peer, j2: &mut Peer, id: Option<&Id>) {
        j2.leave(PATIENCE).await;
        if m.tongue.words().joiner_left == DepartureNotice::OnNextSend {
            let parcel = self.parcel(MessageKind::Answer);
            m.say(id, &parcel);
        }
        let words = m.tongue.words().joiner_left;
        if words != DepartureNotice::Never && !is_told(m, |from| from.is_none() || from == id, gone).await {
            self.lose("that a joiner has left is not told");
        }
    }

    async fn member_leaves(&mut self, m: &mut Peer, j1: &mut Peer) {
        m.leave(PATIENCE).await;
        if j1.tongue.words().member_left == DepartureNotice::OnNextSend {
            let parcel = self.parcel(MessageKind::Offer);
            j1.say(None, &parcel);
        }
        if j1.tongue.words().member_left != DepartureNotice::Never && !is_told(j1, |_| true, gone).await {
            self.lose("that the member has left is not told");
        }
    }

    /// The path relay: one listener, one connector.
    async fn relay(&mut self, target: &Target) -> Result<(), String> {
        let connect = |role, key: String| async move {
            Peer::connect(target, Protocol::Signaller, role, &key, None)
                .await
                .map_err(|error| error.to_string())
        };
        let mut m =
            connect(Role::Member, self.key.clone()).await.map_err(|why| format!("the listener: {why}"))?;
        let mut j =
            connect(Role::Joiner, self.key.clone()).await.map_err(|why| format!("the connector: {why}"))?;
        if connect(Role::Joiner, self.key.clone()).await.is_ok() {
            return Err("two connectors have one listener".to_owned());
        }
        let up = self.exchange(&j, &mut m, Direction::Up, None, Vec::new(), &MessageKind::ALL).await?;
        self.note(Direction::Up, &up);
        let down = self.exchange(&m, &mut j, Direction::Down, None, Vec::new(), &MessageKind::ALL).await?;
        self.note(Direction::Down, &down);
        self.joiner_leaves(&mut m, &mut j, None).await;
        Ok(())
    }
}

/// Waits for this, and says what came instead.
async fn expect(peer: &mut Peer, expected: &ClientEvent) -> Result<(), String> {
    let answer = |heard: &ClientEvent| match heard {
        heard if heard == expected => Some(Ok(())),
        ClientEvent::Member => Some(Err("told that it is the first".to_owned())),
        ClientEvent::Bound => Some(Err("told that it is bound to another".to_owned())),
        ClientEvent::Refused(words) => Some(Err(format!("refused: {words}"))),
        ClientEvent::Strange(what) => Some(Err(format!("told what it does not understand: {what}"))),
        ClientEvent::Closed(code, reason) => Some(Err(crate::tools::client::peer::closing(*code, reason))),
        _ => None,
    };
    peer.until(PATIENCE, answer).await.unwrap_or_else(|| Err("not answered".to_owned()))
}

fn ended(heard: &ClientEvent) -> Option<Option<&Id>> {
    match heard {
        ClientEvent::End { from } => Some(from.as_ref()),
        _ => None,
    }
}

/// A close tells it, too.
fn gone(heard: &ClientEvent) -> Option<Option<&Id>> {
    match heard {
        ClientEvent::Gone { from } => Some(from.as_ref()),
        ClientEvent::Closed(..) => Some(None),
        _ => None,
    }
}

async fn is_told(
    peer: &mut Peer,
    of: impl Fn(Option<&Id>) -> bool,
    what: fn(&ClientEvent) -> Option<Option<&Id>>,
) -> bool {
    peer.until(TOLD, |heard| what(heard).filter(|from| of(*from)).map(|_| ())).await.is_some()
}
