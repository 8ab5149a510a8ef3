//! The proof that a client of any dialect, however late its first frame is, ends up in a conversation that it can
//! finish: with a page that is slow to open, and with a network that is slow both ways, while the gateway has only
//! the client's behaviour to tell its dialect by.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::clients::{Client, Dialect, Did, Role};
use common::page::{Delay, Page};
use common::ws::Got;
use common::{TestGateway, hex};
use tokio::task::JoinSet;

const DELAYS: [u64; 10] = [0, 50, 100, 150, 200, 300, 500, 700, 1000, 1500];

/// When the joiner comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    /// When the first one's library knows that it is the first.
    After,
    /// When the first one is in the room, and may not have said a word.
    Between,
}

/// Two clients.
#[derive(Clone, Debug)]
struct Case {
    first: (Dialect, Delay),
    joiner: (Dialect, Delay),
    comes: Comes,
    /// Clients of sigver 5 have their key in a message, and any path.
    json_path: &'static str,
}

impl Case {
    fn path(&self, dialect: Dialect, key: &str) -> String {
        match dialect {
            Dialect::S5 => self.json_path.to_owned(),
            _ => format!("/{key}"),
        }
    }

    async fn run(&self, gateway: SocketAddr, key: &str) -> Result<(), String> {
        let (one, other) = (self.first, self.joiner);
        let client = Client::new(one.0, Role::First, key);
        let mut first = Page::open(gateway, &self.path(one.0, key), client, one.1).await;
        match self.comes {
            Comes::After => first.until(&Did::First).await?,
            Comes::Between => first.reached().await?,
        }
        let client = Client::new(other.0, Role::Joiner, key);
        let mut joiner = Page::open(gateway, &self.path(other.0, key), client, other.1).await;
        joiner.until(&Did::Answer).await.map_err(|what| format!("joiner: {what}; first: {:?}", first.log))?;
        first.until(&Did::First).await?;
        if matches!(other.0, Dialect::S15 | Dialect::S19 | Dialect::S20) {
            joiner.until(&Did::Joined).await?;
        }
        joiner.settle().await.map_err(|what| format!("joiner: {what}"))?;
        first.settle().await.map_err(|what| format!("first: {what}"))?;
        let expected = self.expected(&joiner);
        let got = (first.log.clone(), joiner.log.clone());
        first.close();
        joiner.close();
        if got != expected {
            return Err(format!("{got:?} instead of {expected:?}"));
        }
        Ok(())
    }

    /// All that is to happen in the two, and nothing else.
    fn expected(&self, joiner: &Page) -> (Vec<Did>, Vec<Did>) {
        let (one, other) = (self.first.0, self.joiner.0);
        let v1 = |dialect: Dialect| matches!(dialect, Dialect::S15 | Dialect::S16 | Dialect::S18);
        let mut first = vec![Did::First];
        let mut joined = vec![Did::Bound, Did::Answer];
        if one == Dialect::S5 {
            first.push(Did::Join);
        }
        if other.current() && joiner.was_guessed() {
            // The place it was given before it had spoken is taken back, which the member may see.
            match one {
                Dialect::S5 => first.push(Did::Join),
                _ => first.push(Did::Gone),
            }
        }
        first.push(Did::Offer);
        if other == Dialect::S5 {
            joined = vec![Did::First, Did::Answer];
        }
        if v1(one) && v1(other) {
            first.push(Did::End);
            joined.push(Did::End);
        }
        if matches!(other, Dialect::S15 | Dialect::S19 | Dialect::S20) {
            joined.push(Did::Joined);
        }
        (first, joined)
    }
}

fn same_dialect() -> Vec<Case> {
    let mut cases = Vec::new();
    for dialect in Dialect::ALL {
        for ms in DELAYS {
            for delay in [Delay::Page, Delay::Path] {
                for (first, joiner) in [(ms, 0), (0, ms), (ms, ms)] {
                    for comes in [Comes::After, Comes::Between] {
                        if comes == Comes::Between && dialect == Dialect::S5 {
                            continue;
                        }
                        cases.push(Case {
                            first: (dialect, delay(first)),
                            joiner: (dialect, delay(joiner)),
                            comes,
                            json_path: if ms % 200 == 0 { "/111111" } else { "/" },
                        });
                    }
                }
            }
        }
    }
    cases
}

async fn run(cases: Vec<Case>) {
    let gateway = TestGateway::start("auto").await;
    let started = Instant::now();
    let mut running = JoinSet::new();
    let total = cases.len();
    for (number, case) in cases.into_iter().enumerate() {
        let address = gateway.address;
        running.spawn(async move {
            let result = case.run(address, &format!("room-{number}")).await;
            result.map_err(|what| format!("{case:?}: {what}"))
        });
    }
    let mut failures = Vec::new();
    while let Some(result) = running.join_next().await {
        failures.extend(result.unwrap().err());
    }
    failures.sort();

    assert!(failures.is_empty(), "{} of {total} failed:\n{}", failures.len(), failures.join("\n"));
    assert!(started.elapsed() < Duration::from_secs(25), "took {:?}", started.elapsed());
    gateway.stop().await;
}

#[tokio::test]
async fn clients_of_one_dialect_find_one_another_whatever_the_delay() {
    run(same_dialect()).await;
}

