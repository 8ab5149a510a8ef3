//! Clients of netflux of which only tags exist, and whose pings differ from those of others. Those of
//! 1.2.0-beta.1 to 2.0.3 speak sigver 15, ping the server themselves as soon as they are connected, and close
//! if the pong does not arrive within three seconds.

use std::time::{Duration, Instant};

use sigver::protocol::dialect::{Dialect, Release};
use sigver::protocol::frame::Message;
use sigver::tools::client::dialects::Role;

use crate::common::clients::{Client, ClientStep, DIALECTS};
use crate::common::simulation::{Delay, PageId, Simulation};

/// Time in which the client wants its pong.
const PONG_TIMEOUT: Duration = Duration::from_secs(3);

/// Delays after which a page or a frame arrives before the pong's timeout.
const DELAYS: [Delay; 9] = [
    Delay::Page(0),
    Delay::Page(100),
    Delay::Page(300),
    Delay::Page(700),
    Delay::Page(1500),
    Delay::Path(50),
    Delay::Path(200),
    Delay::Path(700),
    Delay::Path(1500),
];

/// A page with a pinging client, and the time at which its socket opened.
struct Pinging {
    page: PageId,
    opened: Instant,
    delay: Delay,
}

impl Pinging {
    fn open(simulation: &mut Simulation, role: Role, delay: Delay) -> Self {
        let page = simulation.open("/room", Client::pinging(role), delay);
        Pinging { page, opened: simulation.now(), delay }
    }

    /// Checks that the pong arrived in time, and that nothing else went wrong.
    fn check(&self, simulation: &Simulation) {
        let pinged = match self.delay {
            Delay::Page(ms) => self.opened + Duration::from_millis(ms),
            Delay::Path(_) => self.opened,
        };
        let pong = simulation
            .received(self.page)
            .iter()
            .find(|(_, message)| *message == Message::binary([0x28, 1].to_vec()))
            .map(|(time, _)| *time - pinged);
        assert!(pong.is_some_and(|after| after <= PONG_TIMEOUT), "{:?}: {pong:?}", self.delay);
        let wrong = simulation.log(self.page).iter().find(|step| matches!(step, ClientStep::Failed(_)));
        assert_eq!(wrong, None, "{:?}", self.delay);
    }
}

fn has_place(simulation: &mut Simulation, pages: &[PageId]) {
    for page in pages {
        simulation.settle(*page).unwrap_or_else(|what| panic!("{page:?}: {what}"));
    }
}

/// Three clients, of which each receives what both others send it.
fn three_meet(protocols: &str, delay: Delay) {
    let mut simulation = Simulation::with_protocols(protocols);
    let first = Pinging::open(&mut simulation, Role::Member, delay);
    let until = |simulation: &mut Simulation, page: &Pinging, step: ClientStep| {
        simulation.until(page.page, &step).unwrap_or_else(|what| {
            panic!("{protocols} {delay:?}: {what}; {:?}", simulation.received(page.page))
        });
    };
    until(&mut simulation, &first, ClientStep::BecameMember);
    let joiners = [(); 2].map(|()| {
        let joiner = Pinging::open(&mut simulation, Role::Joiner, delay);
        until(&mut simulation, &joiner, ClientStep::Answer);
        until(&mut simulation, &joiner, ClientStep::JoinedGroup);
        joiner
    });
    // Long enough for pings of the server.
    simulation.run_for(Duration::from_secs(21));
    let pages = [&first, &joiners[0], &joiners[1]];
    has_place(&mut simulation, &pages.map(|page| page.page));
    let offers = simulation.log(first.page).iter().filter(|step| **step == ClientStep::Offer).count();
    assert_eq!(offers, 2, "{protocols} {delay:?}: {:?}", simulation.log(first.page));
    pages.iter().for_each(|page| page.check(&simulation));
}

#[test]
fn three_pinging_clients_meet() {
    for protocols in
        ["auto", "protobuf-v1", "sigver-15", "sigver-15.0.1", "sigver-15.0.2", "auto,sigver-17.0.1"]
    {
        for delay in DELAYS {
            three_meet(protocols, delay);
        }
    }
}

