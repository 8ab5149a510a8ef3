//! The signaller protocol on a server that serves sigver too: its paths, and those that remain keys of rooms.

use tokio_tungstenite::tungstenite::Message;

use super::harness::{Client, Server};
use super::http::UPGRADE;

/// The message `connect` of sigver 20 with the ids 11 and 12.
const CONNECT: [&[u8]; 2] = [b"\x1a\x02\x08\x0b", b"\x1a\x02\x08\x0c"];
/// The responses to it: first in the room, or not.
const CONNECTED: [&[u8]; 2] = [b"\x20\x01", b"\x20\x00"];

/// Asserts that two clients of sigver 20 meet in the room of this path, and returns them.
async fn assert_room(server: &Server, path: &str) -> [Client; 2] {
    let mut peers = [server.open(path).await, server.open(path).await];
    for (peer, (connect, connected)) in peers.iter_mut().zip(CONNECT.into_iter().zip(CONNECTED)) {
        peer.send(Message::binary(connect)).await;
        // In auto, a WebSocket ping comes first.
        let mut got = peer.next().await;
        if matches!(got, Message::Ping(_)) {
            got = peer.next().await;
        }
        assert_eq!(got, Message::binary(connected), "{path}");
    }
    peers
}

async fn assert_signaller_path(server: &Server, handle: &str) {
    assert_eq!(server.refused(&format!("/connect/{handle}")).await, (404, String::new()));
    let mut l = server.open(&format!("/listen/{handle}")).await;
    assert_eq!(server.refused(&format!("/listen/{handle}")).await, (409, String::new()));
    l.text("early").await;
    let mut c = server.open(&format!("/connect/{handle}")).await;
    c.gets("early").await;
    c.send(Message::binary(&b"\x1a\x02\x08\x0b"[..])).await;
    l.gets_bytes(b"\x1a\x02\x08\x0b").await;
    c.close(1000, "").await;
    l.closed(1000, "Normal Closure").await;
}

#[tokio::test]
async fn well_formed_handles_are_signaller_paths() {
    for protocol in ["auto", "sigver-20,signaller"] {
        let server = Server::serving(protocol).await;
        for handle in ["abc", "a_b_c", "a1b2", "ab%63"] {
            assert_signaller_path(&server, handle).await;
        }
    }
}

#[tokio::test]
async fn other_paths_are_room_keys() {
    let server = Server::serving("auto").await;
    let mut open = Vec::new();
    for path in [
        "/listen",
        "/listen/",
        "/listen/ab",
        "/listen/Abc",
        "/listen/a__bc",
        "/listen/ab%zz",
        "/listen/abc/",
        "/listen/abc/d",
        "//listen/abc",
        "/Listen/abc",
        "/connect/ab",
        "/connect/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "/listening/abc",
        "/abc",
    ] {
        open.push(assert_room(&server, path).await);
    }
}

#[tokio::test]
async fn every_path_is_a_room_key_without_signaller() {
    for protocol in ["sigver-20", "current", "json,protobuf-v1,protobuf-v2"] {
        let server = Server::serving(protocol).await;
        let _peers = (assert_room(&server, "/listen/abc").await, assert_room(&server, "/connect/abc").await);
    }
}

#[tokio::test]
async fn signaller_paths_have_the_responses_of_signallerd() {
    let server = Server::serving("auto").await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for (path, status) in [
        ("/", "200 OK"),
        ("/listen/ab", "426 Upgrade Required"),
        ("/listen/abc", "400 Bad Request"),
        ("/connect/abc", "404 Not Found"),
    ] {
        assert_eq!(server.raw(&get(path)).await.0, format!("HTTP/1.1 {status}"), "{path}");
    }
    let from = |path: &str, origin: &str| format!("GET {path} HTTP/1.1\r\n{UPGRADE}Origin: {origin}\r\n\r\n");
    for (path, origin, status) in [
        ("/listen/abc", "https://elsewhere.example", "403 Forbidden"),
        ("/listen/abc", "http://x", "101 Switching Protocols"),
        ("/listen/ab", "https://elsewhere.example", "101 Switching Protocols"),
        ("/key", "https://elsewhere.example", "101 Switching Protocols"),
    ] {
        assert_eq!(server.raw(&from(path, origin)).await.0, format!("HTTP/1.1 {status}"), "{path} {origin}");
    }
}