/// Which conversations between two dialects are left out: nothing on the wire tells in time what the member reads.
fn unreadable(one: Dialect, other: Dialect, comes: Comes) -> bool {
    match (one, other) {
        // A member of 19 or 20 has not sent a content yet: it is taken for what the joiner is, or for 20.
        (Dialect::S19, _) | (Dialect::S20, Dialect::S19) => true,
        // A member of 15 whose page is late has not answered the probe: content of 16 or 18 is shown to it at once.
        (Dialect::S15, Dialect::S16 | Dialect::S18) => comes == Comes::Between,
        // Its opener gets nothing from us to know that it is in the room by.
        (Dialect::S5, _) => comes == Comes::Between,
        (Dialect::S15 | Dialect::S16 | Dialect::S18 | Dialect::S20, _) => false,
    }
}

fn mixed() -> Vec<Case> {
    let mut cases = Vec::new();
    for one in Dialect::ALL {
        for other in Dialect::ALL.into_iter().filter(|other| *other != one) {
            for comes in [Comes::After, Comes::Between] {
                if unreadable(one, other, comes) {
                    continue;
                }
                for ms in [0, 200, 500, 1000] {
                    for (first, joiner) in [(ms, 0), (0, ms), (ms, ms)] {
                        cases.push(Case {
                            first: (one, Delay::Page(first)),
                            joiner: (other, Delay::Page(joiner)),
                            comes,
                            json_path: "/",
                        });
                    }
                }
            }
        }
    }
    cases
}

#[tokio::test]
async fn clients_of_different_dialects_find_one_another_too() {
    run(mixed()).await;
}

/// A joiner that leaves, and then one that stays, while the member's page is not open yet.
async fn comes_and_goes(gateway: SocketAddr, dialect: Dialect, ms: u64) -> Result<(), String> {
    let key = format!("left-{dialect:?}-{ms}");
    let path = format!("/{key}");
    let client = |role| Client::new(dialect, role, &key);
    let mut first = Page::open(gateway, &path, client(Role::First), Delay::Page(ms)).await;
    first.reached().await?;
    let mut leaves = Page::open(gateway, &path, client(Role::Joiner), Delay::Page(0)).await;
    leaves.until(&Did::Bound).await?;
    leaves.settle().await?;
    leaves.leave().await?;
    let mut stays = Page::open(gateway, &path, client(Role::Joiner), Delay::Page(0)).await;
    stays.until(&Did::Answer).await.map_err(|what| format!("joiner: {what}"))?;
    stays.settle().await?;
    first.settle().await?;
    let expected = match dialect.current() {
        true => [Did::First, Did::Offer, Did::Gone, Did::Offer].to_vec(),
        false => [Did::First, Did::Offer, Did::Gone, Did::Offer, Did::End].to_vec(),
    };
    match first.log == expected {
        true => Ok(()),
        false => Err(format!("{:?} instead of {expected:?}", first.log)),
    }
}

#[tokio::test]
async fn a_joiner_may_leave_before_the_page_of_the_member_is_open() {
    let gateway = TestGateway::start("auto").await;
    let mut running = JoinSet::new();
    for dialect in Dialect::ALL.into_iter().filter(|dialect| *dialect != Dialect::S5) {
        for ms in [0, 300, 500, 1000] {
            let address = gateway.address;
            running.spawn(async move {
                let result = comes_and_goes(address, dialect, ms).await;
                result.map_err(|what| format!("{dialect:?} {ms}: {what}"))
            });
        }
    }
    let mut failures = Vec::new();
    while let Some(result) = running.join_next().await {
        failures.extend(result.unwrap().err());
    }
    failures.sort();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    gateway.stop().await;
}

/// From the upgrade to the first message, of a client that sends this or nothing.
async fn wait_for_the_first_word(gateway: &TestGateway, path: &str, sends: Option<&[u8]>) -> (Duration, Got) {
    let mut ws = gateway.ws(path).await;
    let start = Instant::now();
    if let Some(bytes) = sends {
        assert!(ws.binary(bytes).await);
    }
    let got = loop {
        match ws.message().await {
            // The probe, which is no answer.
            Got::Binary(bytes) if bytes == hex("10012001") => {}
            got => break got,
        }
    };
    (start.elapsed(), got)
}

#[tokio::test]
async fn who_speaks_first_waits_for_nothing_and_who_is_silent_not_for_long() {
    let gateway = TestGateway::start("auto").await;
    let (mut asked, mut silent) = (Vec::new(), Vec::new());
    for number in 0..5 {
        let connect = hex("1a02080b");
        let (time, got) = wait_for_the_first_word(&gateway, &format!("/asks-{number}"), Some(&connect)).await;
        assert_eq!(got, Got::binary("2001"));
        asked.push(time);
        let (time, got) = wait_for_the_first_word(&gateway, &format!("/silent-{number}"), None).await;
        assert_eq!(got, Got::binary("1001"));
        silent.push(time);
    }
    let (asked, silent) = (asked.into_iter().min().unwrap(), silent.into_iter().min().unwrap());
    assert!(asked * 3 < silent, "{asked:?} for an answer, {silent:?} of silence");
    assert!(silent < Duration::from_millis(500), "{silent:?}");
    gateway.stop().await;
}
