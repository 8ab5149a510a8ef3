//! Servers that cannot be reached: every tool that connects reports why, once, and what helps.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::common::process::{Served, run, sigver};
use crate::common::soon;

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/compat-tests/golden/20.1.0.jsonl");
/// Parts of a debug dump.
const DUMPS: [&str; 7] = ["os error", "Error(", "Other(", "Entity", "Context {", "Kind", "httparse"];

/// Runs every tool that ends by itself. Returns its name, exit code and stderr.
async fn run_tools(url: &str, options: &[&str], trusted: Option<&Path>) -> Vec<(String, i32, String)> {
    let tools: [&[&str]; 5] = [
        &["probe", url],
        &["bench", "sessions", url, "--duration", "0.1", "--concurrency", "1"],
        &["matrix", url, "--only", "sigver-20:sigver-20", "--hold", "0"],
        &["replay", RECORDING, url, "--scenario", "session", "--pace", "quick"],
        &["healthcheck", "--url", url],
    ];
    let mut results = Vec::new();
    for tool in tools {
        let mut command = sigver(&[tool, options].concat());
        match trusted {
            Some(file) => command.env("SSL_CERT_FILE", file),
            None => command.env_remove("SSL_CERT_FILE"),
        };
        let output = soon("the end of the tool", command.output()).await.unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        results.push((tool[0].to_owned(), output.status.code().unwrap(), errors));
    }
    results
}

async fn expect_error(url: &str, options: &[&str], trusted: Option<&Path>, expected: &str) {
    for (tool, code, errors) in run_tools(url, options, trusted).await {
        assert_ne!(code, 0, "{tool} {url}: {errors}");
        assert_eq!(errors.matches(expected).count(), 1, "{tool} {url} {options:?}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{tool} {url}: {errors}");
        for dump in DUMPS {
            assert!(!errors.contains(dump), "{tool} {url}: {errors}");
        }
    }
}

async fn expect_success(url: &str, options: &[&str], trusted: Option<&Path>) {
    for (tool, code, errors) in run_tools(url, options, trusted).await {
        assert_eq!((code, &errors[..]), (0, ""), "{tool} {url} {options:?}");
    }
}

/// A server of TLS with a certificate.
struct TlsServer {
    served: Served,
    cert: PathBuf,
}

impl TlsServer {
    async fn start(name: &str, params: CertificateParams) -> TlsServer {
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap().pem();
        TlsServer::start_with(name, &cert, &key.serialize_pem()).await
    }

    async fn start_with(name: &str, cert: &str, key: &str) -> TlsServer {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dialing");
        std::fs::create_dir_all(&folder).unwrap();
        let (cert_file, key_file) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        std::fs::write(&cert_file, cert).unwrap();
        std::fs::write(&key_file, key).unwrap();
        let (cert, key) = (cert_file.to_str().unwrap(), key_file.to_str().unwrap());
        let served = Served::start(&["-h", "127.0.0.1", "-p", "0", "-k", key, "-c", cert]).await;
        TlsServer { served, cert: cert_file }
    }

    fn url(&self, scheme: &str, host: &str) -> String {
        format!("{scheme}://{host}:{}", self.served.port())
    }
}

fn params(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}

