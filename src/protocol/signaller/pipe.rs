//! The rules of one pipe, from the moment that somebody listens: what is passed on, what ends it, and how both ends
//! are told. Pure: frames and times come in, frames for either side come out. No handle, no socket.

use std::mem;
use std::time::{Duration, Instant};

use super::PipeLimits;
use crate::protocol::frame::{Close, Message, Outgoing};

/// An end of the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Who listened.
    Listener,
    /// Who connected.
    Connector,
}

impl Side {
    /// The one opposite.
    pub(crate) const fn other(self) -> Self {
        match self {
            Side::Listener => Side::Connector,
            Side::Connector => Side::Listener,
        }
    }
}

/// How a side ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It closed, with this code if it gave one. The WebSocket answers it, with its own code and reason.
    Closed(Option<u16>),
    /// It is gone without a word.
    Gone,
    /// It sent a message longer than allowed.
    TooBig,
    /// It broke the WebSocket protocol; the close that says so.
    Violation(Close),
}

/// A frame for one side. A close frame is the last for it.
pub(crate) type Action = (Side, Outgoing);

/// How much may wait for a connector, in bytes. With the original limits (8 messages of 1024 bytes) there is room for
/// all that a listener may ever send. If the operator allows more, a listener that goes on is not read until somebody
/// connects, and only then its end is seen.
const MAX_EARLY: usize = 64 * 1024;
/// What a frame costs beside its bytes: empty ones are not free.
const PER_FRAME: usize = 64;

/// Far enough: what is set to last longer than time can count lasts this long.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

#[derive(Debug)]
enum State {
    /// Nobody connected yet. What the listener sent is kept.
    Waiting { early: Vec<Message>, size: usize },
    /// Both are there.
    Open,
    /// Both were told that it is over.
    Over,
}

/// One pipe.
#[derive(Debug)]
pub(crate) struct Pipe {
    state: State,
    deadline: Instant,
    pipe_deadline: Duration,
    max_messages: u32,
    /// Number of messages from the listener.
    from_listener: u32,
    /// Number of messages from the connector.
    from_connector: u32,
}

impl Pipe {
    /// Somebody listens.
    pub(crate) fn listen(options: &PipeLimits, now: Instant) -> Self {
        Pipe {
            state: State::Waiting { early: Vec::new(), size: 0 },
            deadline: after(now, options.listen_deadline),
            pipe_deadline: options.pipe_deadline,
            // A pipe ends with a message: there is no less than one.
            max_messages: options.max_messages.max(1),
            from_listener: 0,
            from_connector: 0,
        }
    }

    /// Somebody connected: gets what the listener said already.
    pub(crate) fn on_connect(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let State::Waiting { early, .. } = &mut self.state else {
            return;
        };
        actions.extend(early.drain(..).map(|message| (Side::Connector, message.into())));
        self.state = State::Open;
        self.deadline = after(now, self.pipe_deadline);
        if self.is_used_up(Side::Listener) {
            self.end(TOO_MANY, actions);
        }
    }

    /// A message came.
    pub(crate) fn on_message(&mut self, from: Side, message: Message, actions: &mut Vec<Action>) {
        if self.is_over() {
            return;
        }
        let too_many = self.is_used_up(from);
        let count = match from {
            Side::Listener => &mut self.from_listener,
            Side::Connector => &mut self.from_connector,
        };
        *count = count.saturating_add(1);
        match &mut self.state {
            State::Waiting { early, size } => {
                // The last message that is allowed ends the pipe only when it is delivered, as in the original. One
                // more could never be: the original left it unread, we let go of the listener.
                if too_many {
                    self.end(TOO_MANY, actions);
                } else {
                    *size = size.saturating_add(PER_FRAME).saturating_add(message.len());
                    early.push(message);
                }
            }
            State::Open => {
                actions.push((from.other(), message.into()));
                if self.is_used_up(from) {
                    self.end(TOO_MANY, actions);
                }
            }
            State::Over => {}
        }
    }

