use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, yield_now};

use super::*;

/// Time limit of an event that is expected at once.
const SOON: Duration = Duration::from_secs(10);

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn urls_are_checked() {
    let new = |url: &str| Callout::new(url, Duration::from_secs(1), Duration::ZERO, &Arc::default());
    for url in ["http://localhost:9000/auth?x=1", "http://[::1]/a", "http://h"] {
        assert!(new(url).is_ok(), "{url}");
    }
    for url in ["", "localhost:9000", "ftp://h/", "http://", "/path", "http://user:pw@h/"] {
        assert!(new(url).is_err(), "{url}");
    }
    assert_eq!(new("http://[::1]:90/a").unwrap().host, "::1");
}

fn network(number: u32) -> Option<ClientNetwork> {
    Some(ClientNetwork::V4(number))
}

/// Returns a callout to a program that accepts all tokens.
async fn accepting() -> Arc<Callout> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
    });
    Arc::new(Callout::new(&url, LONG, Duration::ZERO, &Arc::default()).unwrap())
}

/// Takes all turns that an address may have.
fn take_turns(callout: &Callout, network: Option<ClientNetwork>) -> Vec<question_turns::QuestionTurn> {
    let turn = || callout.turns.wait(network).now_or_never().flatten();
    std::iter::from_fn(turn).collect()
}

/// Checks a token in a task of its own. Returns once its question is open.
async fn begin(callout: &Arc<Callout>, network: Option<ClientNetwork>) -> JoinHandle<Answer> {
    let this = Arc::clone(callout);
    let check = tokio::spawn(async move { this.check("token", network).await });
    while callout.state.lock().open.join(&token_digest("token"), network, true).is_none() {
        yield_now().await;
    }
    check
}

#[tokio::test]
async fn address_that_waits_for_its_turn_delays_no_other_one_with_the_same_token() {
    let callout = accepting().await;
    let turns = take_turns(&callout, network(1));
    assert!(!turns.is_empty());
    let crowded = begin(&callout, network(1)).await;
    let other = tokio::time::timeout(SOON, callout.check("token", network(2))).await;
    assert!(other.is_ok_and(|answer| answer.is_ok()));
    // The answer is for both.
    assert!(tokio::time::timeout(SOON, crowded).await.unwrap().unwrap().is_ok());
    assert_eq!((callout.counts.answered.get(), callout.counts.crowded_out.get()), (1, 0));
    drop(turns);
}

#[tokio::test]
async fn pause_of_an_address_refuses_no_other_one_with_the_same_token() {
    let callout = accepting().await;
    let mut turns = Vec::new();
    for number in 100.. {
        let more = take_turns(&callout, network(number));
        if more.is_empty() {
            break;
        }
        turns.extend(more);
    }
    let waiting = [begin(&callout, network(1)).await, begin(&callout, network(2)).await];
    let now = clock::now();
    for _ in 0..5 {
        callout.state.lock().breaker.on_failure(network(1), now, now);
    }
    // One that connects only now waits with the others.
    let late = begin(&callout, network(1)).await;
    while callout.counts.shared.get() == 0 {
        yield_now().await;
    }
    drop(turns);
    let mut answers = Vec::new();
    for check in waiting.into_iter().chain([late]) {
        answers.push(tokio::time::timeout(SOON, check).await.unwrap().unwrap().is_ok());
    }
    assert_eq!(answers[1..], [true, true]);
    assert_eq!(callout.counts.answered.get(), 1);
}