/// A pinging client and one of another dialect, in both roles.
fn two_meet(dialect: Dialect, role: Role, delay: Delay) {
    let mut simulation = Simulation::new();
    let path = if dialect == Dialect::Sigver5 { "/" } else { "/room" };
    let open_other = |simulation: &mut Simulation, role| {
        simulation.open(path, Client::new(dialect, role, "room"), Delay::Page(0))
    };
    let context = |what: String| panic!("{dialect} {role:?} {delay:?}: {what}");
    let (pinging, other) = match role {
        Role::Member => {
            let pinging = Pinging::open(&mut simulation, role, delay);
            simulation.until(pinging.page, &ClientStep::BecameMember).unwrap_or_else(context);
            let other = open_other(&mut simulation, Role::Joiner);
            simulation.until(other, &ClientStep::Answer).unwrap_or_else(context);
            (pinging, other)
        }
        Role::Joiner => {
            let other = open_other(&mut simulation, Role::Member);
            simulation.until(other, &ClientStep::BecameMember).unwrap_or_else(context);
            let pinging = Pinging::open(&mut simulation, role, delay);
            simulation.until(pinging.page, &ClientStep::Answer).unwrap_or_else(context);
            simulation.until(pinging.page, &ClientStep::JoinedGroup).unwrap_or_else(context);
            (pinging, other)
        }
    };
    simulation.run_for(Duration::from_secs(21));
    has_place(&mut simulation, &[pinging.page, other]);
    pinging.check(&simulation);
    let wrong = simulation.log(other).iter().find(|step| matches!(step, ClientStep::Failed(_)));
    assert_eq!(wrong, None, "{dialect} {role:?} {delay:?}");
}

#[test]
fn pinging_client_meets_every_other_dialect() {
    for dialect in DIALECTS {
        for delay in DELAYS {
            two_meet(dialect, Role::Member, delay);
            // A member of 19 has sent no content by which it differs from one of 20.
            if dialect != Dialect::Sigver19 {
                two_meet(dialect, Role::Joiner, delay);
            }
        }
    }
}

/// A member that is in a room before it has answered the probe is not sent what it cannot decode.
#[test]
fn contents_wait_for_the_pong() {
    for dialect in [Dialect::Sigver16, Dialect::Sigver18, Dialect::Sigver20] {
        for ms in [50, 200, 700] {
            let mut simulation = Simulation::new();
            let member = Pinging::open(&mut simulation, Role::Member, Delay::Path(ms));
            simulation.run_for(Duration::from_millis(ms / 2 + 10));
            let joiner = simulation.open("/room", Client::new(dialect, Role::Joiner, "room"), Delay::Page(0));
            simulation
                .until(joiner, &ClientStep::Answer)
                .unwrap_or_else(|what| panic!("{dialect} {ms}: {what}"));
            has_place(&mut simulation, &[member.page, joiner]);
            member.check(&simulation);
        }
    }
}

/// The first heartbeat of clients of sigver 16 to 18 is no ping: it is sent too late.
#[test]
fn heartbeats_of_16_and_18_are_not_answered() {
    for dialect in [Dialect::Sigver16, Dialect::Sigver18] {
        for delay in DELAYS {
            let mut simulation = Simulation::new();
            let page = simulation.open("/room", Client::new(dialect, Role::Member, "room"), delay);
            simulation.run_for(Duration::from_secs(21));
            let pong = Message::binary([0x28, 1].to_vec());
            let answered = simulation.received(page).iter().any(|(_, message)| *message == pong);
            assert!(!answered, "{dialect} {delay:?}: {:?}", simulation.received(page));
            has_place(&mut simulation, &[page]);
        }
    }
}

/// Clients of netflux 1.1.0-beta.1, which speak sigver 12: an opener is pinged, and answered that it is the
/// first whether or not it is.
#[test]
fn openers_of_12_are_pinged_and_always_first() {
    let mut simulation = Simulation::with_protocols("sigver-12");
    let mut texts = |role| {
        let client = Client::of_release(Release::V12_0_0, role, "k");
        let page = simulation.open("/", client, Delay::Page(0));
        simulation.run_for(Duration::from_secs(1));
        let texts = simulation.received(page).iter().map(|(_, message)| match message {
            Message::Text(text) => text.to_string(),
            Message::Binary(bytes) => panic!("{bytes:?}"),
        });
        texts.collect::<Vec<_>>()
    };
    let (first, ping) = (r#"{"first":true}"#.to_owned(), r#"{"ping":true}"#.to_owned());
    assert_eq!(texts(Role::Member), [first.clone(), ping.clone()]);
    assert_eq!(texts(Role::Member), [first, ping]);
    assert_eq!(texts(Role::Joiner), [r#"{"first":false}"#]);
}
