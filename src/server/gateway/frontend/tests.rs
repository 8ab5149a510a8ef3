//! The steps of a connection before its upgrade.

use tokio::io::AsyncReadExt as _;
use tokio::sync::oneshot;

use super::*;
use crate::config::{AdminSocketPath, Config};
use crate::server::Gateway;

#[test]
fn state_of_a_new_connection_is_small() {
    fn size<F>(_: impl Fn(Arc<Frontend>, AcceptedStream, ClientEndpoint, ConnectionAlive) -> F) -> usize {
        size_of::<F>()
    }
    let size = size(Frontend::handle_stream);
    assert!(size <= 1024, "{size}");
}

#[tokio::test(start_paused = true)]
async fn first_frame_follows_the_upgrade_after_a_pause() {
    for (protocol, is_apart) in [("sigver-15", true), ("sigver-18.0.0", true), ("auto", false)] {
        let config = Config { protocol: protocol.parse().unwrap(), ..Config::default() };
        let timeout = ReloadableTime::new(Duration::from_secs(10));
        let shared = Shared::new(&config);
        let routes = Routes {
            admission: Arc::clone(&shared.admission),
            websockets: true,
            signaller: None,
            events: None,
            shutdown: Arc::default(),
            access: None,
            refusals: Arc::default(),
            telemetry: Arc::default(),
            head_timeout: Arc::clone(&timeout),
        };
        let max_message = config.max_message;
        let endpoint = ClientEndpoint { remote: None, tls: false, behind_proxy: false };
        let permit = shared.admission.admit_connection(endpoint).unwrap();
        let alive = Box::new((shared.shutdown.track(), permit));
        let frontend = Arc::new(Frontend {
            shared,
            routes: Arc::new(routes),
            tls: None,
            tls_timeout: timeout,
            max_message,
            proxies: TrustedProxies::default(),
            proxy_protocol: ProxyProtocol::Off,
        });
        let (mut client, server) = tokio::io::duplex(1024);
        tokio::spawn(frontend.serve_http(server, endpoint, alive));
        let request = "GET /k HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            response.push(client.read_u8().await.unwrap());
        }
        let upgraded = tokio::time::Instant::now();
        // The frame of a message, or the ping by which `auto` measures the round trip.
        let opcode = if is_apart { 0x82 } else { 0x89 };
        assert_eq!(client.read_u8().await.unwrap(), opcode, "{protocol}");
        assert_eq!(upgraded.elapsed() >= FIRST_FRAME_PAUSE, is_apart, "{protocol}");
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_were_accepted_elsewhere_are_served_until_the_drain() {
    let mut config = Config { listen: Vec::new(), admin_socket: AdminSocketPath::Off, ..Config::default() };
    config.limits.max_connections_per_address = Some(1);
    let gateway = Gateway::bind(config).await.unwrap();
    let (acceptor, status) = (gateway.acceptor(), gateway.status());
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(gateway.run_until(async {
        let _ = stopped.await;
    }));
    let open = |remote: Option<[u8; 4]>| {
        let (client, server) = tokio::io::duplex(1024);
        acceptor.accept(server, remote.map(IpAddr::from));
        client
    };
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut client = open(None);
    client.write_all(request).await.unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    let (_first, mut second) = (open(Some([192, 0, 2, 1])), open(Some([192, 0, 2, 1])));
    let mut response = String::new();
    second.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 429 "), "{response}");
    assert_eq!(status.shared.admission.open(), 1);
    // Longer than any deadline: the gateway has no socket, and runs on.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!served.is_finished());
    stop.send(()).unwrap();
    served.await.unwrap();
    assert_eq!(open(None).read(&mut [0]).await.unwrap(), 0);
    assert_eq!(status.shared.admission.open(), 0);
}
