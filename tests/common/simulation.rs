//! A gateway and pages in browsers with synthetic clients, on a simulated network: no socket, no task, and a
//! clock that only moves from one event to the next. Nothing is lost or overtaken on the way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use sigver::protocol::detect::{ConnectionProtocol, Policy, ProtocolSet};
use sigver::protocol::dialect::{Dialect, Output, UpgradeRequest};
use sigver::protocol::frame::Message;
use sigver::server::hub::{Hub, Membership, Outbox};
use sigver::tools::client::dialects::{ClientAction, ClientFrame};

use super::clients::{Client, ClientStep};

/// Simulated time that one step of a case may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// Interval of a client's own heartbeats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// Limit of what may wait for a client, in bytes.
const MAX_PENDING: usize = 1 << 20;

/// Place of a delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// The library learns late that the connection is open; WebSocket pings are answered at once, as browsers
    /// do.
    Page(u64),
    /// Each frame takes half of it, in both directions.
    Path(u64),
}

/// Name of a page within its simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageId(usize);

/// A frame on its way.
#[derive(Clone, Debug)]
enum Frame {
    Message(Message),
    Ping(&'static str),
    Pong(&'static str),
    Close(Option<u16>),
}

impl Frame {
    fn from_client(frame: ClientFrame) -> Frame {
        Frame::Message(match frame {
            ClientFrame::Text(text) => Message::text(text),
            ClientFrame::Binary(bytes) => Message::binary(bytes),
        })
    }
}

/// An event of the simulation.
#[derive(Debug)]
enum Event {
    /// The gateway has upgraded the connection of a page.
    Upgraded(String),
    /// The library of a page learns that the connection is open.
    Opened,
    Heartbeat,
    ToGateway(Frame),
    ToPage(Frame),
}

/// The gateway's end of a connection.
struct Connection {
    protocol: ConnectionProtocol,
    membership: Membership,
}

/// A page with a client in it.
struct Page {
    client: Client,
    one_way: Duration,
    connection: Option<Connection>,
    /// Messages that arrived before the library learned that the connection is open.
    waiting: Option<Vec<Message>>,
    /// Actions of the client that no step has waited for.
    pending: VecDeque<ClientStep>,
    log: Vec<ClientStep>,
    /// The messages that arrived, and when.
    received: Vec<(Instant, Message)>,
    ended: bool,
}

/// A gateway and its clients.
pub struct Simulation {
    hub: Arc<Hub>,
    policy: Arc<Policy>,
    now: Instant,
    pages: Vec<Page>,
    /// By time, and then in the order in which they were scheduled.
    events: BTreeMap<(Instant, u64), (usize, Event)>,
    scheduled: u64,
}

impl Simulation {
    /// Returns a gateway for all protocols, without clients.
    pub fn new() -> Self {
        Self::with_protocols("auto")
    }

    /// Returns a gateway for these protocols, without clients.
    pub fn with_protocols(protocols: &str) -> Self {
        let releases = protocols.parse::<ProtocolSet>().unwrap().releases;
        Simulation {
            hub: Hub::new(),
            policy: Arc::new(Policy::new(releases)),
            // Any time will do: only what is added to it counts.
            now: Instant::now(),
            pages: Vec::new(),
            events: BTreeMap::new(),
            scheduled: 0,
        }
    }

    /// Opens a page; returns when its WebSocket is open, of which its library may not know yet.
    pub fn open(&mut self, path: &str, client: Client, delay: Delay) -> PageId {
        let (one_way, opens_after) = match delay {
            Delay::Page(ms) => (Duration::ZERO, Duration::from_millis(ms)),
            Delay::Path(ms) => (Duration::from_millis(ms) / 2, Duration::ZERO),
        };
        let page = self.pages.len();
        self.pages.push(Page {
            client,
            one_way,
            connection: None,
            waiting: Some(Vec::new()),
            pending: VecDeque::new(),
            log: Vec::new(),
            received: Vec::new(),
            ended: false,
        });
        self.schedule(one_way, page, Event::Upgraded(path.to_owned()));
        self.schedule(2 * one_way + opens_after, page, Event::Opened);
        let open = self.now + 2 * one_way;
        while self.next_time().is_some_and(|next| next < open) {
            self.step();
        }
        self.now = open;
        PageId(page)
    }

    /// Waits until the client of a page step this.
    pub fn until(&mut self, page: PageId, expected: &ClientStep) -> Result<(), String> {
        if self.log(page).contains(expected) {
            return Ok(());
        }
        let give_up_at = self.now + STEP_TIMEOUT;
        loop {
            let state = &mut self.pages[page.0];
            while let Some(step) = state.pending.pop_front() {
                state.log.push(step.clone());
                if step == *expected {
                    return Ok(());
                }
                if let ClientStep::Failed(what) = step {
                    return Err(what);
                }
            }
            if state.ended {
                return Err("the connection ended".to_owned());
            }
            if self.now > give_up_at || !self.step() {
                return Err(format!("waited in vain for {expected:?}, after {:?}", self.log(page)));
            }
        }
    }

    /// Waits until a message has arrived in a page, of which its library may not know yet.
    pub fn until_reached(&mut self, page: PageId) -> Result<(), String> {
        let give_up_at = self.now + STEP_TIMEOUT;
        while self.received(page).is_empty() {
            if self.now > give_up_at || !self.step() {
                return Err("the gateway sent nothing".to_owned());
            }
        }
        Ok(())
    }

    /// Lets this time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.next_time().is_some_and(|next| next <= end) && self.step() {}
        self.now = end;
    }

    /// Waits until the gateway has received all that the client sent, and the client all that the gateway
    /// sent before.
    pub fn settle(&mut self, page: PageId) -> Result<(), String> {
        self.send(page.0, Frame::Ping("sync"));
        self.until(page, &ClientStep::Synced)?;
        self.pages[page.0].log.retain(|step| *step != ClientStep::Synced);
        Ok(())
    }

    /// Closes the connection of a page, and waits for its end.
    pub fn leave(&mut self, page: PageId) -> Result<(), String> {
        self.send(page.0, Frame::Close(Some(1000)));
        let give_up_at = self.now + STEP_TIMEOUT;
        while !self.pages[page.0].ended {
            if self.now > give_up_at || !self.step() {
                return Err("the gateway does not answer the close".to_owned());
            }
        }
        Ok(())
    }

    /// Returns what the client of a page step, as far as a step has waited for it.
    pub fn log(&self, page: PageId) -> &[ClientStep] {
        &self.pages[page.0].log
    }

    /// Returns the messages that arrived in a page, and when.
    pub fn received(&self, page: PageId) -> &[(Instant, Message)] {
        &self.pages[page.0].received
    }

    /// Returns the current time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Returns true if the gateway has treated the client as one of sigver 15 to 18.
    pub fn was_assumed(&self, page: PageId) -> bool {
        let is_v1 =
            |message: &Message| matches!(message, Message::Binary(bytes) if bytes.first() == Some(&0x10));
        self.received(page).iter().any(|(_, message)| is_v1(message))
    }

    fn schedule(&mut self, after: Duration, page: usize, event: Event) {
        self.scheduled += 1;
        self.events.insert((self.now + after, self.scheduled), (page, event));
    }

    /// Sends a frame from a page to the gateway.
    fn send(&mut self, page: usize, frame: Frame) {
        self.schedule(self.pages[page].one_way, page, Event::ToGateway(frame));
    }

    /// Returns the time of the next event or deadline.
    fn next_time(&self) -> Option<Instant> {
        let event = self.events.keys().next().map(|(time, _)| *time);
        event.into_iter().chain(self.next_deadline().map(|(time, _)| time)).min()
    }

    fn next_deadline(&self) -> Option<(Instant, usize)> {
        let deadline =
            |(page, state): (usize, &Page)| Some((state.connection.as_ref()?.protocol.deadline()?, page));
        self.pages.iter().enumerate().filter_map(deadline).min()
    }

    /// Goes on to the next event or deadline. Returns false if there is none.
    fn step(&mut self) -> bool {
        let Some(next) = self.next_time() else { return false };
        self.now = next.max(self.now);
        if let Some((_, page)) = self.next_deadline().filter(|(time, _)| *time <= self.now) {
            self.drive(page, |protocol, now, outputs| protocol.on_timeout(now, outputs));
        } else if let Some((_, (page, event))) = self.events.pop_first() {
            self.handle(page, event);
        }
        self.deliver_room_events();
        true
    }

    fn handle(&mut self, page: usize, event: Event) {
        match event {
            Event::Upgraded(path) => {
                let mut outputs = Vec::new();
                let upgrade = UpgradeRequest { path, favored: false, from_page: true };
                let protocol = ConnectionProtocol::open(&self.policy, upgrade, self.now, &mut outputs);
                let membership = self.hub.register(Outbox::new(MAX_PENDING));
                self.pages[page].connection = Some(Connection { protocol, membership });
                self.execute(page, outputs);
            }
            Event::Opened => {
                self.pages[page].client.open();
                self.react(page);
                for message in self.pages[page].waiting.take().unwrap_or_default() {
                    self.deliver(page, &message);
                }
                if self.pages[page].client.dialect == Dialect::Sigver5 {
                    self.send(page, Frame::Ping("opened"));
                }
                self.schedule(HEARTBEAT_INTERVAL, page, Event::Heartbeat);
            }
            Event::Heartbeat => {
                if self.pages[page].ended {
                    return;
                }
                if let Some(heartbeat) = self.pages[page].client.heartbeat() {
                    self.send(page, Frame::from_client(heartbeat));
                }
                self.schedule(HEARTBEAT_INTERVAL, page, Event::Heartbeat);
            }
            Event::ToGateway(frame) => self.deliver_to_gateway(page, frame),
            Event::ToPage(frame) => self.deliver_to_page(page, frame),
        }
    }

    fn deliver_to_gateway(&mut self, page: usize, frame: Frame) {
        match frame {
            Frame::Message(message) => {
                self.drive(page, |protocol, now, outputs| protocol.on_message(message, now, outputs));
            }
            Frame::Ping(payload) => self.answer(page, Frame::Pong(payload)),
            Frame::Pong(_) => self.drive(page, |protocol, now, _| protocol.on_pong(now)),
            Frame::Close(code) => {
                if let Some(mut connection) = self.pages[page].connection.take() {
                    connection.membership.leave(code == Some(1000));
                    self.answer(page, Frame::Close(code));
                }
            }
        }
    }

    /// Sends a frame from the gateway to a page.
    fn answer(&mut self, page: usize, frame: Frame) {
        self.schedule(self.pages[page].one_way, page, Event::ToPage(frame));
    }

    fn deliver_to_page(&mut self, page: usize, frame: Frame) {
        let state = &mut self.pages[page];
        if state.ended {
            return;
        }
        match frame {
            Frame::Ping(payload) => self.send(page, Frame::Pong(payload)),
            Frame::Pong("opened") => state.pending.push_back(ClientStep::BecameMember),
            Frame::Pong(_) => state.pending.push_back(ClientStep::Synced),
            Frame::Message(message) => {
                state.received.push((self.now, message.clone()));
                match &mut state.waiting {
                    Some(waiting) => waiting.push(message),
                    None => self.deliver(page, &message),
                }
            }
            Frame::Close(code) => {
                state.ended = true;
                if code != Some(1000) {
                    state.pending.push_back(ClientStep::Failed(format!("closed: {code:?}")));
                }
            }
        }
    }

    /// Passes a message to the client of a page.
    fn deliver(&mut self, page: usize, message: &Message) {
        let client = &mut self.pages[page].client;
        match message {
            Message::Text(text) => client.text(text),
            Message::Binary(bytes) => client.bytes(bytes),
        }
        self.react(page);
    }

    fn react(&mut self, page: usize) {
        let state = &mut self.pages[page];
        state.pending.extend(state.client.steps.drain(..));
        for action in std::mem::take(&mut state.client.actions) {
            match action {
                ClientAction::Send(frame) => self.send(page, Frame::from_client(frame)),
                ClientAction::Close(code) => self.send(page, Frame::Close(code)),
                ClientAction::Report(_) => {}
            }
        }
    }

    /// Has the gateway's end of a connection handle something.
    fn drive(
        &mut self,
        page: usize,
        handle: impl FnOnce(&mut ConnectionProtocol, Instant, &mut Vec<Output>),
    ) {
        let mut outputs = Vec::new();
        if let Some(connection) = &mut self.pages[page].connection {
            handle(&mut connection.protocol, self.now, &mut outputs);
        }
        self.execute(page, outputs);
    }

    fn execute(&mut self, page: usize, outputs: Vec<Output>) {
        for output in outputs {
            let Some(connection) = &mut self.pages[page].connection else { return };
            match output {
                Output::Send(outgoing) => match outgoing.into_message() {
                    Ok(message) => self.answer(page, Frame::Message(message)),
                    Err(close) => {
                        self.pages[page].connection = None;
                        self.answer(page, Frame::Close(close.code));
                    }
                },
                Output::Ping => self.answer(page, Frame::Ping("round trip")),
                Output::Enter(key, command) => {
                    connection.membership.enter(&self.policy.room_key(key), command);
                }
                Output::Ask(command) => {
                    connection.membership.command(command);
                }
                Output::Leave => connection.membership.leave(false),
                _ => {}
            }
        }
    }

    /// Encodes what the rooms have for their peers, until they have nothing more.
    fn deliver_room_events(&mut self) {
        let mut delivered = true;
        while std::mem::take(&mut delivered) {
            for page in 0..self.pages.len() {
                let Some(connection) = &self.pages[page].connection else { continue };
                let mut events = VecDeque::new();
                let mut context = Context::from_waker(Waker::noop());
                if let Poll::Ready(taken) =
                    connection.membership.outbox().poll_take(&mut context, &mut events)
                {
                    taken.unwrap();
                    delivered = true;
                    self.drive(page, |protocol, now, outputs| {
                        events.into_iter().for_each(|event| protocol.on_event(event, now, outputs));
                    });
                }
            }
        }
    }
}
