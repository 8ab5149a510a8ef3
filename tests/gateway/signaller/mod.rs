//! The signaller protocol from the view of its clients: the scenarios of the recording of `signallerd`.
//!
//! Requests, frames, codes, reasons and responses are copied by hand from that recording. Deliberate
//! differences are stated at the test. Deadlines are shortened by the options, as in the recording; exact and
//! default ones are tested with a simulated clock next to the code. HTTP responses are tested in `http`, a
//! server that serves sigver too in `auto`.

mod auto;
mod harness;
mod http;

use std::time::Duration;

use sigver::config::PipeLimits;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use harness::{RESPONSE_TIMEOUT, Server};

/// Scenario `session`.
#[tokio::test]
async fn pipe_forwards_both_ways_until_its_connector_closes() {
    let server = Server::new().await;
    let (mut l, mut c) = server.pair().await;
    c.text("text from C").await;
    l.gets("text from C").await;
    l.text("text from L").await;
    c.gets("text from L").await;
    c.send(Message::binary(&b"\x00\x01\xff"[..])).await;
    l.gets_bytes(b"\x00\x01\xff").await;
    l.send(Message::binary(&b"\x02\x03"[..])).await;
    c.gets_bytes(b"\x02\x03").await;
    c.text("").await;
    l.gets("").await;
    c.send(Message::Ping("pp".into())).await;
    assert_eq!(c.next().await, Message::Pong("pp".into()));
    l.send(Message::Ping("qq".into())).await;
    assert_eq!(l.next().await, Message::Pong("qq".into()));
    c.gets_nothing().await;
    c.close(1000, "bye").await;
    c.closed(1000, "bye").await;
    l.closed(1000, "Normal Closure").await;
}

/// Scenario `listener_sends_before_connect`.
#[tokio::test]
async fn messages_before_the_connector_are_kept() {
    let server = Server::new().await;
    let mut l = server.open("/listen/abc").await;
    l.text("early1").await;
    l.text("early2").await;
    l.send(Message::Ping("p".into())).await;
    assert_eq!(l.next().await, Message::Pong("p".into()));
    let mut c = server.open("/connect/abc").await;
    c.gets("early1").await;
    c.gets("early2").await;
    c.text("hi").await;
    l.gets("hi").await;
    c.gets_nothing().await;
}

/// Scenario `listener_closes_1000`.
#[tokio::test]
async fn normal_close_of_listener_is_passed_on() {
    let (mut l, mut c) = Server::new().await.pair().await;
    l.close(1000, "bye").await;
    c.closed(1000, "Normal Closure").await;
    l.closed(1000, "bye").await;
}

/// Scenario `close_1001_and_4321`.
#[tokio::test]
async fn other_close_codes_are_internal_errors_at_the_other_end() {
    for (code, reason) in [(1001, "going"), (4321, "x")] {
        let (mut l, mut c) = Server::new().await.pair().await;
        c.close(code, reason).await;
        l.closed(1011, "Internal Error").await;
        c.closed(code, reason).await;
    }
}

/// Scenario `close_no_code`.
#[tokio::test]
async fn close_without_code_is_an_internal_error_at_the_other_end() {
    let (mut l, mut c) = Server::new().await.pair().await;
    c.send(Message::Close(None)).await;
    l.closed(1011, "Internal Error").await;
    assert_eq!(c.next().await, Message::Close(None));
}

/// Scenario `tcp_drop`.
#[tokio::test]
async fn disconnect_is_an_internal_error_at_the_other_end() {
    let (mut l, c) = Server::new().await.pair().await;
    c.vanish();
    l.closed(1011, "Internal Error").await;
}

/// Scenario `too_many`.
#[tokio::test]
async fn eighth_message_in_one_direction_ends_the_pipe() {
    for listener in [false, true] {
        let (l, c) = Server::new().await.pair().await;
        let (mut from, mut to) = if listener { (l, c) } else { (c, l) };
        for text in ["m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8"] {
            from.text(text).await;
            to.gets(text).await;
        }
        from.closed(4002, "Too Many Messages").await;
        to.closed(4002, "Too Many Messages").await;
    }
}

/// Scenario `seven_each`.
#[tokio::test]
async fn messages_are_counted_by_direction() {
    let (mut l, mut c) = Server::new().await.pair().await;
    for (a, b) in
        [("a1", "b1"), ("a2", "b2"), ("a3", "b3"), ("a4", "b4"), ("a5", "b5"), ("a6", "b6"), ("a7", "b7")]
    {
        l.text(a).await;
        c.gets(a).await;
        c.text(b).await;
        l.gets(b).await;
    }
    c.close(1000, "").await;
    l.closed(1000, "Normal Closure").await;
    c.closed(1000, "").await;
}

