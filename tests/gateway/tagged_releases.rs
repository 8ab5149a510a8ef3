//! Releases of sigver of which only tags exist, and which are served as themselves if they are named: 9.0 and
//! 15.0.0. `tests/gateway/pinging_clients.rs` has 12, and `tests/gateway/sse.rs` the event streams of 9.0.

use std::time::Duration;

use sigver::protocol::dialect::Release;
use sigver::protocol::frame::Message;
use sigver::tools::client::dialects::Role;

use crate::common::TestGateway;
use crate::common::clients::{Client, ClientStep};
use crate::common::simulation::{Delay, Simulation};
use crate::common::ws::Got;

/// Three clients, which answer the pings of the server, exchange messages and stay.
#[test]
fn clients_of_15_0_0_meet() {
    for protocols in ["sigver-15.0.0", "sigver-15.0.0,sigver-20"] {
        let mut simulation = Simulation::with_protocols(protocols);
        let open = |simulation: &mut Simulation, role, steps: &[ClientStep]| {
            let client = Client::of_release(Release::V15_0_0, role, "room");
            let page = simulation.open("/room", client, Delay::Page(0));
            for step in steps {
                simulation.until(page, step).unwrap_or_else(|what| panic!("{protocols}: {what}"));
            }
            page
        };
        let member = open(&mut simulation, Role::Member, &[ClientStep::BecameMember]);
        let joiners = [(); 2].map(|()| open(&mut simulation, Role::Joiner, &[ClientStep::Answer]));
        simulation.run_for(Duration::from_secs(21));
        for page in [member, joiners[0], joiners[1]] {
            simulation.settle(page).unwrap_or_else(|what| panic!("{protocols}: {what}"));
            let ping = Message::binary([0x18, 1].to_vec());
            let pings = simulation.received(page).iter().filter(|(_, message)| *message == ping).count();
            assert!(pings >= 4, "{protocols}: {:?}", simulation.received(page));
        }
        let offers = simulation.log(member).iter().filter(|step| **step == ClientStep::Offer).count();
        assert_eq!(offers, 2, "{protocols}: {:?}", simulation.log(member));
    }
}

#[tokio::test]
async fn sigver_15_0_0_has_ping_in_field_3_and_pong_in_field_4() {
    let gateway = TestGateway::start("sigver-15.0.0").await;
    let (is_first, is_not_first) = (Got::binary("1001"), Got::binary("1000"));
    let (ping, pong) = (Got::binary("1801"), Got::binary("2001"));
    let mut member = gateway.ws("/k").await;
    member.expect(&[is_first.clone(), ping.clone()]).await;
    member.binary(&[0x20, 1]).await;
    member.binary(&[0x18, 1]).await;
    member.expect(std::slice::from_ref(&pong)).await;
    member.expect_nothing().await;
    let mut joiner = gateway.ws("/k").await;
    joiner.expect(&[is_not_first, ping]).await;
    joiner.binary(&[0x18, 1]).await;
    joiner.expect(&[pong]).await;
    joiner.binary(&[0x28, 1]).await;
    joiner.expect(&[is_first]).await;
    joiner.expect_nothing().await;
    gateway.stop().await;
}

/// Keys are answered by `isKeyOk`: pinned by that alone, in `auto` by that among others.
#[test]
fn clients_of_9_0_read_is_key_ok() {
    let rejected = ClientStep::Failed("Rejected(\"isKeyOk: false\")".to_owned());
    for (protocols, exact) in [("sigver-9.0.1", true), ("auto", false)] {
        let mut simulation = Simulation::with_protocols(protocols);
        for (role, key, ok, step) in [
            (Role::Member, "k", true, ClientStep::BecameMember),
            (Role::Joiner, "k", true, ClientStep::LinkedToMember),
            (Role::Joiner, "free", false, rejected.clone()),
        ] {
            let client = Client::of_release(Release::V9_0_1, role, key);
            let page = simulation.open("/", client, Delay::Page(0));
            simulation.until(page, &step).unwrap_or_else(|what| panic!("{protocols}: {what}"));
            let attribute = format!("\"isKeyOk\":{ok}");
            match simulation.received(page) {
                [(_, Message::Text(text)), ..] if exact => assert_eq!(text, &format!("{{{attribute}}}")),
                [(_, Message::Text(text)), ..] => assert!(text.contains(&attribute), "{text}"),
                other => panic!("{protocols}: {other:?}"),
            }
        }
    }
}