/// A certificate as `openssl req -x509` makes it: that of an authority.
fn authority(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

#[tokio::test]
async fn authority_as_server_is_explained_and_can_be_trusted() {
    let server = TlsServer::start("authority", authority("localhost")).await;
    let other = TlsServer::start("other", authority("localhost")).await;
    let url = server.url("wss", "localhost");
    let problem = "is that of an authority (CA:TRUE), and not of a server; --cacert FILE trusts";
    expect_error(&url, &[], Some(&other.cert), problem).await;
    expect_success(&url, &[], Some(&server.cert)).await;
    expect_success(&url, &["--cacert", server.cert.to_str().unwrap()], Some(&other.cert)).await;
    expect_success(&url, &["--insecure"], Some(&other.cert)).await;
    // The name of a certificate that is itself trusted is checked, too.
    let url = server.url("wss", "127.0.0.1");
    expect_error(&url, &[], Some(&server.cert), "is not for 127.0.0.1, but for localhost; --insecure").await;
}

#[tokio::test]
async fn unknown_issuer_is_explained() {
    let server = TlsServer::start("self_signed", params("localhost")).await;
    let mut named = params("localhost");
    named.distinguished_name.push(rcgen::DnType::CommonName, "another");
    let other = TlsServer::start("unknown", named).await;
    let problem = "certificate is self-signed, or of an authority that this machine does not trust, or lacks an \
                   intermediate certificate; --cacert FILE";
    expect_error(&server.url("wss", "localhost"), &[], Some(&other.cert), problem).await;
    let same_name = TlsServer::start("same_name", params("localhost")).await;
    let problem = "is not signed by the trusted authority of that name, or is damaged; --cacert FILE";
    expect_error(&server.url("wss", "localhost"), &[], Some(&same_name.cert), problem).await;
    expect_success(&server.url("https", "localhost"), &["--insecure"], Some(&other.cert)).await;
}

/// Certificates that some clients reject: of version 1, and with an unknown critical extension.
#[tokio::test]
async fn unusual_certificates_are_served() {
    let fixture = |name| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
        std::fs::read_to_string(folder.join(name)).unwrap()
    };
    let old = TlsServer::start_with("version_1", &fixture("ec-v1.crt"), &fixture("ec-sec1.key")).await;
    let mut critical = params("localhost");
    let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    extension.set_criticality(true);
    critical.custom_extensions.push(extension);
    let critical = TlsServer::start("critical", critical).await;
    for server in [old, critical] {
        expect_success(&server.url("wss", "localhost"), &["--insecure"], Some(&server.cert)).await;
    }
}

#[tokio::test]
async fn periods_and_missing_names_are_explained() {
    let mut old = authority("localhost");
    old.not_after = date_time_ymd(2020, 1, 1);
    let old = TlsServer::start("old", old).await;
    let url = old.url("wss", "localhost");
    expect_error(&url, &[], Some(&old.cert), "the server's certificate expired ").await;
    let mut early = params("localhost");
    early.not_before = date_time_ymd(2090, 1, 1);
    let early = TlsServer::start("early", early).await;
    let problem = "is not valid yet, or the clock of this machine is wrong; --insecure trusts any";
    expect_error(&early.url("wss", "localhost"), &[], Some(&early.cert), problem).await;
    let nameless = TlsServer::start("nameless", CertificateParams::new(vec![]).unwrap()).await;
    let problem = "names no host; make one with -addext subjectAltName=DNS:localhost";
    expect_error(&nameless.url("wss", "localhost"), &[], Some(&nameless.cert), problem).await;
}

#[tokio::test]
async fn tls_and_plain_text_are_distinguished() {
    let tls = TlsServer::start("plain", params("localhost")).await;
    let url = tls.url("ws", "localhost");
    // `healthcheck` reports the status of the answer.
    for (tool, code, errors) in run_tools(&url, &[], None).await.iter().take(4) {
        assert_ne!(*code, 0, "{tool}");
        assert_eq!(
            *errors,
            format!("error: {url} is a port of TLS, which needs wss:// or https://\n"),
            "{tool}"
        );
    }
    let plain = Served::start(&["-h", "127.0.0.1", "-p", "0"]).await;
    let url = format!("wss://localhost:{}", plain.port());
    expect_error(&url, &["--insecure"], None, "the answer is not TLS; a port without TLS needs ws://").await;
}

#[tokio::test]
async fn servers_of_other_protocols_are_named() {
    for (answer, problem) in [
        (&b"SSH-2.0-OpenSSH_9.6\r\n"[..], "does not answer as an HTTP server; a port of TLS needs wss://"),
        // An alert of TLS.
        (b"\x15\x03\x01\0\x02\x02\x46", "does not answer as an HTTP server; a port of TLS needs wss://"),
        (b"", "closed the connection without an answer; a port of TLS needs wss://"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let _ = client.read(&mut [0; 4096]).await;
                let _ = client.write_all(answer).await;
            }
        });
        expect_error(&url, &[], None, problem).await;
    }
}

