//! The proof that a client of any dialect, however late its first frame is, ends up in a conversation that it
//! can finish: with a page that is slow to open, and with a network that is slow both ways, while the gateway
//! has only the client's behaviour to detect its dialect by.

use std::time::Duration;

use sigver::protocol::dialect::Dialect;
use sigver::protocol::frame::Message;
use sigver::tools::client::dialects::Role;

use crate::common::clients::{Client, ClientStep, DIALECTS, is_protobuf_v2};
use crate::common::simulation::{Delay, PageId, Simulation};
use crate::common::ws::Got;
use crate::common::{TestGateway, hex, to_hex};

const DELAYS: [u64; 10] = [0, 50, 100, 150, 200, 300, 500, 700, 1000, 1500];

/// The moment at which the joiner connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JoinTime {
    /// After the library of the first client knows that it is the first.
    AfterOpen,
    /// After the first client is in the room, and perhaps before it has sent a frame.
    BeforeOpen,
}

/// Two clients.
#[derive(Clone, Debug)]
struct Case {
    first: (Dialect, Delay),
    joiner: (Dialect, Delay),
    join_time: JoinTime,
    /// Clients of sigver 5 have their key in a message, and any path.
    json_path: &'static str,
}

impl Case {
    fn path(&self, dialect: Dialect, key: &str) -> String {
        match dialect {
            Dialect::Sigver5 => self.json_path.to_owned(),
            _ => format!("/{key}"),
        }
    }

