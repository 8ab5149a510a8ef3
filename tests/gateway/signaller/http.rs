//! HTTP responses on signaller paths: admission, and the texts of rejections.

use regex_lite::Regex;
use sigver::config::OriginPattern;

use super::harness::Server;

/// Scenario `handles`.
#[tokio::test]
async fn handles_of_another_form_are_not_found() {
    let server = Server::new().await;
    let mut open = Vec::new();
    for (handle, good) in [
        ("ab", false),
        ("abc", true),
        ("a1b2", true),
        ("Abc", false),
        ("1bc", false),
        ("a_b_c", true),
        ("a__bc", false),
        ("a_bc_", false),
        ("_abc", false),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", true),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ("a_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b", true),
        ("a_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b", false),
    ] {
        let path = format!("/listen/{handle}");
        if good {
            open.push(server.open(&path).await);
        } else {
            let refused = server.refused(&path).await;
            assert_eq!(refused, (404, "404 page not found\n".into()), "{handle}");
        }
    }
}

pub const UPGRADE: &str = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

fn expect(answer: &(String, Vec<String>, String), status: &str, headers: &[&str], body: &str) {
    assert_eq!(answer.0, format!("HTTP/1.1 {status}"));
    assert_eq!(answer.1, headers);
    assert_eq!(answer.2, body);
}

fn expect_switched(answer: &(String, Vec<String>, String)) {
    let headers =
        ["connection: Upgrade", "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "upgrade: websocket"];
    expect(answer, "101 Switching Protocols", &headers, "");
}

/// Scenario `http`.
#[tokio::test]
async fn requests_get_the_responses_of_signallerd() {
    let server = Server::new().await;
    let page = [
        "connection: close",
        "content-length: 19",
        "content-type: text/plain; charset=utf-8",
        "x-content-type-options: nosniff",
    ];
    let bad = [
        "content-length: 12",
        "content-type: text/plain; charset=utf-8",
        "sec-websocket-version: 13",
        "x-content-type-options: nosniff",
    ];
    let bad_close = [&["connection: close"][..], &bad].concat();
    let empty = ["connection: close", "content-length: 0"];
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for path in ["/listen/", "/foo"] {
        let answer = server.raw(&get(path)).await;
        expect(&answer, "404 Not Found", &page, "404 page not found\n");
    }
    let answer = server.raw(&get("/listen/abc")).await;
    expect(&answer, "400 Bad Request", &bad_close, "Bad Request\n");
    let answer = server.raw(&get("/connect/abc")).await;
    expect(&answer, "404 Not Found", &empty, "");
    let answer = server.raw(&format!("GET /listen/abc HTTP/1.1\r\n{UPGRADE}\r\n")).await;
    expect_switched(&answer);
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: aaa, bbb\r\n";
    let answer = server.raw(&format!("GET /listen/abcd HTTP/1.1\r\n{UPGRADE}{offer}\r\n")).await;
    expect_switched(&answer);
    let with_origin = |handle: &str, origin: &str| {
        format!("GET /listen/{handle} HTTP/1.1\r\n{UPGRADE}Origin: {origin}\r\n\r\n")
    };
    let forbidden = [
        "content-length: 10",
        "content-type: text/plain; charset=utf-8",
        "sec-websocket-version: 13",
        "x-content-type-options: nosniff",
    ];
    let answer = server.raw(&with_origin("abce", "http://evil.example")).await;
    expect(&answer, "403 Forbidden", &forbidden, "Forbidden\n");
    expect_switched(&server.raw(&with_origin("abcf", "http://x")).await);
    let version = UPGRADE.replace("13\r\n", "12\r\n");
    let answer = server.raw(&format!("GET /listen/abcg HTTP/1.1\r\n{version}\r\n")).await;
    expect(&answer, "400 Bad Request", &bad, "Bad Request\n");
    let no_key = UPGRADE.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "");
    let answer = server.raw(&format!("GET /listen/abch HTTP/1.1\r\n{no_key}\r\n")).await;
    expect(&answer, "400 Bad Request", &bad, "Bad Request\n");
    let post = "POST /listen/abci HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    expect(&server.raw(post).await, "400 Bad Request", &bad_close, "Bad Request\n");
    let _l = server.open("/listen/abcj").await;
    let answer = server.raw(&get("/listen/abcj")).await;
    expect(&answer, "409 Conflict", &empty, "");
}

/// Scenario `origin_re`.
#[tokio::test]
async fn only_origins_of_the_expression_are_admitted() {
    let origin = Some(OriginPattern::Expression(Regex::new(r"^https://ok\.example$").unwrap()));
    let server = Server::configured(|config| config.signaller.origin = origin).await;
    let request =
        |handle: &str, header: &str| format!("GET /listen/{handle} HTTP/1.1\r\n{UPGRADE}{header}\r\n");
    let answer = server.raw(&request("abc", "Origin: https://ok.example\r\n")).await;
    expect_switched(&answer);
    // No origin: there the handler panicked and the connection ended without an answer.
    for header in ["Origin: https://bad.example\r\n", ""] {
        let answer = server.raw(&request("abcd", header)).await;
        assert_eq!((answer.0.as_str(), answer.2.as_str()), ("HTTP/1.1 403 Forbidden", "Forbidden\n"));
    }
}

// No recording of these. The text of the first response and the status of the second are this server's.
#[tokio::test]
async fn malformed_escapes_and_other_methods_are_rejected() {
    let server = Server::new().await;
    for path in ["/listen/ab%6", "/listen/ab%zz", "/connect/%ff"] {
        let answer = server.raw(&format!("GET {path} HTTP/1.1\r\n{UPGRADE}\r\n")).await;
        assert_eq!((&*answer.0, &*answer.2), ("HTTP/1.1 404 Not Found", "404 page not found\n"), "{path}");
    }
    let answer = server.raw(&format!("POST /listen/abc HTTP/1.1\r\n{UPGRADE}\r\n")).await;
    assert_eq!((&*answer.0, &*answer.2), ("HTTP/1.1 405 Method Not Allowed", "Method Not Allowed\n"));
}
