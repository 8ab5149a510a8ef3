//! One key in the spellings of different clients, and the programs that open a key, end to end.

use serde_json::json;
use sigver::tools::dial::Target;
use tokio::net::TcpStream;

use crate::common::sse::{Answer, ask};
use crate::common::ws::{Got, Ws};
use crate::common::{TestGateway, eventually};

/// Keys, and what a page makes of each in the path of a URL: raw, as netflux does, or with
/// `encodeURIComponent`.
const KEYS: [(&str, &[&str]); 11] = [
    ("salle de thé", &["/salle%20de%20th%C3%A9", "/salle%20de%20th%c3%a9"]),
    ("100%", &["/100%", "/100%25"]),
    ("a+b", &["/a+b", "/a%2Bb"]),
    ("a/b", &["/a/b", "/a%2Fb", "/a%2fb"]),
    ("a?b", &["/a%3Fb", "/a%3fb"]),
    ("a#b", &["/a%23b"]),
    ("\u{1f375}", &["/%F0%9F%8D%B5"]),
    ("a%2Fb%zz", &["/a%2Fb%zz", "/a%252Fb%25zz"]),
    ("fin ", &["/fin", "/fin%20"]),
    ("a/../b", &["/b", "/a/../b", "/a%2F..%2Fb", "/a/%2e%2E/b"]),
    ("a\\.\\b/..", &["/a/", "/a%5C.%5Cb%2F.."]),
];

async fn opener(gateway: &TestGateway, message: serde_json::Value) -> Ws<TcpStream> {
    let mut ws = gateway.ws("/").await;
    assert!(ws.text(&message.to_string()).await);
    ws
}

async fn stream(gateway: &TestGateway, path: &str) -> Answer {
    ask(gateway.address, "GET", path, &[("Accept", "text/event-stream")], "").await
}

#[tokio::test]
async fn spellings_of_a_key_name_one_room_in_all_dialects() {
    for (key, paths) in KEYS {
        let gateway = TestGateway::start("auto").await;
        let mut first = opener(&gateway, json!({ "open": key })).await;
        first.expect(&[Got::Text(r#"{"opened":true,"isKeyOk":true,"first":true}"#.into())]).await;
        let mut clients = vec![first];
        // sigver 20, which receives that it is not the first; and 15 to 18, which waits for that.
        for path in paths {
            let mut current = gateway.ws(path).await;
            assert!(current.binary(&[0x1a, 2, 8, 11]).await);
            current.expect(&[Got::binary("2000")]).await;
            let mut silent = gateway.ws(path).await;
            silent.expect(&[Got::binary("10012001"), Got::binary("1000")]).await;
            clients.extend([current, silent]);
        }
        for message in
            [json!({"join": key, "data": 1}), json!({"joinkey": key}), json!({"type": "join", "key": key})]
        {
            clients.push(opener(&gateway, message).await);
        }
        // Event streams of 8.1 and of 9.
        let query: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut old = stream(&gateway, &format!("/?join={query}")).await;
        old.expect(&[":ok"]).await;
        assert!(old.event().await.contains(r#""isKeyOk":true"#), "{key}");
        let mut new = stream(&gateway, "/").await;
        new.expect(&[":ok"]).await;
        let id = new.event().await.rsplit(' ').next().unwrap().to_owned();
        let posted =
            ask(gateway.address, "POST", "/", &[], &format!("{id}@{}", json!({ "join": key }))).await;
        assert_eq!(posted.status, 200);
        assert_eq!(new.event().await, r#"data: {"opened":false}"#, "{key}");
        assert_eq!(gateway.rooms(), 1, "{key}");
    }
}

#[tokio::test]
async fn spellings_that_a_pinned_release_distinguishes_stay_apart() {
    let gateway = TestGateway::start("sigver-9").await;
    let mut clients = Vec::new();
    for key in ["a/b", "a%2Fb", "a%2fb", "a b", "a%20b", "a b ", "a/../b", "b", "./b"] {
        let mut client = opener(&gateway, json!({ "join": key })).await;
        client.expect(&[Got::Text(r#"{"opened":true}"#.into())]).await;
        clients.push(client);
    }
    assert_eq!(gateway.rooms(), clients.len());
    for protocol in ["sigver-18", "protobuf-v1,protobuf-v2"] {
        let gateway = TestGateway::start(protocol).await;
        let mut clients = Vec::new();
        for path in ["/a/b", "/a%2Fb", "/a%2fb", "/a/../b", "/b"] {
            clients.push(gateway.ws(path).await);
            if protocol != "sigver-18" {
                assert!(clients.last_mut().unwrap().binary(&[0x1a, 2, 8, 11]).await);
            }
        }
        eventually("a room for each", || gateway.rooms() == clients.len()).await;
    }
}

/// netflux 0.10.3 alone with itself: opened by a program, and joined with an offer.
#[tokio::test]
async fn clients_that_may_be_of_one_generation_are_not_reported_as_mixed() {
    let gateway = TestGateway::start("auto").await;
    let mut first = opener(&gateway, json!({"key": "k"})).await;
    eventually("a room", || gateway.rooms() == 1).await;
    let mut second = opener(&gateway, json!({"join": "k", "data": {"offer": 1}})).await;
    first.expect(&[Got::Text(r#"{"id":0,"data":{"offer":1},"offer":1}"#.into())]).await;
    assert!(first.text(r#"{"id":0,"data":{"answer":1}}"#).await);
    second.expect(&[Got::Text(r#"{"data":{"answer":1}}"#.into())]).await;
    assert!(second.text(r#"{"data":{"candidate":1}}"#).await);
    first.expect(&[Got::Text(r#"{"id":0,"data":{"candidate":1}}"#.into())]).await;
    let rooms = gateway.status.report(Default::default()).rooms;
    assert_eq!((rooms.mixed_generations, rooms.mixed_generations_ever), (0, 0));
}

#[tokio::test]
async fn probe_mixes_no_generations() {
    let gateway = TestGateway::start("auto").await;
    let target = Target::from(gateway.address);
    sigver::tools::probe::run::probe(&target, false).await.unwrap();
    assert_eq!(gateway.status.report(Default::default()).rooms.mixed_generations_ever, 0);
}
