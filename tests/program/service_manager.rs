//! The notifications to the service manager, and the test of health that service managers run.

use std::path::PathBuf;

use sigver::PemSource;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixDatagram};

use crate::common::process::{Served, log_line, run, sigver};
use crate::common::ws::Ws;
use crate::common::{soon, tls_files};

/// A socket like that of systemd, at a path that no other test uses.
fn notify_socket(name: &str) -> (UnixDatagram, PathBuf) {
    let path = std::env::temp_dir().join(format!("sigver-notify-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    (UnixDatagram::bind(&path).unwrap(), path)
}

/// The next notification that is not the watchdog's.
async fn notification(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    loop {
        let length = soon("a notification", socket.recv(&mut buffer)).await.unwrap();
        let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
        if text != "WATCHDOG=1\n" {
            return text;
        }
    }
}

#[tokio::test]
async fn service_manager_is_notified_of_start_reload_and_stop() {
    let (socket, path) = notify_socket("states");
    let mut command = sigver(&["-h", "127.0.0.1", "-p", "0"]);
    command.env("NOTIFY_SOCKET", &path);
    let served = Served::spawn(command).await;
    assert_eq!(notification(&socket).await, "READY=1\n");
    served.signal("HUP").await;
    let reloading = notification(&socket).await;
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(time.trim_end().parse::<u64>().is_ok(), "{reloading}");
    assert_eq!(notification(&socket).await, "READY=1\n");
    served.signal("TERM").await;
    assert_eq!(notification(&socket).await, "STOPPING=1\n");
    assert!(served.end().await.0.success());
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn watchdog_is_notified_again_and_again() {
    let (socket, path) = notify_socket("watchdog");
    let mut command = sigver(&["-h", "127.0.0.1", "-p", "0"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000");
    let served = Served::spawn(command).await;
    let mut buffer = [0; 1024];
    let mut pings = 0;
    while pings < 3 {
        let length = soon("a notification", socket.recv(&mut buffer)).await.unwrap();
        pings += usize::from(&buffer[..length] == b"WATCHDOG=1\n");
    }
    served.signal("TERM").await;
    assert!(served.end().await.0.success());
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn manager_that_does_not_listen_changes_nothing() {
    let mut command = sigver(&["-h", "127.0.0.1", "-p", "0"]);
    command.env("NOTIFY_SOCKET", "/nonexistent/notify").env("WATCHDOG_USEC", "0");
    let served = Served::spawn(command).await;
    drop(served.ws("/k").await);
    served.signal("TERM").await;
    let (status, _, errors) = served.end().await;
    assert!(status.success() && errors.contains("the service manager was not notified"), "{errors}");
}

#[tokio::test]
async fn healthcheck_answers_by_its_exit_code() {
    let served = Served::start(&["-h", "127.0.0.1", "-p", "0"]).await;
    let port = served.port().to_string();
    let healthy = (Some(0), String::new(), String::new());
    assert_eq!(run(&["healthcheck", "--port", &port]).await, healthy);
    let url = format!("http://localhost:{port}");
    assert_eq!(run(&["healthcheck", "--url", &url]).await, healthy);
    let mut by_environment = sigver(&["healthcheck"]);
    by_environment.env("SIGVER_PORT", &port).env("SIGVER_HOST", "0.0.0.0");
    assert!(soon("the end", by_environment.status()).await.unwrap().success());
    let config = std::env::temp_dir().join(format!("sigver-healthcheck-{port}.toml"));
    std::fs::write(&config, format!("host = \"127.0.0.1\"\nport = {port}\n")).unwrap();
    let listen = format!("unix:/nonexistent,127.0.0.1:{port}");
    for (name, value) in [("SIGVER_LISTEN", &*listen), ("SIGVER_CONFIG", config.to_str().unwrap())] {
        let mut by_environment = sigver(&["healthcheck"]);
        by_environment.env(name, value);
        assert!(soon("the end", by_environment.status()).await.unwrap().success(), "{name}");
    }
    std::fs::remove_file(&config).unwrap();
    let without_port =
        sigver(&["healthcheck"]).env("SIGVER_LISTEN", "unix:/nonexistent").output().await.unwrap();
    let error = String::from_utf8(without_port.stderr).unwrap();
    assert_eq!(without_port.status.code(), Some(2), "{error}");
    assert!(error.contains("on no TCP port that is known: give it with --port"), "{error}");

    let (code, output, error) = run(&["healthcheck", "--url", &format!("{url}/no/such/page")]).await;
    assert_eq!((code, &output[..]), (Some(1), ""));
    assert_eq!(
        error,
        format!("unhealthy: http://localhost:{port}/no/such/page answers with HTTP status 426\n")
    );

    served.signal("TERM").await;
    assert!(served.end().await.0.success());
    let (code, _, error) = run(&["healthcheck", "-p", &port]).await;
    assert_eq!(code, Some(1));
    assert!(error.starts_with(&format!("unhealthy: cannot connect to ws://127.0.0.1:{port}: ")), "{error}");
    assert_eq!(run(&["healthcheck", "--port", "x"]).await.0, Some(2));
}

#[tokio::test]
async fn server_that_is_full_is_alive() {
    let mut served =
        Served::start(&["-h", "127.0.0.1", "-p", "0", "--max-connections", "1", "--admin", "127.0.0.1:0"])
            .await;
    let admin = log_line(&mut served.stderr, "admin listener address=").await;
    let admin = admin.trim_end().rsplit('=').next().unwrap();
    let port = served.port().to_string();
    let admitted = served.tcp().await;
    // An answer shows that it is admitted; it stays open.
    let mut ws = Ws::open(admitted, "/k").await;
    let full = "alive, but refuses clients: this server has too many connections\n".to_owned();
    assert_eq!(run(&["healthcheck", "--port", &port]).await, (Some(0), full, String::new()));
    // The admin listener of the environment answers in any case.
    let mut by_environment = sigver(&["healthcheck"]);
    let output = by_environment.env("SIGVER_PORT", &port).env("SIGVER_ADMIN", admin).output();
    let output = soon("the end", output).await.unwrap();
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    ws.close(1000).await;
    served.signal("TERM").await;
    assert!(served.end().await.0.success());
    let mut by_environment = sigver(&["healthcheck"]);
    let output = by_environment.env("SIGVER_PORT", &port).env("SIGVER_ADMIN", admin).output();
    assert_eq!(soon("the end", output).await.unwrap().status.code(), Some(1));
}

#[tokio::test]
async fn admin_listener_on_a_unix_socket_is_asked_for_the_health() {
    let path = std::env::temp_dir().join(format!("sigver-healthcheck-{}.sock", std::process::id()));
    let admin = format!("unix:{}", path.display());
    let served = Served::start(&["-h", "127.0.0.1", "-p", "0", "--admin", &admin]).await;
    // A server of other software on the port for clients.
    let check = async || {
        let mut command = sigver(&["healthcheck"]);
        soon("the end", command.env("SIGVER_PORT", "1").env("SIGVER_ADMIN", &admin).output()).await.unwrap()
    };
    let output = check().await;
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    served.signal("TERM").await;
    assert!(served.end().await.0.success());
    let output = check().await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with(&format!("unhealthy: cannot read the answer of {admin}: ")), "{error}");
}

#[tokio::test]
async fn healthcheck_of_a_server_that_hangs_times_out() {
    // Connections are taken by the system, and never answered.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let (code, _, error) = run(&["healthcheck", "-p", &port, "--timeout", "1"]).await;
    assert_eq!(code, Some(1));
    assert_eq!(error, format!("unhealthy: http://127.0.0.1:{port} does not answer within 1 seconds\n"));
}

#[tokio::test]
async fn healthcheck_of_a_server_that_answers_proxies_only_names_the_admin_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    let (code, _, error) = run(&["healthcheck", "-p", &port]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("'--proxy-protocol required'") && error.contains("--url"), "{error}");
    server.abort();
}

#[tokio::test]
async fn healthcheck_needs_no_certificate_of_a_server_with_tls() {
    let files = tls_files();
    let [PemSource::File(cert), PemSource::File(key)] = [files.cert, files.key] else { panic!("no files") };
    let [cert, key] = [cert.to_str().unwrap(), key.to_str().unwrap()];
    let served = Served::start(&["-h", "127.0.0.1", "-p", "0", "--cert", cert, "--key", key]).await;
    let port = served.port().to_string();
    assert_eq!(run(&["healthcheck", "-p", &port]).await, (Some(0), String::new(), String::new()));
    // A given URL is asked as it is: plain text is refused, and the certificate has to be valid.
    let plain = format!("http://127.0.0.1:{port}");
    let (code, _, error) = run(&["healthcheck", "--url", &plain]).await;
    assert_eq!((code, error), (Some(1), format!("unhealthy: {plain} answers with HTTP status 400\n")));
    assert_eq!(run(&["healthcheck", "--url", &format!("https://127.0.0.1:{port}")]).await.0, Some(1));
}

#[tokio::test]
async fn server_that_refuses_plain_text_and_does_no_tls_is_unhealthy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n400 Bad Request: plain text to a port of TLS\n";
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let (code, _, error) = run(&["healthcheck", "-p", &port]).await;
    assert_eq!(code, Some(1));
    assert!(error.starts_with("unhealthy: "), "{error}");
}