    /// A side ended.
    pub(crate) fn on_end(&mut self, of: Side, end: End, actions: &mut Vec<Action>) {
        if self.is_over() {
            return;
        }
        let other = match &end {
            End::Closed(Some(1000)) => Close::new(1000, "Normal Closure"),
            End::Closed(_) | End::Gone | End::TooBig | End::Violation(_) => INTERNAL,
        };
        // While it waits, a listener has nobody opposite; but the connector that could not come ends in its face.
        let alone = matches!(self.state, State::Waiting { .. }) && of == Side::Listener;
        self.state = State::Over;
        match end {
            End::Closed(_) | End::Gone => {}
            End::TooBig => actions.push((of, Outgoing::Close(Close::new(1009, "")))),
            End::Violation(close) => actions.push((of, Outgoing::Close(close))),
        }
        if !alone {
            actions.push((of.other(), Outgoing::Close(other)));
        }
    }

    /// Time passed: looks whether the deadline is over.
    pub(crate) fn on_time(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if now < self.deadline {
            return;
        }
        match self.state {
            State::Waiting { .. } => self.end((4000, "Listen Timeout"), actions),
            State::Open => self.end((4001, "Pipe Timeout"), actions),
            State::Over => {}
        }
    }

    /// The server stops.
    pub(crate) fn on_stop(&mut self, actions: &mut Vec<Action>) {
        self.end((1001, "the server is shutting down"), actions);
    }

    /// When to call [`on_time`](Self::on_time).
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether it is over: nothing comes out any more.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Whether a side should be read: not if there is no room for what it sends.
    pub(crate) fn wants(&self, from: Side) -> bool {
        match &self.state {
            State::Waiting { size, .. } => from == Side::Listener && *size < MAX_EARLY,
            State::Open => true,
            State::Over => false,
        }
    }

    fn is_used_up(&self, from: Side) -> bool {
        let count = match from {
            Side::Listener => self.from_listener,
            Side::Connector => self.from_connector,
        };
        count >= self.max_messages
    }

