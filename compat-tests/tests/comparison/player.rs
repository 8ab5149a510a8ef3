//! Tests of the player against a small hand-written server: it plays the script with the ids and keys of
//! the run, and records what arrives.

use std::net::SocketAddr;

use compat_tests::compare::{ComparisonRules, DifferenceKind, compare};
use compat_tests::player::{PlayOptions, play};
use compat_tests::transcript::{RecordedEvent, Scenario, parse, to_hex};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

/// O connects and gets an id, answers with it, pings, and closes; P drops its connection.
const SCRIPT: &str = r#"
{"v":"18.0.0","sc":"s","t":0,"peer":"O","dir":"connect","path":"/k1?x"}
{"v":"18.0.0","sc":"s","t":1,"peer":"O","dir":"open"}
{"v":"18.0.0","sc":"s","t":2,"peer":"O","dir":"recv","op":"binary","hex":"0a0908f3b89ba603120178"}
{"v":"18.0.0","sc":"s","t":100,"peer":"O","dir":"send","op":"binary","hex":"0a0908f3b89ba603120179"}
{"v":"18.0.0","sc":"s","t":101,"peer":"O","dir":"recv","op":"binary","hex":"1001"}
{"v":"18.0.0","sc":"s","t":200,"peer":"O","dir":"send","op":"ping","hex":"7070"}
{"v":"18.0.0","sc":"s","t":201,"peer":"O","dir":"recv","op":"pong","hex":"7070"}
{"v":"18.0.0","sc":"s","t":300,"peer":"P","dir":"connect","path":"/kkk...(300 chars)"}
{"v":"18.0.0","sc":"s","t":301,"peer":"P","dir":"open"}
{"v":"18.0.0","sc":"s","t":302,"peer":"P","dir":"recv","op":"binary","hex":"0a0908f3b89ba603120178"}
{"v":"18.0.0","sc":"s","t":400,"peer":"P","dir":"tcp-destroy"}
{"v":"18.0.0","sc":"s","t":401,"peer":"P","dir":"recv-close","code":1006,"reason":""}
{"v":"18.0.0","sc":"s","t":500,"peer":"O","dir":"send-close","code":4321,"reason":"why"}
{"v":"18.0.0","sc":"s","t":501,"peer":"O","dir":"recv-close","code":4321,"reason":"why"}
{"v":"18.0.0","sc":"s","t":600,"peer":"O","dir":"send","op":"binary","hex":"ffffff"}
"#;

/// The server's fault, if any.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    Silent,
    Babbles,
    OtherCode,
}

/// Sends a content with the id 99999 on connection, then `1001` for every binary frame; reports received
/// frames.
async fn serve(stream: TcpStream, fault: Fault, tell: mpsc::UnboundedSender<String>) {
    let paths = tell.clone();
    #[allow(clippy::result_large_err)]
    let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        assert!(request.headers().get("sec-websocket-extensions").is_none());
        let _ = paths.send(request.uri().to_string());
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, note).await.unwrap();
    socket.send(Message::binary(vec![0x0a, 7, 0x08, 0x9f, 0x8d, 0x06, 0x12, 1, b'x'])).await.unwrap();
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) => {
                let _ = tell.send(to_hex(&bytes));
                if fault != Fault::Silent {
                    socket.send(Message::binary(vec![0x10, 1])).await.unwrap();
                }
                if fault == Fault::Babbles {
                    socket.send(Message::binary(vec![0x20, 1])).await.unwrap();
                }
                if fault == Fault::OtherCode {
                    let frame = CloseFrame { code: 4000.into(), reason: "no".into() };
                    let _ = socket.close(Some(frame)).await;
                }
            }
            Some(Ok(Message::Close(frame))) => {
                let frame = frame.map(|f| (u16::from(f.code), f.reason.to_string()));
                let _ = tell.send(format!("close {frame:?}"));
            }
            Some(Ok(_)) => {}
            Some(Err(Error::ConnectionClosed)) | None => return,
            Some(Err(_)) => {
                let _ = tell.send("dropped".into());
                return;
            }
        }
    }
}

async fn start(fault: Fault) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, fault, tell.clone()));
        }
    });
    (addr, told)
}

fn script() -> Scenario {
    parse(SCRIPT).unwrap().remove(0)
}

fn options(addr: SocketAddr) -> PlayOptions {
    PlayOptions { suffix: Some("u7".into()), ..PlayOptions::new(addr) }
}

async fn kinds(fault: Fault) -> Vec<(DifferenceKind, usize)> {
    let (addr, _told) = start(fault).await;
    let live = play(&script(), &options(addr)).await;
    compare(&script(), &live, ComparisonRules::default())
        .differences
        .iter()
        .map(|d| (d.kind, d.step))
        .collect()
}

#[tokio::test]
async fn player_maps_ids_and_keys() {
    let (addr, mut told) = start(Fault::None).await;
    let live = play(&script(), &options(addr)).await;
    assert_eq!(compare(&script(), &live, ComparisonRules::default()).differences, []);
    let mut seen = Vec::new();
    while let Ok(told) = told.try_recv() {
        seen.push(told);
    }
    let long = format!("/{}-u7", "k".repeat(296));
    let expected = ["/k1-u7?x", "0a07089f8d06120179", &long, "dropped", "close Some((4321, \"why\"))"];
    assert_eq!(seen, expected);
    let notes = live.records.iter().filter(|r| matches!(r.event, RecordedEvent::Note(_))).count();
    assert_eq!(notes, 1, "the frame after the close is not sent: {:?}", live.records);
}

