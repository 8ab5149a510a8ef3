//! New certificates and settings for a running program.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::common::process::{Served, log_line, run, sigver};
use crate::common::sse::ask_on;
use crate::common::ws::{Got, request_with};
use crate::common::{hex, soon};

/// A folder with a configuration file, a certificate and its key. Removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("sigver-reload-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }

    /// Writes a new key and certificate. Returns the certificate.
    fn renew(&self) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        self.write("key.pem", &made.signing_key.serialize_pem());
        self.write("cert.pem", &made.cert.pem());
        made.cert.der().to_vec()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Returns the certificate that the server presents, as `openssl` sees it.
async fn presented_certificate(port: u16) -> Vec<u8> {
    let command =
        format!("openssl s_client -connect 127.0.0.1:{port} </dev/null | openssl x509 -outform DER");
    let output = soon("the certificate", Command::new("sh").args(["-c", &command]).output()).await.unwrap();
    output.stdout
}

#[tokio::test]
async fn hangup_reloads_certificates_and_settings_and_a_bad_file_changes_nothing() {
    let folder = Folder::new("hangup");
    let first = folder.renew();
    let settings = |more: &str| {
        let files = format!("key = {:?}\ncert = {:?}\n", folder.path("key.pem"), folder.path("cert.pem"));
        folder.write("sigver.toml", &format!("{files}{more}\n"));
    };
    settings("");
    let config = folder.path("sigver.toml");
    let mut served =
        Served::start(&["-h", "127.0.0.1", "-p", "0", "--config", &config, "--control", "off"]).await;
    let port = served.port();
    assert_eq!(presented_certificate(port).await, first);

    let second = folder.renew();
    served.signal("HUP").await;
    assert!(
        log_line(&mut served.stderr, "reloaded").await.contains("changed=\"none\" needs_restart=\"none\"")
    );
    assert_eq!(presented_certificate(port).await, second);

    // Settings of which two take a restart.
    settings("max-message = 1000\nmax-rooms = 1\ntranscode = false");
    served.signal("HUP").await;
    let line = log_line(&mut served.stderr, "reloaded").await;
    assert!(line.contains("changed=\"max-rooms\" needs_restart=\"transcode, max-message\""), "{line}");

    // A mistake, and a certificate that does not fit its key.
    settings("max-mesage = 1000");
    served.signal("HUP").await;
    assert!(log_line(&mut served.stderr, "not reloaded").await.contains("is 'max-message' meant?"));
    settings("");
    folder.write("cert.pem", "");
    served.signal("HUP").await;
    assert!(log_line(&mut served.stderr, "not reloaded").await.contains("there is no PEM certificate in it"));
    assert_eq!(presented_certificate(port).await, second);

    // The log filter.
    let third = folder.renew();
    settings("log = \"off\"");
    served.signal("HUP").await;
    soon("the third certificate", async { while presented_certificate(port).await != third {} }).await;
    served.signal("TERM").await;
    let rest = served.end().await.2;
    assert!(!rest.contains("stopping"), "{rest}");
}

#[tokio::test]
async fn reload_changes_allowed_origins_and_the_part_of_addresses_that_is_logged() {
    let folder = Folder::new("origins");
    let config = folder.path("sigver.toml");
    let settings = |origins: &str, log_ip: &str| {
        let text = format!("log = \"debug\"\nlog-ip = \"{log_ip}\"\nallowed-origins = \"{origins}\"\n");
        folder.write("sigver.toml", &text);
    };
    settings("https://a.example", "off");
    let mut served =
        Served::start(&["-h", "127.0.0.1", "-p", "0", "--config", &config, "--control", "off"]).await;
    let status = async |served: &Served, origin: &str| {
        let request = request_with("/k", &format!("Origin: https://{origin}\r\n"));
        ask_on(served.tcp().await, &request).await.status
    };
    assert_eq!([status(&served, "a.example").await, status(&served, "b.example").await], [101, 403]);
    assert!(!log_line(&mut served.stderr, "origin of the page").await.contains("remote="));
    settings("https://b.example", "full");
    served.signal("HUP").await;
    let line = log_line(&mut served.stderr, "reloaded").await;
    assert!(line.contains("changed=\"log-ip, allowed-origins\" needs_restart=\"none\""), "{line}");
    assert_eq!([status(&served, "b.example").await, status(&served, "a.example").await], [101, 403]);
    assert!(log_line(&mut served.stderr, "origin of the page").await.contains("remote=\"127.0.0.1\""));
    settings("*", "full");
    served.signal("HUP").await;
    let line = log_line(&mut served.stderr, "reloaded").await;
    assert!(line.contains("changed=\"none\" needs_restart=\"allowed-origins\""), "{line}");
    assert_eq!(status(&served, "a.example").await, 403);
}

#[tokio::test]
async fn reload_of_a_fifo_fails_and_does_not_keep_the_program_from_ending() {
    let folder = Folder::new("fifo");
    folder.write("tokens", "token *\n");
    let (tokens, config) = (folder.path("tokens"), folder.path("sigver.toml"));
    folder.write("sigver.toml", "");
    let auth = format!("token-file:{tokens}");
    let args = ["-h", "127.0.0.1", "-p", "0", "--control", "off", "--config", &config, "--auth", &auth];
    let mut served = Served::start(&args).await;
    for path in [&tokens, &config] {
        std::fs::remove_file(path).unwrap();
        assert!(Command::new("mkfifo").arg(path).status().await.unwrap().success());
        served.signal("HUP").await;
        let line = log_line(&mut served.stderr, "not reloaded").await;
        assert!(line.contains("it is no regular file"), "{line}");
    }
    served.signal("TERM").await;
    soon("the end of the program", served.end()).await;
}

