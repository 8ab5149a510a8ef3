//! Contents between clients of sigver 19 and newer, whose layout is unknown until they have sent a content.

use std::time::Duration;

use sigver::protocol::dialect::{Dialect, Family};
use sigver::tools::client::dialects::{ClientEvent, JoinerId, Role};
use sigver::tools::client::message::{Delivery, TestMessage};
use sigver::tools::client::peer::SyntheticPeer;
use sigver::tools::client::protocol::Protocol;
use sigver::tools::dial::Target;
use sigver::tools::protobuf::{delimited, number};

use crate::common::TestGateway;

const LIMIT: Duration = Duration::from_secs(20);

/// Returns a message of netflux 4.
fn netflux(text: &str) -> TestMessage {
    let fields = [number(1, 12), number(2, 1), number(3, 7431), delimited(4, text.as_bytes())];
    TestMessage::from_bytes(fields.concat())
}

/// Waits for the message, unchanged; returns its sender. The error is the log of the client.
async fn receive(peer: &mut SyntheticPeer, message: &TestMessage) -> Result<Option<JoinerId>, String> {
    let found = |event: &ClientEvent| match event {
        ClientEvent::Message { from, message: received } => {
            (message.compare(received) == Some(Delivery::Intact)).then(|| from.clone())
        }
        _ => None,
    };
    peer.wait_for(LIMIT, found).await.ok_or_else(|| format!("{:?}", peer.log))
}

/// Lets a joiner send the first content, and the member answer it.
async fn converse(target: &Target, member: Dialect, joiner: Dialect) -> Result<(), String> {
    let key = format!("{member}-{joiner}");
    let connect = |dialect, role| SyntheticPeer::connect(target, Protocol::Sigver(dialect), role, &key, None);
    let mut first = connect(member, Role::Member).await.map_err(|error| error.to_string())?;
    let entered = |event: &ClientEvent| (*event == ClientEvent::BecameMember).then_some(());
    first.wait_for(LIMIT, entered).await.ok_or("is no member")?;
    let mut second = connect(joiner, Role::Joiner).await.map_err(|error| error.to_string())?;
    let linked = |event: &ClientEvent| (*event == ClientEvent::LinkedToMember).then_some(());
    second.wait_for(LIMIT, linked).await.ok_or("is not linked")?;
    let (offer, answer) = (netflux("offer"), netflux("answer"));
    second.send(None, &offer);
    let from = receive(&mut first, &offer).await.map_err(|log| format!("the member: {log}"))?;
    first.send(from.as_ref(), &answer);
    receive(&mut second, &answer).await.map_err(|log| format!("the joiner: {log}"))?;
    Ok(())
}

#[tokio::test]
async fn messages_of_netflux_4_pass_between_all_layouts() {
    let gateway = TestGateway::start("auto").await;
    let target = Target::parse(&format!("ws://{}", gateway.address)).unwrap();
    let dialects = || Dialect::ALL.into_iter().filter(|dialect| dialect.family() == Family::ProtobufV2);
    let mut failed = Vec::new();
    for (member, joiner) in dialects().flat_map(|member| dialects().map(move |joiner| (member, joiner))) {
        if let Err(what) = converse(&target, member, joiner).await {
            failed.push(format!("member {member}, joiner {joiner}: {what}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    gateway.stop().await;
}