#[tokio::test]
async fn unreachable_servers_are_explained() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let problem = "connection refused: no program listens there";
    expect_error(&format!("ws://{nobody}"), &[], None, problem).await;
    expect_error(&format!("wss://{nobody}"), &["--insecure"], None, problem).await;
    let problem = "the host name 'no-such-host.invalid' is not found";
    expect_error("ws://no-such-host.invalid:80", &[], None, problem).await;
}

#[tokio::test]
async fn unusable_trusted_certificates_are_explained() {
    let server = TlsServer::start("trusted", params("localhost")).await;
    let url = server.url("wss", "localhost");
    let key = server.cert.with_extension("key");
    for (file, problem) in [
        (key.to_str().unwrap(), "there is no certificate in it"),
        ("/nonexistent", "there is no such file"),
        ("/dev/null", "there is no certificate in it"),
        ("/", "it is a directory"),
        // Longer than any, and not read in part.
        ("/dev/zero", "it has more than 8 MiB"),
    ] {
        expect_error(&url, &["--cacert", file], None, &format!("certificates {file}: {problem}")).await;
    }
    for (_, code, errors) in run_tools(&url, &["--cacert", "x", "--insecure"], None).await {
        assert!(code == 2 && errors.contains("cannot be used with"), "{errors}");
    }
}

#[tokio::test]
async fn tools_show_a_token_and_never_print_it() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dialing-tokens");
    std::fs::write(&file, "a-token-for-every-key *\n").unwrap();
    let auth = format!("token-file:{}", file.display());
    let served = Served::start(&["-h", "127.0.0.1", "-p", "0", "--control", "off", "--auth", &auth]).await;
    let url = format!("ws://127.0.0.1:{}", served.port());
    let alone = file.with_extension("one");
    std::fs::write(&alone, "a-token-for-every-key\n").unwrap();
    let tools: [&[&str]; 4] = [
        &["probe", &url],
        &["bench", "sessions", &url, "--duration", "0.1", "--concurrency", "1"],
        &["matrix", &url, "--only", "sigver-20:sigver-20", "--hold", "0"],
        &["replay", RECORDING, &url, "--scenario", "session", "--pace", "quick"],
    ];
    for tool in tools {
        for token in ["a-token-for-every-key", &format!("@{}", alone.display())] {
            let (code, out, errors) = run(&[tool, &["--token", token]].concat()).await;
            assert_eq!((code, &errors[..]), (Some(0), ""), "{tool:?}: {out}");
        }
        let (code, out, errors) = run(&[tool, &["--token", "wrong-secret"]].concat()).await;
        assert_ne!(code, Some(0), "{tool:?}: {out}");
        assert!(!out.contains("wrong-secret") && !errors.contains("wrong-secret"), "{out}{errors}");
    }
    let (code, out, _) = run(&["probe", &url]).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("what it speaks is not known, as connections were refused"), "{out}");
    assert!(out.contains("refused with HTTP 401") && out.contains("--token"), "{out}");
}

#[tokio::test]
async fn probe_is_not_certain_when_connections_are_refused() {
    let limited = ["-h", "127.0.0.1", "-p", "0", "--control", "off", "--max-connections-per-address", "4"];
    let served = Served::start(&limited).await;
    let url = format!("ws://127.0.0.1:{}", served.port());
    let (_, out, errors) = run(&["probe", &url]).await;
    assert_eq!(errors, "");
    assert!(out.contains("refused with HTTP 429: too many connections of one address"), "{out}");
    assert!(!out.contains("certain") && !out.contains("all dialects"), "{out}");
    let (code, out, _) = run(&["probe", &url, "--json"]).await;
    assert_eq!(code, Some(1), "{out}");
    let out: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(out["refused"]["429"].as_u64().unwrap() > 0, "{out}");
    assert!(["incomplete", "none"].contains(&out["confidence"].as_str().unwrap()), "{out}");
}
