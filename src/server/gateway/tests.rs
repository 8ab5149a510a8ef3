//! The steps of a connection before its upgrade.

use tokio::io::AsyncReadExt as _;

use super::*;

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
        let timeout = Duration::from_secs(10);
        let routes = Routes {
            websockets: true,
            signaller: None,
            events: None,
            shutdown: Arc::default(),
            access: None,
            refusals: Arc::default(),
            telemetry: Arc::default(),
            head_timeout: timeout,
        };
        let (shared, max_message) = (Shared::new(&config), config.max_message);
        let endpoint = ClientEndpoint { remote: None, tls: false };
        let permit = shared.admission.admit_connection(endpoint).unwrap();
        let alive = Box::new((shared.shutdown.track(), permit));
        let frontend = Arc::new(Frontend {
            shared,
            routes: Arc::new(routes),
            tls: None,
            tls_timeout: timeout,
            max_message,
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