/// Posts a request to reload on the admin listener. Returns the status and the body.
async fn post_reload(socket: &str, headers: &str) -> (String, String) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let head = format!("POST /reload HTTP/1.1\r\nHost: a\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = String::new();
    soon("a response", stream.read_to_string(&mut response)).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn reload_on_the_admin_listener_changes_limits_and_names_what_takes_a_restart() {
    let folder = Folder::new("post");
    let (config, admin) = (folder.path("sigver.toml"), folder.path("admin.sock"));
    folder.write("sigver.toml", "protocol = \"sigver-20\"\n");
    let address = format!("unix:{admin}");
    let args = ["-h", "127.0.0.1", "-p", "0", "--config", &config, "--control", "off", "--admin", &address];
    let served = Served::start(&args).await;
    let member = async |path: &str| {
        let mut ws = served.ws(path).await;
        assert!(ws.binary(&hex("1a02080b")).await);
        ws
    };
    let mut first = member("/one").await;
    first.expect(&[Got::binary("2001")]).await;

    // From a page of another site in the operator's browser.
    assert_eq!(post_reload(&admin, "Origin: http://evil.example\r\n").await.0, "403");
    let limits = "max-rooms = 1\nmax-connections-per-address = 100\ntls-timeout = 7\n";
    folder.write("sigver.toml", &format!("protocol = \"auto\"\nlog-ip = \"full\"\n{limits}"));
    let report = r#"{"reloaded":true,"changed":["log-ip","max-connections-per-address","tls-timeout","max-rooms"],"needs_restart":["protocol"]}"#;
    assert_eq!(post_reload(&admin, "").await, ("200".to_owned(), format!("{report}\n")));
    // Connected clients stay, and the new limits are those of later ones.
    let mut second = member("/two").await;
    second.expect_close(1013).await;
    second.close(1013).await;

    folder.write("sigver.toml", "max-rooms = \"many\"\n");
    let (status, body) = post_reload(&admin, "").await;
    assert_eq!(status, "422");
    assert!(body.starts_with("{\"reloaded\":false,\"error\":\"option '--max-rooms"), "{body}");
    // The limits are still those of before.
    member("/two").await.expect_close(1013).await;
    folder.write("sigver.toml", "protocol = \"sigver-20\"\n");
    let report = r#"{"reloaded":true,"changed":["log-ip","max-connections-per-address","tls-timeout","max-rooms"],"needs_restart":[]}"#;
    assert_eq!(post_reload(&admin, "").await, ("200".to_owned(), format!("{report}\n")));
    member("/two").await.expect(&[Got::binary("2001")]).await;
    drop(first);
    served.signal("TERM").await;
    served.end().await;
}

#[tokio::test]
async fn certificate_that_expires_is_warned_about_at_the_start_and_at_a_reload() {
    let folder = Folder::new("expiry");
    let key = rcgen::KeyPair::generate().unwrap();
    folder.write("key.pem", &key.serialize_pem());
    let certify = |not_after: SystemTime| {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (SystemTime::UNIX_EPOCH.into(), not_after.into());
        folder.write("cert.pem", &params.self_signed(&key).unwrap().pem());
    };
    let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 60 * 60));
    certify(now - day);
    let (cert_file, key_file) = (folder.path("cert.pem"), folder.path("key.pem"));
    let args = ["-h", "127.0.0.1", "-p", "0", "--control", "off", "-c", &cert_file, "-k", &key_file];
    let (code, _, errors) = run(&[&["check-config"], &args[..]].concat()).await;
    assert!(code == Some(0) && errors.contains("has expired, on "), "{errors}");
    let mut served = Served::start(&args).await;
    let line = log_line(&mut served.stderr, "WARN").await;
    assert!(line.contains(&format!("the certificate {cert_file} has expired, on ")), "{line}");
    certify(now + 3 * day);
    served.signal("HUP").await;
    let line = log_line(&mut served.stderr, "WARN").await;
    assert!(
        line.contains(&format!("the certificate {cert_file} expires in less than 3 days, on ")),
        "{line}"
    );
    certify(now + 30 * day);
    served.signal("HUP").await;
    for _ in 0..2 {
        log_line(&mut served.stderr, "reloaded the certificates").await;
    }
    served.signal("TERM").await;
    assert!(!served.end().await.2.contains("WARN"));
}

#[tokio::test]
async fn secrets_are_not_printed_with_the_configuration() {
    let key =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls/ec-sec1.key"));
    let cert = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls/ec.crt");
    let mut command = sigver(&["check-config", "-c", cert.to_str().unwrap()]);
    command.env("SIGVER_KEY", key.unwrap());
    let output = soon("the end", command.output()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("# key = (not shown)"), "{text}");
    assert!(!text.contains("BEGIN"), "{text}");

    let mut command = sigver(&["check-config", "--auth", "callout:http://127.0.0.1:1/check?secret=s3cret"]);
    let output = soon("the end", command.output()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("auth = \"callout:http://127.0.0.1:1/check?***\""), "{text}");
}