#[tokio::test]
async fn absent_frame_is_missing() {
    assert_eq!(kinds(Fault::Silent).await, [(DifferenceKind::Missing, 2)]);
}

#[tokio::test]
async fn surplus_frame_is_extra_in_its_step() {
    assert_eq!(kinds(Fault::Babbles).await, [(DifferenceKind::Extra, 2)]);
}

#[tokio::test]
async fn early_close_is_reported() {
    let expected = [(DifferenceKind::Extra, 2), (DifferenceKind::Missing, 3), (DifferenceKind::Missing, 6)];
    assert_eq!(kinds(Fault::OtherCode).await, expected);
}

#[tokio::test]
async fn unreachable_server_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let live = play(&script(), &options(addr)).await;
    let found = compare(&script(), &live, ComparisonRules::default()).differences;
    assert!(!found.is_empty() && found.iter().all(|d| d.kind == DifferenceKind::Missing), "{found:?}");
}

#[tokio::test]
async fn timed_scenarios_keep_recorded_times() {
    let timed = SCRIPT.replace(r#""sc":"s""#, r#""sc":"timed_s""#);
    let timed = parse(&timed).unwrap().remove(0);
    let (addr, _told) = start(Fault::None).await;
    let live = play(&timed, &options(addr)).await;
    assert_eq!(compare(&timed, &live, ComparisonRules::default()).differences, []);
    let actions = |s: &Scenario| {
        let sent = s
            .records
            .iter()
            .filter(|r| matches!(r.event, RecordedEvent::Send(_) | RecordedEvent::SendClose { .. }));
        sent.map(|r| r.t).collect::<Vec<_>>()
    };
    for (recorded, played) in actions(&timed).into_iter().zip(actions(&live)) {
        assert!((recorded..recorded + 100).contains(&played), "{recorded} ms, played at {played} ms");
    }
}

/// O receives an index that begins at 0 for each key, J a made-up id; both answer with it.
const JSON: &str = r#"
{"v":"7.0.0","sc":"s","t":0,"peer":"O","dir":"connect","path":"/"}
{"v":"7.0.0","sc":"s","t":1,"peer":"O","dir":"open"}
{"v":"7.0.0","sc":"s","t":100,"peer":"O","dir":"send","op":"text","text":"{\"key\":\"k1\"}"}
{"v":"7.0.0","sc":"s","t":101,"peer":"O","dir":"recv","op":"text","text":"{\"id\":0,\"data\":1}"}
{"v":"7.0.0","sc":"s","t":102,"peer":"O","dir":"recv","op":"text","text":"{\"id\":\"SkX_9-abc\",\"data\":1}"}
{"v":"7.0.0","sc":"s","t":200,"peer":"O","dir":"send","op":"text","text":"{\"id\": 0,\"data\":\"a\"}"}
{"v":"7.0.0","sc":"s","t":300,"peer":"O","dir":"send","op":"text","text":"{\"id\":\"0\",\"data\":\"b\"}"}
{"v":"7.0.0","sc":"s","t":400,"peer":"O","dir":"send","op":"text","text":"{\"id\":\"SkX_9-abc\",\"data\":0}"}
{"v":"7.0.0","sc":"s","t":500,"peer":"O","dir":"send","op":"text","text":"{\"id\":7,\"data\":\"nobody\"}"}
{"v":"7.0.0","sc":"s","t":501,"peer":"O","dir":"recv-close","code":4004,"reason":"k1: {\"id\":\"SkX_9-abc\"}"}
"#;

#[tokio::test]
async fn json_ids_and_keys_are_mapped_to_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let mut told = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else { continue };
            told.push(text.to_string());
            if told.len() == 1 {
                socket.send(Message::text(r#"{"id":4711,"data":1}"#)).await.unwrap();
                socket.send(Message::text(r#"{"id":"other","data":1}"#)).await.unwrap();
            }
            if text.contains("nobody") {
                let frame = CloseFrame { code: 4004.into(), reason: r#"k1-u7: {"id":"other"}"#.into() };
                socket.close(Some(frame)).await.unwrap();
            }
        }
        told
    });
    let script = parse(JSON).unwrap().remove(0);
    let live = play(&script, &options(addr)).await;
    let told = server.await.unwrap();
    let expected = [
        r#"{"key":"k1-u7"}"#,
        r#"{"id": 4711,"data":"a"}"#,
        r#"{"id":"4711","data":"b"}"#,
        r#"{"id":"other","data":0}"#,
        r#"{"id":7,"data":"nobody"}"#,
    ];
    assert_eq!(told, expected);
    let found = compare(&script, &live, ComparisonRules::default()).differences;
    assert_eq!(found.len(), 1, "only the index, which is compared as it is: {found:?}");
    assert_eq!((found[0].step, found[0].actual.as_str()), (2, r##"text {"id":#?4711,"data":1}"##));
}