    fn run(&self) -> Result<(), String> {
        const KEY: &str = "room";
        let (one, other) = (self.first, self.joiner);
        let mut simulation = Simulation::new();
        let client = Client::new(one.0, Role::Member, KEY);
        let first = simulation.open(&self.path(one.0, KEY), client, one.1);
        match self.join_time {
            JoinTime::AfterOpen => simulation.until(first, &ClientStep::BecameMember)?,
            JoinTime::BeforeOpen => simulation.until_reached(first)?,
        }
        let client = Client::new(other.0, Role::Joiner, KEY);
        let joiner = simulation.open(&self.path(other.0, KEY), client, other.1);
        simulation
            .until(joiner, &ClientStep::Answer)
            .map_err(|what| format!("joiner: {what}; first: {:?}", simulation.log(first)))?;
        simulation.until(first, &ClientStep::BecameMember)?;
        if matches!(other.0, Dialect::Sigver15 | Dialect::Sigver19 | Dialect::Sigver20) {
            simulation.until(joiner, &ClientStep::JoinedGroup)?;
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
    fn expected(&self, assumed: bool) -> (Vec<ClientStep>, Vec<ClientStep>) {
        let (one, other) = (self.first.0, self.joiner.0);
        let v1 =
            |dialect: Dialect| matches!(dialect, Dialect::Sigver15 | Dialect::Sigver16 | Dialect::Sigver18);
        let mut first = vec![ClientStep::BecameMember];
        let mut joined = vec![ClientStep::LinkedToMember, ClientStep::Answer];
        if one == Dialect::Sigver5 {
            first.push(ClientStep::JoinerArrived);
        }
        if is_protobuf_v2(other) && assumed {
            // The place it was given before it had spoken is taken back, which the member may see.
            match one {
                Dialect::Sigver5 => first.push(ClientStep::JoinerArrived),
                _ => first.push(ClientStep::PeerLeft),
            }
        }
        first.push(ClientStep::Offer);
        if other == Dialect::Sigver5 {
            joined = vec![ClientStep::BecameMember, ClientStep::Answer];
        }
        if v1(one) && v1(other) {
            first.push(ClientStep::End);
            joined.push(ClientStep::End);
        }
        if matches!(other, Dialect::Sigver15 | Dialect::Sigver19 | Dialect::Sigver20) {
            joined.push(ClientStep::JoinedGroup);
        }
        (first, joined)
    }
}

fn same_dialect() -> Vec<Case> {
    let mut cases = Vec::new();
    for dialect in DIALECTS {
        for ms in DELAYS {
            for delay in [Delay::Page, Delay::Path] {
                for (first, joiner) in [(ms, 0), (0, ms), (ms, ms)] {
                    for join_time in [JoinTime::AfterOpen, JoinTime::BeforeOpen] {
                        if join_time == JoinTime::BeforeOpen && dialect == Dialect::Sigver5 {
                            continue;
                        }
                        cases.push(Case {
                            first: (dialect, delay(first)),
                            joiner: (dialect, delay(joiner)),
                            join_time,
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
fn clients_of_one_dialect_find_one_another_despite_any_delay() {
    run(&same_dialect());
}

/// Conversations between two dialects that are left out: nothing on the wire shows in time what the member
/// reads.
fn unreadable(one: Dialect, other: Dialect, join_time: JoinTime) -> bool {
    match (one, other) {
        // A member of 19 or 20 has not sent a content yet: it is treated as what the joiner is, or as 20.
        (Dialect::Sigver19, _) | (Dialect::Sigver20, Dialect::Sigver19) => true,
        // A member of 15 whose page is late has not answered the probe: content of 16 or 18 is shown to it at
        // once.
        (Dialect::Sigver15, Dialect::Sigver16 | Dialect::Sigver18) => join_time == JoinTime::BeforeOpen,
        // Its opener gets nothing from us to know that it is in the room by.
        (Dialect::Sigver5, _) => join_time == JoinTime::BeforeOpen,
        _ => false,
    }
}

fn mixed() -> Vec<Case> {
    let mut cases = Vec::new();
    for one in DIALECTS {
        for other in DIALECTS.into_iter().filter(|other| *other != one) {
            for join_time in [JoinTime::AfterOpen, JoinTime::BeforeOpen] {
                if unreadable(one, other, join_time) {
                    continue;
                }
                for ms in [0, 200, 500, 1000] {
                    for (first, joiner) in [(ms, 0), (0, ms), (ms, ms)] {
                        cases.push(Case {
                            first: (one, Delay::Page(first)),
                            joiner: (other, Delay::Page(joiner)),
                            join_time,
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
fn clients_of_different_dialects_find_one_another_despite_any_delay() {
    run(&mixed());
}

/// A joiner that leaves, and then one that stays, while the member's page is not open yet.
fn leave_and_join(dialect: Dialect, ms: u64) -> Result<(), String> {
    let mut simulation = Simulation::new();
    let client = |role| Client::new(dialect, role, "room");
    let first = simulation.open("/room", client(Role::Member), Delay::Page(ms));
    simulation.until_reached(first)?;
    let leaves = simulation.open("/room", client(Role::Joiner), Delay::Page(0));
    simulation.until(leaves, &ClientStep::LinkedToMember)?;
    simulation.settle(leaves)?;
    simulation.leave(leaves)?;
    let stays = simulation.open("/room", client(Role::Joiner), Delay::Page(0));
    simulation.until(stays, &ClientStep::Answer).map_err(|what| format!("joiner: {what}"))?;
    simulation.settle(stays)?;
    simulation.settle(first)?;
    let expected = match is_protobuf_v2(dialect) {
        true => {
            [ClientStep::BecameMember, ClientStep::Offer, ClientStep::PeerLeft, ClientStep::Offer].to_vec()
        }
        false => [
            ClientStep::BecameMember,
            ClientStep::Offer,
            ClientStep::PeerLeft,
            ClientStep::Offer,
            ClientStep::End,
        ]
        .to_vec(),
    };
    match simulation.log(first) == expected {
        true => Ok(()),
        false => Err(format!("{:?} instead of {expected:?}", simulation.log(first))),
    }
}

#[test]
fn joiner_may_leave_before_the_page_of_the_member_is_open() {
    for dialect in DIALECTS.into_iter().filter(|dialect| *dialect != Dialect::Sigver5) {
        for ms in [0, 300, 500, 1000] {
            leave_and_join(dialect, ms).unwrap_or_else(|what| panic!("{dialect:?} {ms}: {what}"));
        }
    }
}

/// Returns the first message that a client gets, but for the probe, and how long after the upgrade.
fn first_message(dialect: Dialect, delay: Delay) -> (Duration, String) {
    let mut simulation = Simulation::new();
    let page: PageId = simulation.open("/room", Client::new(dialect, Role::Member, "room"), delay);
    let opened = simulation.now();
    simulation.until(page, &ClientStep::BecameMember).unwrap();
    let messages = simulation.received(page).iter().filter_map(|(time, message)| match message {
        Message::Binary(bytes) => Some((*time - opened, to_hex(bytes))),
        Message::Text(_) => None,
    });
    messages.into_iter().find(|(_, hex)| hex != "10012001").unwrap()
}

#[test]
fn only_a_silent_client_waits_for_its_first_message() {
    assert_eq!(first_message(Dialect::Sigver20, Delay::Page(0)), (Duration::ZERO, "2001".to_owned()));
    assert_eq!(
        first_message(Dialect::Sigver18, Delay::Page(0)),
        (Duration::from_millis(150), "1001".to_owned())
    );
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
