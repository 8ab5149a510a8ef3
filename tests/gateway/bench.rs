//! `sigver bench` against a gateway of ours: every mode, many dialects, and the errors of those that cannot
//! be measured. Speed is not looked at: other things run on the machine.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use sigver::tools::bench::{
    Error, IdlePlan, Phase, Processes, Progress, Protocol, RetainedMemoryPlan, SessionsPlan, StormPlan,
    Target, ThroughputPlan, idle, retained_memory, sessions, storm, throughput,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::common::{TestGateway, soon};

const SHORT: Duration = Duration::from_millis(300);

fn protocol(name: &str) -> Protocol {
    Protocol::from_name(name).unwrap()
}

fn target(address: SocketAddr) -> Target {
    Target::parse(&format!("ws://{address}")).unwrap()
}

fn plan(member: &str, joiner: &str) -> ThroughputPlan {
    ThroughputPlan {
        member: protocol(member),
        joiner: protocol(joiner),
        rooms: 4,
        in_flight: 3,
        bytes: 64,
        duration: SHORT,
        rate: None,
        joiners_at: None,
        rooms_at: None,
    }
}

async fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sigver"));
    command.arg("bench").args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn throughput_works_in_every_dialect_and_across() {
    let gateway = TestGateway::start("auto").await;
    let pairs = Protocol::all().map(|protocol| (protocol.name(), protocol.name()));
    let pairs = pairs.filter(|(name, _)| !matches!(*name, "sigver-6" | "sigver-15.1" | "signaller"));
    let crosses = [("sigver-5", "sigver-20"), ("sigver-20", "sigver-5"), ("sigver-1", "sigver-13")];
    for (member, joiner) in pairs.chain(crosses) {
        let result =
            throughput(&target(gateway.address), &plan(member, joiner), None, &Progress::none()).await;
        let result = result.unwrap_or_else(|error| panic!("{member} and {joiner}: {error}"));
        assert!(result.messages > 20, "{member} and {joiner}: {result:?}");
        assert!(result.round_trip.count > 10, "{member} and {joiner}: {result:?}");
        assert!(result.round_trip.p50_us <= result.round_trip.max_us, "{result:?}");
        assert_eq!(result.lost.count, 0, "{member} and {joiner}: {result:?}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joiners_and_rooms_can_be_at_other_servers_than_members() {
    let (gateway, other) = (TestGateway::start("auto").await, TestGateway::start("auto").await);
    let elsewhere = Some(target(other.address));
    let opened = ThroughputPlan { rooms_at: elsewhere.clone(), ..plan("sigver-9", "sigver-9") };
    let result = throughput(&target(gateway.address), &opened, None, &Progress::none()).await.unwrap();
    assert!(result.messages > 20, "{result:?}");
    assert_eq!(other.rooms(), 0, "the clients that opened rooms have left");
    let json = serde_json::to_value(&result).unwrap();
    let there = format!("ws://{}", other.address);
    assert_eq!((&json["rooms_at"], &json["joiners_at"]), (&there.as_str().into(), &Value::Null));
    // The two are no cluster: there, a joiner finds no member.
    let apart = ThroughputPlan { joiners_at: elsewhere, ..plan("sigver-9", "sigver-9") };
    assert_eq!(serde_json::to_value(&apart).unwrap()["joiners_at"], there);
    let error = throughput(&target(gateway.address), &apart, None, &Progress::none()).await.unwrap_err();
    assert!(error.to_string().starts_with("a joiner: "), "{error}");
    gateway.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_loop_keeps_the_rate() {
    let gateway = TestGateway::start("auto").await;
    let plan = ThroughputPlan {
        rate: Some(400.0),
        duration: Duration::from_secs(1),
        ..plan("sigver-20", "sigver-20")
    };
    let result = throughput(&target(gateway.address), &plan, None, &Progress::none()).await.unwrap();
    // A round trip is two messages.
    let expected = result.seconds * 400.0 / 2.0;
    assert!((result.round_trip.count as f64 - expected).abs() < 3.0, "{result:?}");
    assert_eq!((result.unanswered, result.in_flight), (0, None), "{result:?}");
    assert!(result.load.sent_late.unwrap().count.abs_diff(result.round_trip.count) < 3, "{result:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_complete() {
    let gateway = TestGateway::start("auto").await;
    for name in ["sigver-20", "sigver-18", "sigver-13", "sigver-7", "sigver-6", "sigver-1", "signaller"] {
        let plan = SessionsPlan {
            member: protocol(name),
            joiner: protocol(name),
            concurrency: 4,
            duration: Duration::from_millis(800),
        };
        let done = sessions(&target(gateway.address), &plan, None, &Progress::none()).await;
        let done = done.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(done.sessions > 0 && done.session.count >= done.sessions, "{name}: {done:?}");
        assert_eq!(done.lost.count, 0, "{name}: {done:?}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_members_stay_connected() {
    let gateway = TestGateway::start("auto").await;
    for name in ["sigver-20", "sigver-18", "sigver-8", "sigver-5"] {
        let plan = IdlePlan { dialect: protocol(name), members: 20, duration: SHORT, settle: SHORT };
        let done = idle(&target(gateway.address), &plan, None, &Progress::none()).await.unwrap();
        assert_eq!((done.plan.members, done.lost.count, done.interrupted), (20, 0, false), "{done:?}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storm_joiners_are_answered() {
    let gateway = TestGateway::start("auto").await;
    for (name, connected) in [
        ("sigver-20", false),
        ("sigver-20", true),
        ("sigver-18", false),
        ("sigver-8", true),
        ("sigver-5", true),
    ] {
        let plan = StormPlan { member: protocol(name), joiner: protocol(name), joiners: 50, connected };
        let done = storm(&target(gateway.address), &plan, None, &Progress::none()).await;
        let done = done.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((done.answered, done.answer.count, done.lost.count), (50, 50, 0), "{name}: {done:?}");
    }
    gateway.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn process_cost_is_reported() {
    let gateway = TestGateway::start("auto").await;
    let (target, process) = (target(gateway.address), Processes::new(&[std::process::id()]).unwrap());
    let plan = plan("sigver-20", "sigver-20");
    let result = throughput(&target, &plan, Some(&process), &Progress::none()).await.unwrap();
    let cost = result.server.unwrap();
    assert!(cost.cpu_us_each > 0.0 && cost.memory_after > 0, "{cost:?}");
    let memory = RetainedMemoryPlan { dialect: protocol("sigver-7"), rooms: 3, bytes: 4096 };
    assert!(retained_memory(&target, &memory, &process, &Progress::none()).await.unwrap().memory_after > 0);
    gateway.stop().await;
}

#[tokio::test]
async fn invalid_plans_are_rejected() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nobody = target(nobody);
    let refusal = |plan: ThroughputPlan| {
        let nobody = nobody.clone();
        async move { throughput(&nobody, &plan, None, &Progress::none()).await.unwrap_err().to_string() }
    };
    assert!(refusal(plan("sigver-6", "sigver-6")).await.contains("one offer and one answer"));
    assert!(refusal(plan("signaller", "signaller")).await.contains("ends after a few messages"));
    assert!(refusal(plan("sigver-20", "signaller")).await.contains("signaller cannot do this"));
    assert!(
        refusal(ThroughputPlan { rooms: 0, ..plan("sigver-20", "sigver-20") })
            .await
            .contains("at least one room")
    );
    for rate in [0.0, -1.0, f64::NAN, 1e15, 1e300] {
        assert!(
            refusal(ThroughputPlan { rate: Some(rate), ..plan("sigver-20", "sigver-20") })
                .await
                .contains("at most 10000000")
        );
    }
    let much = ThroughputPlan { in_flight: 80, bytes: 60_000, ..plan("sigver-20", "sigver-20") };
    assert!(refusal(much).await.contains("exceed 512 KiB"));
    assert!(refusal(plan("sigver-20", "sigver-20")).await.starts_with("a member: cannot connect"));
    let plan = StormPlan {
        member: protocol("sigver-18"),
        joiner: protocol("sigver-18"),
        joiners: 5,
        connected: true,
    };
    let error = storm(&nobody, &plan, None, &Progress::none()).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejecting_or_dying_server_is_an_error() {
    let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = refusing.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = refusing.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 503 Busy\r\n\r\n").await;
        }
    });
    let plan = ThroughputPlan { duration: Duration::from_secs(20), ..plan("sigver-20", "sigver-20") };
    let error = throughput(&target(address), &plan, None, &Progress::none()).await.unwrap_err();
    assert_eq!(error.to_string(), "a member: upgrade refused with HTTP 503");

    let gateway = TestGateway::start("auto").await;
    let (target, (tell, mut told)) = (target(gateway.address), tokio::sync::mpsc::unbounded_channel());
    let progress = Progress::new(move |phase| {
        if matches!(phase, Phase::Measuring { .. }) {
            let _ = tell.send(());
        }
    });
    let measured = tokio::spawn(async move { throughput(&target, &plan, None, &progress).await });
    soon("the window", told.recv()).await.unwrap();
    gateway.stop().await;
    let error = soon("the end", measured).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_measurement_returns_its_result() {
    let gateway = TestGateway::start("auto").await;
    let progress = Progress::none();
    let plan = ThroughputPlan { duration: Duration::from_secs(60), ..plan("sigver-20", "sigver-20") };
    let stopper = progress.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        stopper.stop();
    });
    let result = soon("the result", throughput(&target(gateway.address), &plan, None, &progress)).await;
    let result = result.unwrap();
    assert!(result.interrupted && result.seconds < 10.0 && result.messages > 0, "{result:?}");
    let error = throughput(&target(gateway.address), &plan, None, &progress).await.unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn command_prints_text_and_json() {
    let gateway = TestGateway::start("auto").await;
    let url = format!("ws://{}", gateway.address);
    let output = bench(&["throughput", &url, "--rooms", "2", "--duration", "0.3", "--json"]).await;
    assert!(output.status.success(), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&json["member"], &json["rooms"], &json["bytes"]),
        (&"sigver-20".into(), &2.into(), &64.into())
    );
    assert!(json["messages"].as_u64().unwrap() > 0 && json["messages_per_second"].as_f64().unwrap() > 0.0);
    assert!(json["round_trip"]["p99_us"].as_f64().unwrap() > 0.0 && json["server"].is_null());

    let arguments = ["cross", &url, "--member", "sigver-5", "--joiner", "sigver-20", "--duration", "0.3"];
    let output = bench(&arguments).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("throughput, member sigver-5, joiner sigver-20: 50 rooms, 64 bytes"), "{text}");
    assert!(text.contains("messages/s") && text.contains("p99"), "{text}");
    gateway.stop().await;
}

#[tokio::test]
async fn command_rejects_unknown_arguments() {
    for (arguments, words) in [
        (&["relay", "ws://h", "--dialect", "sigver-99"][..], "there is no dialect 'sigver-99'"),
        (&["relay", "ws://h", "--duration", "0"], "greater than 0"),
        (&["relay", "h:80"], "is not the URL of a server"),
        (&["kept", "ws://h"], "add --pid PID"),
    ] {
        let output = bench(arguments).await;
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(words), "{arguments:?}: {text}");
    }
}
