//! Pipes with a simulated clock.

use super::PipeSide::{Connector, Listener};
use super::*;

/// A pipe with a simulated clock.
struct TestPipe {
    start: Instant,
    pipe: Pipe,
}

impl TestPipe {
    fn with_limits(options: &PipeLimits) -> Self {
        // Only durations since the start matter.
        let start = Instant::now();
        TestPipe { start, pipe: Pipe::listen(options, start) }
    }

    fn new() -> Self {
        TestPipe::with_limits(&PipeLimits::default())
    }

    fn open() -> Self {
        let mut test = TestPipe::new();
        assert_eq!(test.connect(0), []);
        test
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn actions(&mut self, step: impl FnOnce(&mut Pipe, &mut Vec<PipeAction>)) -> Vec<PipeAction> {
        let mut actions = Vec::new();
        step(&mut self.pipe, &mut actions);
        actions
    }

    fn connect(&mut self, millis: u64) -> Vec<PipeAction> {
        let now = self.at(millis);
        self.actions(|pipe, actions| pipe.on_connect(now, actions))
    }

    fn send(&mut self, from: PipeSide, text: &str) -> Vec<PipeAction> {
        self.actions(|pipe, actions| pipe.on_message(from, Message::text(text), actions))
    }

    fn disconnect(&mut self, of: PipeSide, end: Disconnect) -> Vec<PipeAction> {
        self.actions(|pipe, actions| pipe.on_disconnect(of, end, actions))
    }

    fn time(&mut self, millis: u64) -> Vec<PipeAction> {
        let now = self.at(millis);
        self.actions(|pipe, actions| pipe.handle_timeout(now, actions))
    }
}

fn text(to: PipeSide, text: &str) -> PipeAction {
    (to, Message::text(text.to_owned()).into())
}

fn close(to: PipeSide, code: u16, reason: &'static str) -> PipeAction {
    (to, Outgoing::Close(Close::new(code, reason)))
}

fn both(code: u16, reason: &'static str) -> [PipeAction; 2] {
    [close(Listener, code, reason), close(Connector, code, reason)]
}

#[test]
fn close_cause_is_that_of_the_first_end() {
    let mut test = TestPipe::open();
    test.disconnect(Listener, Disconnect::Lost);
    test.time(60_000);
    assert_eq!(test.pipe.close_cause(), Some("disconnected"));
}

#[test]
fn messages_are_forwarded_unchanged() {
    let mut test = TestPipe::open();
    assert_eq!(test.send(Connector, "hello"), [text(Listener, "hello")]);
    assert_eq!(test.send(Connector, ""), [text(Listener, "")]);
    for frame in [Message::binary(vec![0, 1, 255]), Message::binary(vec![])] {
        let passed = test.actions(|pipe, actions| pipe.on_message(Listener, frame.clone(), actions));
        assert_eq!(passed, [(Connector, frame.into())]);
    }
    assert!(!test.pipe.is_closed());
}

#[test]
fn messages_sent_before_the_connector_are_delivered_in_order() {
    let mut test = TestPipe::new();
    assert_eq!(test.send(Listener, "early1"), []);
    assert_eq!(test.send(Listener, "early2"), []);
    let expected = [text(Connector, "early1"), text(Connector, "early2")];
    assert_eq!(test.connect(404), expected);
    assert_eq!(test.send(Listener, "late"), [text(Connector, "late")]);
}

#[test]
fn disconnect_of_one_side_closes_the_other() {
    let violation = Close::new(1002, "no");
    for (end, own, code, reason) in [
        (Disconnect::Closed(Some(1000)), None, 1000, "Normal Closure"),
        (Disconnect::Closed(Some(1001)), None, 1011, "Internal Error"),
        (Disconnect::Closed(Some(4321)), None, 1011, "Internal Error"),
        (Disconnect::Closed(None), None, 1011, "Internal Error"),
        (Disconnect::Lost, None, 1011, "Internal Error"),
        (Disconnect::MessageTooBig, Some(Close::new(1009, "")), 1011, "Internal Error"),
        (Disconnect::ProtocolError(violation.clone()), Some(violation), 1011, "Internal Error"),
    ] {
        for side in [Listener, Connector] {
            let mut test = TestPipe::open();
            let mut expected: Vec<_> = own.iter().map(|own| (side, Outgoing::Close(own.clone()))).collect();
            expected.push(close(side.opposite(), code, reason));
            assert_eq!(test.disconnect(side, end.clone()), expected, "{end:?}");
            assert_eq!(test.disconnect(side.opposite(), Disconnect::Lost), []);
            assert_eq!(test.send(side.opposite(), "late"), []);
            assert_eq!(test.time(100_000), []);
            assert!(
                test.pipe.is_closed() && !test.pipe.can_read(side) && !test.pipe.can_read(side.opposite())
            );
        }
    }
}

#[test]
fn pipe_closes_after_the_eighth_message() {
    for side in [Listener, Connector] {
        let mut test = TestPipe::open();
        for _ in 0..7 {
            assert_eq!(test.send(side.opposite(), "b"), [text(side, "b")]);
            assert_eq!(test.send(side, "a"), [text(side.opposite(), "a")]);
        }
        let mut expected = vec![text(side.opposite(), "m8")];
        expected.extend(both(4002, "Too Many Messages"));
        assert_eq!(test.send(side, "m8"), expected);
        assert_eq!(test.send(side, "m9"), []);
    }
}

#[test]
fn messages_before_the_connector_count() {
    let mut test = TestPipe::new();
    for _ in 0..7 {
        test.send(Listener, "a");
    }
    assert_eq!(test.connect(0).len(), 7);
    let mut expected = vec![text(Connector, "m8")];
    expected.extend(both(4002, "Too Many Messages"));
    assert_eq!(test.send(Listener, "m8"), expected);

    let mut test = TestPipe::new();
    for _ in 0..8 {
        assert_eq!(test.send(Listener, "a"), []);
    }
    assert!(!test.pipe.is_closed());
    let mut expected = vec![text(Connector, "a"); 8];
    expected.extend(both(4002, "Too Many Messages"));
    assert_eq!(test.connect(0), expected);
}

#[test]
fn message_beyond_the_limit_closes_a_waiting_listener() {
    let mut test = TestPipe::new();
    for _ in 0..8 {
        test.send(Listener, "a");
    }
    assert_eq!(test.send(Listener, "a"), [close(Listener, 4002, "Too Many Messages")]);
    assert_eq!(test.connect(0), []);
    assert!(test.pipe.is_closed());
}

#[test]
fn disconnect_of_a_waiting_listener_closes_the_pipe() {
    for (end, expected) in [
        (Disconnect::Closed(Some(1000)), vec![]),
        (Disconnect::Lost, vec![]),
        (Disconnect::MessageTooBig, vec![close(Listener, 1009, "")]),
    ] {
        let mut test = TestPipe::new();
        assert_eq!(test.disconnect(Listener, end), expected);
        assert!(test.pipe.is_closed());
    }
}

#[test]
fn lost_connector_closes_a_waiting_listener() {
    let mut test = TestPipe::new();
    assert_eq!(test.disconnect(Connector, Disconnect::Lost), [close(Listener, 1011, "Internal Error")]);
}

#[test]
fn listen_deadline_closes_a_waiting_listener() {
    let mut test = TestPipe::new();
    test.send(Listener, "early");
    assert_eq!(test.pipe.deadline(), test.at(60_000));
    assert_eq!(test.time(59_999), []);
    assert_eq!(test.time(60_000), [close(Listener, 4000, "Listen Timeout")]);
    assert_eq!(test.time(60_001), []);
}

#[test]
fn pipe_deadline_is_independent_of_traffic() {
    let mut test = TestPipe::new();
    assert_eq!(test.connect(30_000), []);
    assert_eq!(test.time(36_000), []);
    test.send(Connector, "mid");
    assert_eq!(test.pipe.deadline(), test.at(40_000));
    assert_eq!(test.time(39_999), []);
    assert_eq!(test.time(40_000), both(4001, "Pipe Timeout"));
}

#[test]
fn shutdown_closes_all_sides() {
    let stop = |test: &mut TestPipe| test.actions(Pipe::on_shutdown);
    let mut test = TestPipe::new();
    assert_eq!(stop(&mut test), [close(Listener, 1001, "the server is shutting down")]);
    assert_eq!(stop(&mut test), []);
    assert_eq!(stop(&mut TestPipe::open()), both(1001, "the server is shutting down"));
}

#[test]
fn messages_before_the_connector_are_bounded() {
    let mut test = TestPipe::with_limits(&PipeLimits {
        max_messages: u32::MAX,
        listen_deadline: Duration::MAX,
        ..PipeLimits::default()
    });
    assert!(test.pipe.can_read(Listener) && !test.pipe.can_read(Connector));
    let mut count = 0;
    while test.pipe.can_read(Listener) {
        assert_eq!(test.send(Listener, ""), []);
        count += 1;
    }
    assert_eq!(count, MAX_BUFFERED / MESSAGE_OVERHEAD);
    assert_eq!(test.connect(0).len(), count);
    assert!(test.pipe.can_read(Listener) && test.pipe.can_read(Connector));
}

#[test]
fn message_limit_is_at_least_one() {
    let mut test = TestPipe::with_limits(&PipeLimits { max_messages: 0, ..PipeLimits::default() });
    assert_eq!(test.connect(0), []);
    assert_eq!(test.send(Connector, "m1").len(), 3);
}