/// Scenario `size_1024_and_1025`.
#[tokio::test]
async fn message_beyond_1024_bytes_ends_the_pipe() {
    let (mut l, mut c) = Server::new().await.pair().await;
    c.text(&"x".repeat(1024)).await;
    l.gets(&"x".repeat(1024)).await;
    c.text(&"x".repeat(1025)).await;
    l.closed(1011, "Internal Error").await;
    c.closed(1009, "").await;
}

#[tokio::test]
async fn handle_taken_unknown_and_free_again() {
    let server = Server::new().await;
    let empty = String::new();
    assert_eq!(server.refused("/connect/abc").await, (404, empty.clone()));
    let _l = server.open("/listen/abc").await;
    assert_eq!(server.refused("/listen/abc").await, (409, empty.clone()));
    assert_eq!(server.refused("/listen/ab%63").await, (409, empty.clone()));
    // connect_twice
    let mut c = server.open("/connect/abc").await;
    assert_eq!(server.refused("/connect/abc").await, (404, empty.clone()));
    let _l2 = server.open("/listen/abc").await;
    // The end of the first pipe does not concern the second listener.
    c.close(1000, "").await;
    c.closed(1000, "").await;
    assert_eq!(server.refused("/listen/abc").await, (409, empty));
    server.open("/connect/abc").await;
}

// Scenarios `listener_gone_then_connect`, `listener_dropped_then_connect` and
// `listener_dropped_then_relisten`. A deliberate difference: in signallerd the handle stayed taken (409), and
// connectors received 101 and a close frame.
#[tokio::test]
async fn disconnect_of_a_listener_frees_its_handle() {
    let server = Server::new().await;
    let mut l = server.open("/listen/abc").await;
    l.text("early").await;
    l.close(1000, "").await;
    l.closed(1000, "").await;
    assert_eq!(server.refused("/connect/abc").await, (404, String::new()));
    server.open("/listen/abc").await.vanish();
    let mut l = server.open_soon("/listen/abc").await;
    let mut c = server.open("/connect/abc").await;
    c.text("for the connected listener").await;
    l.gets("for the connected listener").await;
    c.gets_nothing().await;
}

// No recording: signallerd does not read a listener before a connector arrives.
#[tokio::test]
async fn waiting_listener_that_exceeds_limits_is_closed() {
    let server = Server::new().await;
    let mut l = server.open("/listen/abc").await;
    l.text(&"x".repeat(1025)).await;
    l.closed(1009, "").await;
    let mut l = server.open_soon("/listen/abc").await;
    for _ in 0..8 {
        l.text("early").await;
    }
    l.gets_nothing().await;
    let mut c = server.open("/connect/abc").await;
    for _ in 0..8 {
        c.gets("early").await;
    }
    c.closed(4002, "Too Many Messages").await;
    l.closed(4002, "Too Many Messages").await;
    let mut l = server.open("/listen/abc").await;
    for _ in 0..9 {
        l.text("early").await;
    }
    l.closed(4002, "Too Many Messages").await;
    server.open_soon("/listen/abc").await;
}

/// Scenario `listen_timeout`.
#[tokio::test]
async fn listener_without_connector_is_closed_at_its_deadline() {
    let limits = PipeLimits { listen_deadline: Duration::from_millis(300), ..PipeLimits::default() };
    let server = Server::with_limits(limits).await;
    let mut l = server.open("/listen/abc").await;
    l.closed(4000, "Listen Timeout").await;
    assert_eq!(server.refused("/connect/abc").await, (404, String::new()));
}

/// Scenario `pipe_timeout`.
#[tokio::test]
async fn pipe_is_closed_at_its_deadline() {
    let limits = PipeLimits {
        listen_deadline: Duration::from_millis(300),
        pipe_deadline: Duration::from_millis(600),
        ..PipeLimits::default()
    };
    let server = Server::with_limits(limits).await;
    let mut l = server.open("/listen/abc").await;
    let mut c = server.open("/connect/abc").await;
    c.text("mid").await;
    l.gets("mid").await;
    l.closed(4001, "Pipe Timeout").await;
    c.closed(4001, "Pipe Timeout").await;
}

// No recording: browsers cannot send it.
#[tokio::test]
async fn text_that_is_not_utf8_is_refused() {
    let (mut l, mut c) = Server::new().await.pair().await;
    let bad = Frame::message(&b"\xff\xfe"[..], OpCode::Data(Data::Text), true);
    c.send(Message::Frame(bad)).await;
    l.closed(1011, "Internal Error").await;
    c.closed_with(1007).await;
}

#[tokio::test]
async fn shutdown_closes_all_clients() {
    let server = Server::new().await;
    let (mut l, mut c) = server.pair().await;
    let mut waiting = server.open("/listen/abcd").await;
    let stopped = server.begin_stop();
    for client in [&mut l, &mut c, &mut waiting] {
        client.closed(1001, "the server is shutting down").await;
    }
    drop((l, c, waiting));
    timeout(RESPONSE_TIMEOUT, stopped).await.unwrap().unwrap();
}