    /// The same close for whoever is there.
    fn end(&mut self, (code, reason): (u16, &'static str), actions: &mut Vec<Action>) {
        let was = mem::replace(&mut self.state, State::Over);
        let close = || Outgoing::Close(Close::new(code, reason));
        match was {
            State::Waiting { .. } => actions.push((Side::Listener, close())),
            State::Open => actions.extend([(Side::Listener, close()), (Side::Connector, close())]),
            State::Over => {}
        }
    }
}

const TOO_MANY: (u16, &str) = (4002, "Too Many Messages");

/// What a side gets when the other is lost, whatever the reason.
pub(crate) const INTERNAL: Close =
    Close { code: Some(1011), reason: std::borrow::Cow::Borrowed("Internal Error") };

fn after(now: Instant, duration: Duration) -> Instant {
    now.checked_add(duration).or_else(|| now.checked_add(FOREVER)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::Side::{Connector, Listener};
    use super::*;

    /// A pipe with a clock of its own.
    struct Bench {
        start: Instant,
        pipe: Pipe,
    }

    impl Bench {
        fn with(options: &PipeLimits) -> Self {
            // Any instant will do: what counts is what is added to it.
            let start = Instant::now();
            Bench { start, pipe: Pipe::listen(options, start) }
        }

        fn new() -> Self {
            Bench::with(&PipeLimits::default())
        }

        fn open() -> Self {
            let mut bench = Bench::new();
            assert_eq!(bench.connect(0), []);
            bench
        }

        fn at(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        fn done(&mut self, step: impl FnOnce(&mut Pipe, &mut Vec<Action>)) -> Vec<Action> {
            let mut actions = Vec::new();
            step(&mut self.pipe, &mut actions);
            actions
        }

        fn connect(&mut self, millis: u64) -> Vec<Action> {
            let now = self.at(millis);
            self.done(|pipe, actions| pipe.on_connect(now, actions))
        }

        fn says(&mut self, from: Side, text: &str) -> Vec<Action> {
            self.done(|pipe, actions| pipe.on_message(from, Message::text(text), actions))
        }

        fn ends(&mut self, of: Side, end: End) -> Vec<Action> {
            self.done(|pipe, actions| pipe.on_end(of, end, actions))
        }

        fn time(&mut self, millis: u64) -> Vec<Action> {
            let now = self.at(millis);
            self.done(|pipe, actions| pipe.on_time(now, actions))
        }
    }

    fn text(to: Side, text: &str) -> Action {
        (to, Message::text(text.to_owned()).into())
    }

    fn close(to: Side, code: u16, reason: &'static str) -> Action {
        (to, Outgoing::Close(Close::new(code, reason)))
    }

    fn both(code: u16, reason: &'static str) -> [Action; 2] {
        [close(Listener, code, reason), close(Connector, code, reason)]
    }

    #[test]
    fn frames_pass_as_they_are() {
        let mut bench = Bench::open();
        assert_eq!(bench.says(Connector, "hello"), [text(Listener, "hello")]);
        assert_eq!(bench.says(Connector, ""), [text(Listener, "")]);
        for frame in [Message::binary(vec![0, 1, 255]), Message::binary(vec![])] {
            let passed = bench.done(|pipe, actions| pipe.on_message(Listener, frame.clone(), actions));
            assert_eq!(passed, [(Connector, frame.into())]);
        }
        assert!(!bench.pipe.is_over());
    }

    #[test]
    fn what_came_early_is_delivered_in_order() {
        let mut bench = Bench::new();
        assert_eq!(bench.says(Listener, "early1"), []);
        assert_eq!(bench.says(Listener, "early2"), []);
        let expected = [text(Connector, "early1"), text(Connector, "early2")];
        assert_eq!(bench.connect(404), expected);
        assert_eq!(bench.says(Listener, "late"), [text(Connector, "late")]);
    }

    #[test]
    fn a_side_that_ends_ends_the_other() {
        let violation = Close::new(1002, "no");
        for (end, own, code, reason) in [
            (End::Closed(Some(1000)), None, 1000, "Normal Closure"),
            (End::Closed(Some(1001)), None, 1011, "Internal Error"),
            (End::Closed(Some(4321)), None, 1011, "Internal Error"),
            (End::Closed(None), None, 1011, "Internal Error"),
            (End::Gone, None, 1011, "Internal Error"),
            (End::TooBig, Some(Close::new(1009, "")), 1011, "Internal Error"),
            (End::Violation(violation.clone()), Some(violation), 1011, "Internal Error"),
        ] {
            for side in [Listener, Connector] {
                let mut bench = Bench::open();
                let mut expected: Vec<_> =
                    own.iter().map(|own| (side, Outgoing::Close(own.clone()))).collect();
                expected.push(close(side.other(), code, reason));
                assert_eq!(bench.ends(side, end.clone()), expected, "{end:?}");
                assert_eq!(bench.ends(side.other(), End::Gone), []);
                assert_eq!(bench.says(side.other(), "late"), []);
                assert_eq!(bench.time(100_000), []);
                assert!(bench.pipe.is_over() && !bench.pipe.wants(side) && !bench.pipe.wants(side.other()));
            }
        }
    }

    #[test]
    fn the_eighth_message_is_the_last() {
        for side in [Listener, Connector] {
            let mut bench = Bench::open();
            for _ in 0..7 {
                assert_eq!(bench.says(side.other(), "b"), [text(side, "b")]);
                assert_eq!(bench.says(side, "a"), [text(side.other(), "a")]);
            }
            let mut expected = vec![text(side.other(), "m8")];
            expected.extend(both(4002, "Too Many Messages"));
            assert_eq!(bench.says(side, "m8"), expected);
            assert_eq!(bench.says(side, "m9"), []);
        }
    }

    #[test]
    fn early_messages_count() {
        let mut bench = Bench::new();
        for _ in 0..7 {
            bench.says(Listener, "a");
        }
        assert_eq!(bench.connect(0).len(), 7);
        let mut expected = vec![text(Connector, "m8")];
        expected.extend(both(4002, "Too Many Messages"));
        assert_eq!(bench.says(Listener, "m8"), expected);

        let mut bench = Bench::new();
        for _ in 0..8 {
            assert_eq!(bench.says(Listener, "a"), []);
        }
        assert!(!bench.pipe.is_over());
        let mut expected = vec![text(Connector, "a"); 8];
        expected.extend(both(4002, "Too Many Messages"));
        assert_eq!(bench.connect(0), expected);
    }

    #[test]
    fn one_early_message_too_many_ends_the_wait() {
        let mut bench = Bench::new();
        for _ in 0..8 {
            bench.says(Listener, "a");
        }
        assert_eq!(bench.says(Listener, "a"), [close(Listener, 4002, "Too Many Messages")]);
        assert_eq!(bench.connect(0), []);
        assert!(bench.pipe.is_over());
    }

    #[test]
    fn a_listener_that_waits_ends_alone() {
        for (end, expected) in [
            (End::Closed(Some(1000)), vec![]),
            (End::Gone, vec![]),
            (End::TooBig, vec![close(Listener, 1009, "")]),
        ] {
            let mut bench = Bench::new();
            assert_eq!(bench.ends(Listener, end), expected);
            assert!(bench.pipe.is_over());
        }
    }

    #[test]
    fn a_guest_that_never_arrives_is_a_guest_that_was_lost() {
        let mut bench = Bench::new();
        assert_eq!(bench.ends(Connector, End::Gone), [close(Listener, 1011, "Internal Error")]);
    }

    #[test]
    fn nobody_came() {
        let mut bench = Bench::new();
        bench.says(Listener, "early");
        assert_eq!(bench.pipe.deadline(), bench.at(60_000));
        assert_eq!(bench.time(59_999), []);
        assert_eq!(bench.time(60_000), [close(Listener, 4000, "Listen Timeout")]);
        assert_eq!(bench.time(60_001), []);
    }

    #[test]
    fn a_pipe_lasts_ten_seconds_whatever_goes_through() {
        let mut bench = Bench::new();
        assert_eq!(bench.connect(30_000), []);
        assert_eq!(bench.time(36_000), []);
        bench.says(Connector, "mid");
        assert_eq!(bench.pipe.deadline(), bench.at(40_000));
        assert_eq!(bench.time(39_999), []);
        assert_eq!(bench.time(40_000), both(4001, "Pipe Timeout"));
    }

    #[test]
    fn the_server_stops() {
        let stop = |bench: &mut Bench| bench.done(Pipe::on_stop);
        let mut bench = Bench::new();
        assert_eq!(stop(&mut bench), [close(Listener, 1001, "the server is shutting down")]);
        assert_eq!(stop(&mut bench), []);
        assert_eq!(stop(&mut Bench::open()), both(1001, "the server is shutting down"));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut bench = Bench::with(&PipeLimits {
            max_messages: u32::MAX,
            listen_deadline: Duration::MAX,
            ..PipeLimits::default()
        });
        assert!(bench.pipe.wants(Listener) && !bench.pipe.wants(Connector));
        let mut count = 0;
        while bench.pipe.wants(Listener) {
            assert_eq!(bench.says(Listener, ""), []);
            count += 1;
        }
        assert_eq!(count, MAX_EARLY / PER_FRAME);
        assert_eq!(bench.connect(0).len(), count);
        assert!(bench.pipe.wants(Listener) && bench.pipe.wants(Connector));
    }

    #[test]
    fn no_limit_below_one_message() {
        let mut bench = Bench::with(&PipeLimits { max_messages: 0, ..PipeLimits::default() });
        assert_eq!(bench.connect(0), []);
        assert_eq!(bench.says(Connector, "m1").len(), 3);
    }
}
