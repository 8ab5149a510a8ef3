//! The program itself: what it prints, how it fails, and how it ends.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use sigver::PemSource;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::common::process::{SERVE, Served, called, run, sigver, with_open_files};
use crate::common::sse::{ask, ask_on};
use crate::common::ws::{Got, Ws, request};
use crate::common::{hex, soon, tls_files};

#[tokio::test]
async fn startup_line_names_the_listening_address() {
    let served = Served::start(&["-h", "127.0.0.1", "-p", "0"]).await;
    let expected = format!("Signaling server is listening on 127.0.0.1:{}", served.port());
    assert_eq!(served.line, expected);
    assert_ne!(served.port(), 0);
    let mut ws = served.ws("/k").await;
    assert!(ws.binary(&hex("1a02080b")).await);
    ws.expect(&[Got::binary("2001")]).await;
    ws.close(1000).await;
    ws.expect(&[Got::Close(Some(1000), String::new()), Got::End]).await;
    served.signal("TERM").await;
    let (status, rest, errors) = served.end().await;
    assert_eq!((status.code(), &rest[..]), (Some(0), ""));
    // The log, without colours as it is no terminal's, has its start and its end, and nothing of its
    // clients.
    let lines: Vec<&str> = errors.lines().collect();
    assert_eq!(lines.len(), 3, "{errors}");
    assert!(lines[0].ends_with(r#" INFO sigver: serving protocols="auto" tls=false"#), "{errors}");
    assert!(lines[1].contains(" INFO sigver: limits in force max_memory="), "{errors}");
    assert!(lines[2].ends_with(" INFO sigver: stopping drain_timeout_s=10"), "{errors}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn limits_of_the_system_are_shown_and_one_that_exceeds_them_is_a_warning() {
    let given = ["--max-memory", "1073741824"];
    let limits =
        "max-memory 1073741824, 536870912 of it for what clients make the server hold; max-connections";
    for (option, connections, is_warned) in [
        (&[][..], 150, false),
        (&["--max-connections", "150"], 150, false),
        (&["--max-connections", "151"], 151, true),
    ] {
        let mut check = with_open_files("-n 200", &[&["check-config"], &given[..], option].concat());
        let output = soon("the end", check.output()).await.unwrap();
        let warning = " --max-connections is more than the limit of open files allows: ";
        assert_eq!(String::from_utf8(output.stderr).unwrap().contains(warning), is_warned);
        let output = String::from_utf8(output.stdout).unwrap();
        let expected = format!("# On this machine: {limits} {connections}, with 200 open files.");
        assert_eq!(output.lines().last(), Some(&*expected));
        let serve = with_open_files("-n 200", &[&SERVE[..], &given, option].concat());
        let served = Served::spawn(serve).await;
        served.signal("TERM").await;
        let log = served.end().await.2;
        let expected = format!(
            "max_memory=1073741824 max_held=536870912 max_connections={connections} open_files=200\n"
        );
        assert!(log.contains(&format!(" INFO sigver: limits in force {expected}")), "{log}");
        assert_eq!(log.contains(warning), is_warned, "{log}");
    }
}

/// The soft limit of open files is raised to the hard one, as Node.js does.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn open_file_limit_is_raised_to_the_hard_limit() {
    let served = Served::spawn(with_open_files("-Sn 100", &SERVE)).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", served.process.id().unwrap())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let [.., soft, hard, _] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
    assert_eq!(soft, hard);
    served.signal("TERM").await;
    let errors = served.end().await.2;
    assert!(!errors.contains("warning"), "{errors}");
}

#[tokio::test]
async fn ipv6_address_is_listened_on() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.is_err() {
        // No IPv6 here.
        return;
    }
    let served = Served::start(&["-h", "::1", "-p", "0"]).await;
    assert_eq!(served.line, format!("Signaling server is listening on ::1:{}", served.port()));
    let stream =
        soon("a connection", TcpStream::connect((Ipv6Addr::LOCALHOST, served.port()))).await.unwrap();
    let mut ws = Ws::open(stream, "/k").await;
    assert!(ws.binary(&hex("1a02080b")).await);
    ws.expect(&[Got::binary("2001")]).await;
    drop(ws);
    served.signal("INT").await;
    assert_eq!(served.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn tls_is_served() {
    let files = tls_files();
    let (key, cert) = (&*files.key.to_string(), &*files.cert.to_string());
    let served = Served::start(&["-h", "127.0.0.1", "-p", "0", "-k", key, "-c", cert]).await;
    // The first byte of an alert: a record of TLS without a handshake in it.
    let mut stream = served.tcp().await;
    stream.write_all(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00").await.unwrap();
    assert_eq!(soon("an alert", stream.read_u8()).await.unwrap(), 0x15);
    drop(stream);
    served.signal("TERM").await;
    assert_eq!(served.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn start_errors_are_one_line_on_stderr() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let files = tls_files();
    let key = &*files.key.to_string();
    for (args, parts) in [
        (
            &["-h", "127.0.0.1", "-p", &port][..],
            &["error: cannot listen on 127.0.0.1:", &port, "the port is in use"][..],
        ),
        (&["-p", "0", "-k", key], &["error: '-k, --key", "without a certificate", "-c, --cert"]),
        (&["-p", "0", "-k", "nowhere.key", "-c", "nowhere.crt"], &["error: cannot read", "nowhere."]),
        (
            &["-p", "0", "--protocol", "sigver-99"],
            &[
                "error: ",
                "unknown protocol 'sigver-99'",
                "auto",
                "protobuf-v2",
                "sigver-5",
                "sigver-18",
                "sigver-20",
            ],
        ),
        (&["-p", "many"], &["error: option '-p, --port <number>' argument 'many' is invalid"]),
        (&["--color"], &["error: unknown option '--color'"]),
        (
            &["-h", "192.0.2.1", "-p", "0"],
            &["error: cannot listen on 192.0.2.1:0", "does not have that address"],
        ),
    ] {
        let (code, out, errors) = run(args).await;
        assert_eq!((code, &out[..]), (Some(1), ""), "{args:?}: {errors}");
        assert_eq!((errors.lines().count(), errors.ends_with('\n')), (1, true), "{args:?}: {errors}");
        for part in parts {
            assert!(errors.contains(part), "{args:?}: {part} is not in {errors}");
        }
    }
}

#[tokio::test]
async fn version_and_help_are_printed() {
    let (code, out, errors) = run(&["-V"]).await;
    assert_eq!((code, &out[..], &errors[..]), (Some(0), concat!(env!("CARGO_PKG_VERSION"), "\n"), ""));
    let (code, out, errors) = run(&["--help"]).await;
    assert_eq!((code, &errors[..]), (Some(0), ""));
    assert!(out.starts_with("Usage: sigver [options]\n"), "{out}");
}

#[tokio::test]
async fn operands_are_ignored_with_a_warning() {
    let served = Served::start(&["start", "-h", "127.0.0.1", "-p", "0", "now"]).await;
    assert!(served.line.starts_with("Signaling server is listening on 127.0.0.1:"));
    served.signal("TERM").await;
    let (status, rest, errors) = served.end().await;
    assert_eq!((status.code(), &rest[..]), (Some(0), ""));
    assert_eq!(errors.lines().next(), Some("warning: extra arguments are ignored: 'start' 'now'"));
    assert_eq!(errors.matches("warning").count(), 1, "{errors}");
}

/// The lines on stderr that are no log, of a process that served and was stopped.
async fn warnings(served: Served) -> Vec<String> {
    served.signal("TERM").await;
    let (status, rest, errors) = served.end().await;
    assert_eq!((status.code(), &rest[..]), (Some(0), ""), "{errors}");
    errors.lines().filter(|line| line.starts_with("warning: ")).map(str::to_owned).collect()
}

#[tokio::test]
async fn command_lines_of_every_era_serve() {
    let files = tls_files();
    let (key, cert) = (&*files.key.to_string(), &*files.cert.to_string());
    for (args, expected) in [
        (&["--port", "0", "--type", "ws"][..], &[][..]),
        (&["-h", "127.0.0.1", "-p", "0", "-w", "uws", "-t", "ws"], &["'-w, --wsLib <value>' is ignored"]),
        (&["-s", "-k", key, "-c", cert, "-a", cert, "-p", "0"], &["'-s, --secure' is not needed any more"]),
    ] {
        let served = Served::start(args).await;
        drop(served.tcp().await);
        let said = warnings(served).await;
        assert_eq!(said.len(), expected.len(), "{args:?}: {said:?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.contains(expected), "{args:?}: {said}");
        }
    }
    let (code, out, errors) = run(&["-v"]).await;
    assert_eq!((code, &out[..], &errors[..]), (Some(0), concat!(env!("CARGO_PKG_VERSION"), "\n"), ""));
}

#[tokio::test]
async fn environment_variables_of_earlier_versions_are_read() {
    let mut command = sigver(&[]);
    command.env("NODE_IP", "127.0.0.1").env("NODE_PORT", "0");
    let served = Served::spawn(command).await;
    assert_eq!(served.line, format!("Signaling server is listening on 127.0.0.1:{}", served.port()));
    let said = warnings(served).await;
    assert!(said.len() == 2 && said[0].contains("NODE_IP") && said[1].contains("NODE_PORT"), "{said:?}");
    let mut command = sigver(&["-h", "127.0.0.1", "-p", "0"]);
    command.env("NODE_IP", "192.0.2.1").env("NODE_PORT", "1");
    assert_eq!(warnings(Served::spawn(command).await).await, [""; 0]);
}

#[tokio::test]
async fn program_named_signallerd_behaves_as_signallerd() {
    let folder = std::env::temp_dir().join(format!("sigver-called-signallerd-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let name = folder.join("signallerd");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sigver"), &name).unwrap();
    let served = Served::spawn(called(&name, &["-addr", "127.0.0.1:0", "-maxMsg=2"])).await;
    let mut listener = served.ws("/listen/abc").await;
    let mut connector = served.ws("/connect/abc").await;
    for text in ["one", "two"] {
        assert!(connector.text(text).await);
        listener.expect(&[Got::Text(text.to_owned())]).await;
    }
    let too_many = [Got::Close(Some(4002), "Too Many Messages".to_owned())];
    connector.expect(&too_many).await;
    listener.expect(&too_many).await;
    // Nothing else is served.
    let mut stream = served.tcp().await;
    stream.write_all(b"GET /k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("\r\n\r\n404 page not found\n"),
        "{answer}"
    );
    drop((listener, connector));
    assert_eq!(warnings(served).await, [""; 0]);
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn invalid_signallerd_usage_fails_as_go_programs_do() {
    let (code, out, errors) = run(&["--compat-cli", "signallerd", "-p", "80"]).await;
    assert_eq!((code, &out[..]), (Some(2), ""));
    assert!(
        errors.starts_with("flag provided but not defined: -p\nUsage of signallerd:\n  -addr string\n"),
        "{errors}"
    );
    let (code, out, errors) = run(&["--compat-cli", "signallerd", "-help"]).await;
    assert_eq!((code, &errors[..]), (Some(0), ""));
    assert!(out.starts_with("Usage of signallerd:\n"), "{out}");
}

/// Stops it while all kinds of clients are connected.
async fn stops(signal: &str) {
    let served = Served::start(&["-h", "127.0.0.1", "-p", "0", "--drain-timeout", "0"]).await;
    let why = Got::Close(Some(1001), "the server is shutting down".to_owned());
    // Of each generation one that is a member, and one that has not shown what it is.
    let mut current = served.ws("/k").await;
    assert!(current.binary(&hex("1a02080b")).await);
    current.expect(&[Got::binary("2001")]).await;
    let mut joiner = served.ws("/k").await;
    assert!(joiner.binary(&hex("1a02080c")).await);
    joiner.expect(&[Got::binary("2000")]).await;
    let mut old = served.ws("/old").await;
    old.expect(&[Got::binary("10012001"), Got::binary("1001")]).await;
    let mut json = served.ws("/").await;
    assert!(json.text("{\"type\":\"open\",\"key\":\"json\"}").await);
    json.expect_nothing().await;
    let mut unknown = served.ws("/").await;
    unknown.expect_nothing().await;
    // One that takes no notice, and some that are not there yet.
    let deaf = served.ws("/deaf").await;
    let mut asking = served.tcp().await;
    asking.write_all(b"GET /k HTTP/1.1\r\nHost: x\r\nUpgr").await.unwrap();
    let mut idle = served.tcp().await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answered = [0; 15];
    soon("an answer", idle.read_exact(&mut answered)).await.unwrap();
    assert_eq!(&answered, b"HTTP/1.1 200 OK");

    let address = SocketAddr::from(([127, 0, 0, 1], served.port()));
    let start = Instant::now();
    served.signal(signal).await;
    for ws in [&mut old, &mut json, &mut unknown] {
        ws.expect(std::slice::from_ref(&why)).await;
        ws.close(1001).await;
        ws.expect(&[Got::End]).await;
    }
    // A member and its joiner may receive one another's end first.
    for ws in [&mut current, &mut joiner] {
        let last = loop {
            match ws.message().await {
                Got::Binary(bytes) if bytes[0] == 0x12 => {}
                last => break last,
            }
        };
        assert_eq!(last, why);
        ws.close(1001).await;
        ws.expect(&[Got::End]).await;
    }
    for mut stream in [asking, idle] {
        let mut rest = Vec::new();
        let _ = soon("the end of a request", stream.read_to_end(&mut rest)).await;
        assert!(!rest.starts_with(b"HTTP/1.1 101"));
    }
    let refused = soon("a refusal", TcpStream::connect(address)).await;
    assert!(refused.is_err(), "it takes new connections");
    let (status, rest, errors) = served.end().await;
    assert_eq!((status.code(), &rest[..]), (Some(0), ""), "{errors}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    drop(deaf);
}

#[tokio::test]
async fn sigterm_closes_every_connection() {
    stops("TERM").await;
}

#[tokio::test]
async fn sigint_closes_every_connection() {
    stops("INT").await;
}

#[tokio::test]
async fn hanging_tls_handshake_does_not_delay_shutdown() {
    let files = tls_files();
    let (key, cert) = (&*files.key.to_string(), &*files.cert.to_string());
    let served = Served::start(&["-h", "127.0.0.1", "-p", "0", "-k", key, "-c", cert]).await;
    let mut hanging = served.tcp().await;
    // The beginning of a hello.
    hanging.write_all(&hex("1603010200010001fc0303")).await.unwrap();
    // Once a later connection is answered, this one is taken.
    let mut later = served.tcp().await;
    later.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(soon("a response of status 400", later.read_u8()).await.unwrap(), b'H');
    let start = Instant::now();
    served.signal("TERM").await;
    assert_eq!(served.end().await.0.code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    drop(hanging);
}

#[tokio::test]
async fn transport_option_selects_the_transports() {
    for (transport, events, websocket) in [("all", 200, 101), ("sse", 200, 404), ("ws", 404, 101)] {
        let served = Served::start(&["-h", "127.0.0.1", "-p", "0", "-t", transport]).await;
        let address = SocketAddr::from(([127, 0, 0, 1], served.port()));
        assert_eq!(ask(address, "POST", "/", &[], "1@{}").await.status, events, "{transport}");
        assert_eq!(ask_on(served.tcp().await, &request("/k")).await.status, websocket, "{transport}");
        served.signal("TERM").await;
        assert!(served.end().await.0.success(), "{transport}");
    }
}

/// The key and the certificate are in the environment, where their line breaks are lost.
#[tokio::test]
async fn keys_in_the_environment_are_understood_and_never_quoted() {
    let files = tls_files();
    let read = |source: &PemSource| std::fs::read_to_string(source.to_string()).unwrap();
    let (key, cert) = (read(&files.key), read(&files.cert));
    let secret: Vec<&str> = key.lines().filter(|line| !line.contains("---")).collect();
    let secret = &secret[0][..16];
    for line_break in ["\n", "\\n", " "] {
        let mut command = sigver(&["-h", "127.0.0.1", "-p", "0", "--log", "trace"]);
        command.env("SIGVER_KEY", key.replace('\n', line_break));
        command.env("SIGVER_CERT", cert.replace('\n', line_break));
        let served = Served::spawn(command).await;
        served.signal("TERM").await;
        let (status, _, errors) = served.end().await;
        assert_eq!(status.code(), Some(0), "{errors}");
        assert!(!errors.contains(secret), "{errors}");
    }
    let spoilt = key.replace("-----END", "---END").replace('\n', "\\n");
    let unquoted: Vec<&str> = key.split_whitespace().collect();
    for args in [
        &["-k", &spoilt, "-c", &files.cert.to_string()][..],
        &["-k", &files.cert.to_string(), "-c", &spoilt],
        &["check-config", "-k", &key, "-c", &cert],
        &["-p", &spoilt],
        &["--log", &key],
        &["--protocol", &key],
        &["--rooms", &key],
        &["--signaller-origin", &format!("({key}")],
        &["--config", &key],
        &["--control", &key, "-p", "x"],
        &[&format!("--kex={spoilt}")],
        &[&format!("-kk{spoilt}")],
        &["--compat-cli", &spoilt],
        &["--compat-cli", "signallerd", &format!("-{spoilt}")],
        &["--compat-cli", "signallerd", "-addr", &spoilt],
        &["status", "--control", &spoilt],
        &["probe", &spoilt],
        &["matrix", &key],
        &["bench", &key],
        &["status", "--port", &key],
        &["-h", &key],
        &[&["-p", "x", "-k"], &unquoted[..]].concat(),
        &[&["-p", "x", "--"], &unquoted[..]].concat(),
    ] {
        let (code, out, errors) = run(args).await;
        let is_check = args[0] == "check-config";
        assert_eq!(code == Some(0), is_check, "{args:?}: {out}{errors}");
        assert!(!out.contains(secret) && !errors.contains(secret), "{args:?}: {out}{errors}");
    }
}
