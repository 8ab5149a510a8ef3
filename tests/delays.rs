//! The proof that a client of any dialect, however late its first frame is, ends up in a conversation that it
//! can finish: with a page that is slow to open, and with a network that is slow both ways, while the gateway
//! has only the client's behaviour to tell its dialect by.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod common;

use std::time::Duration;

use common::clients::{Client, Dialect, Did, Role};
use common::simulation::{Delay, PageId, Simulation};
use common::ws::Got;
use common::{TestGateway, hex, to_hex};
use sigver::protocol::frame::Message;

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

    fn run(&self) -> Result<(), String> {
        const KEY: &str = "room";
        let (one, other) = (self.first, self.joiner);
        let mut simulation = Simulation::new();
        let client = Client::new(one.0, Role::First, KEY);
        let first = simulation.open(&self.path(one.0, KEY), client, one.1);
        match self.comes {
            Comes::After => simulation.until(first, &Did::First)?,
            Comes::Between => simulation.until_reached(first)?,
        }
        let client = Client::new(other.0, Role::Joiner, KEY);
        let joiner = simulation.open(&self.path(other.0, KEY), client, other.1);
        simulation
            .until(joiner, &Did::Answer)
            .map_err(|what| format!("joiner: {what}; first: {:?}", simulation.log(first)))?;
        simulation.until(first, &Did::First)?;
        if matches!(other.0, Dialect::S15 | Dialect::S19 | Dialect::S20) {
            simulation.until(joiner, &Did::Joined)?;
        }
        simulation.settle(joiner).map_err(|what| format!("joiner: {what}"))?;
        simulation.settle(first).map_err(|what| format!("first: {what}"))?;
        let expected = self.expected(simulation.was_assumed(joiner));
        let got = (simulation.log(first).to_vec(), simulation.log(joiner).to_vec());
        if got != expected {
            return Err(format!("{got:?} instead of {expected:?}"));
        }
        Ok(())
    }

    /// All that is to happen in the two, and nothing else.
    fn expected(&self, assumed: bool) -> (Vec<Did>, Vec<Did>) {
        let (one, other) = (self.first.0, self.joiner.0);
        let v1 = |dialect: Dialect| matches!(dialect, Dialect::S15 | Dialect::S16 | Dialect::S18);
        let mut first = vec![Did::First];
        let mut joined = vec![Did::Bound, Did::Answer];
        if one == Dialect::S5 {
            first.push(Did::Join);
        }
        if other.current() && assumed {
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

fn run(cases: &[Case]) {
    let result = |case: &Case| case.run().map_err(|what| format!("{case:?}: {what}"));
    let failures: Vec<String> = cases.iter().filter_map(|case| result(case).err()).collect();
    assert!(!cases.is_empty());
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn clients_of_one_dialect_find_one_another_whatever_the_delay() {
    run(&same_dialect());
}

/// Which conversations between two dialects are left out: nothing on the wire tells in time what the member
/// reads.
fn unreadable(one: Dialect, other: Dialect, comes: Comes) -> bool {
    match (one, other) {
        // A member of 19 or 20 has not sent a content yet: it is taken for what the joiner is, or for 20.
        (Dialect::S19, _) | (Dialect::S20, Dialect::S19) => true,
        // A member of 15 whose page is late has not answered the probe: content of 16 or 18 is shown to it at
        // once.
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

#[test]
fn clients_of_different_dialects_find_one_another_whatever_the_delay() {
    run(&mixed());
}

/// A joiner that leaves, and then one that stays, while the member's page is not open yet.
fn leave_and_join(dialect: Dialect, ms: u64) -> Result<(), String> {
    let mut simulation = Simulation::new();
    let client = |role| Client::new(dialect, role, "room");
    let first = simulation.open("/room", client(Role::First), Delay::Page(ms));
    simulation.until_reached(first)?;
    let leaves = simulation.open("/room", client(Role::Joiner), Delay::Page(0));
    simulation.until(leaves, &Did::Bound)?;
    simulation.settle(leaves)?;
    simulation.leave(leaves)?;
    let stays = simulation.open("/room", client(Role::Joiner), Delay::Page(0));
    simulation.until(stays, &Did::Answer).map_err(|what| format!("joiner: {what}"))?;
    simulation.settle(stays)?;
    simulation.settle(first)?;
    let expected = match dialect.current() {
        true => [Did::First, Did::Offer, Did::Gone, Did::Offer].to_vec(),
        false => [Did::First, Did::Offer, Did::Gone, Did::Offer, Did::End].to_vec(),
    };
    match simulation.log(first) == expected {
        true => Ok(()),
        false => Err(format!("{:?} instead of {expected:?}", simulation.log(first))),
    }
}

#[test]
fn joiner_may_leave_before_the_page_of_the_member_is_open() {
    for dialect in Dialect::ALL.into_iter().filter(|dialect| *dialect != Dialect::S5) {
        for ms in [0, 300, 500, 1000] {
            leave_and_join(dialect, ms).unwrap_or_else(|what| panic!("{dialect:?} {ms}: {what}"));
        }
    }
}

/// Returns the first message that a client gets, but for the probe, and how long after the upgrade.
fn first_message(dialect: Dialect, delay: Delay) -> (Duration, String) {
    let mut simulation = Simulation::new();
    let page: PageId = simulation.open("/room", Client::new(dialect, Role::First, "room"), delay);
    let opened = simulation.now();
    simulation.until(page, &Did::First).unwrap();
    let messages = simulation.received(page).iter().filter_map(|(time, message)| match message {
        Message::Binary(bytes) => Some((*time - opened, to_hex(bytes))),
        Message::Text(_) => None,
    });
    messages.into_iter().find(|(_, hex)| hex != "10012001").unwrap()
}

#[test]
fn only_a_silent_client_waits_for_its_first_message() {
    assert_eq!(first_message(Dialect::S20, Delay::Page(0)), (Duration::ZERO, "2001".to_owned()));
    assert_eq!(first_message(Dialect::S18, Delay::Page(0)), (Duration::from_millis(150), "1001".to_owned()));
}

/// The same over sockets, whatever the time it takes.
#[tokio::test]
async fn gateway_answers_clients_that_send_first_and_silent_ones() {
    let gateway = TestGateway::start("auto").await;
    for (sends, expected) in [(Some(hex("1a02080b")), "2001"), (None, "1001")] {
        let mut ws = gateway.ws(&format!("/{expected}")).await;
        if let Some(bytes) = sends {
            assert!(ws.binary(&bytes).await);
        }
        let got = loop {
            match ws.message().await {
                // The probe, which is no answer.
                Got::Binary(bytes) if bytes == hex("10012001") => {}
                got => break got,
            }
        };
        assert_eq!(got, Got::binary(expected));
    }
    gateway.stop().await;
}
