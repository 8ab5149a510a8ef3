//! A connector whose listener is at another node of a cluster: its bytes are forwarded to the pipe there.

use std::future::Future;
use std::io::{self, Cursor};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy, split};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, OpCode};
use tokio_util::sync::CancellationToken;

use super::task::{PipeStop, PipeStream};
use crate::protocol::frame::{Close, Outgoing};
use crate::server::cluster::SOCKET_BUFFER;
use crate::server::memory::MemoryCharge;
use crate::server::transport::Transport as _;
use crate::server::transport::ws::Socket;
use crate::server::write_timeout::WriteTimeout;

/// Length of the buffer in each direction, in bytes.
const BUFFER: usize = 8 * 1024;
/// Longest message of a client whose connection is being closed, in bytes.
const MAX_LAST_MESSAGE: usize = 64 * 1024;
/// Longest time for which a client may take nothing of what it is sent.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time for what a client sends after the end of its pipe.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// The way in which a call ended.
enum CallEnd {
    /// The other node closed the stream, after all that it had sent.
    Closed,
    /// The connection of the client, or the other node, was lost.
    Lost,
    /// This server closes the connection.
    Stopped(PipeStop),
}

/// Forwards what a connector and the node of its listener send, until one of them ends the connection, the
/// link to the node ends, or `stop` is ready. `prefetched` are the bytes that were read from the connector
/// already. Returns the cause of the end.
pub(super) async fn forward(
    mut client: Box<dyn PipeStream>,
    prefetched: Bytes,
    (node, link_ended): (impl AsyncRead + AsyncWrite, CancellationToken),
    mut charge: MemoryCharge,
    stop: impl Future<Output = PipeStop>,
) -> Option<&'static str> {
    if charge.resize(2 * BUFFER + SOCKET_BUFFER).is_err() {
        return Some("memory limit");
    }
    let (node_read, mut node_write) = split(node);
    let end = {
        let (mut client_read, mut client_write) = split(&mut client);
        let mut to_node = pin!(async {
            node_write.write_all(&prefetched).await?;
            let copied = copy(&mut client_read, &mut node_write).await;
            // Also if the client was lost, so that its pipe is closed.
            node_write.shutdown().await?;
            copied
        });
        let mut to_client = pin!(forward_frames(node_read, &mut client_write, stop));
        let mut client_ended = false;
        let end = loop {
            tokio::select! {
                end = &mut to_client => break end,
                // The other node closes the stream then.
                _ = &mut to_node, if !client_ended => client_ended = true,
                () = link_ended.cancelled() => break CallEnd::Lost,
            }
        };
        if let (CallEnd::Closed, false) = (&end, client_ended) {
            // What the client sends is read up to its end: data that is not read would be answered with a
            // reset, which can overtake the close frame.
            let _ = timeout(END_TIMEOUT, to_node).await;
        }
        end
    };
    let (close, cause) = match end {
        CallEnd::Closed => return Some("the other node closed the pipe"),
        CallEnd::Lost => return Some("disconnected"),
        CallEnd::Stopped(PipeStop::Shutdown) => (Close::new(1001, "the server is shutting down"), "shutdown"),
        CallEnd::Stopped(PipeStop::TokenExpired) => {
            (Close::new(1008, "the token has expired"), "token expired")
        }
    };
    // The client is lost to its pipe now.
    drop(node_write);
    let mut socket = Socket::new(client, Bytes::new(), MAX_LAST_MESSAGE);
    // An error of the connection is its end.
    let _ = socket.queue(Outgoing::Close(close));
    socket.finish(true).await;
    Some(cause)
}

/// Forwards the frames of the other node, and closes the way to the client after the last. Between two of
/// them, `stop` ends this.
async fn forward_frames(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
    stop: impl Future<Output = PipeStop>,
) -> CallEnd {
    let mut to = WriteTimeout::new(to, WRITE_TIMEOUT);
    let (mut buffer, mut position) = (vec![0; BUFFER], FramePosition::default());
    let mut stop = pin!(stop);
    loop {
        let read = tokio::select! {
            cause = &mut stop, if position.is_between_frames() => return CallEnd::Stopped(cause),
            read = from.read(&mut buffer) => read,
        };
        let forwarded = async {
            let bytes = buffer.get(..read?).unwrap_or_default();
            position.advance(bytes);
            if bytes.is_empty() {
                to.shutdown().await?;
            } else {
                to.write_all(bytes).await?;
                to.flush().await?;
            }
            Ok::<_, io::Error>(bytes.is_empty())
        };
        match forwarded.await {
            Ok(false) => {}
            Ok(true) => return CallEnd::Closed,
            Err(_) => return CallEnd::Lost,
        }
    }
}

/// The position of a stream within the frames of a server, which are not masked.
#[derive(Debug, Default)]
struct FramePosition {
    /// The beginning of the next frame.
    head: Vec<u8>,
    /// Bytes up to the end of the current frame.
    rest: u64,
    /// A close frame was among them, after which there is none.
    is_closed: bool,
}

impl FramePosition {
    fn is_between_frames(&self) -> bool {
        self.head.is_empty() && self.rest == 0 && !self.is_closed
    }

    fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = bytes.len().min(usize::try_from(self.rest).unwrap_or(usize::MAX));
            self.rest = self.rest.saturating_sub(skipped as u64);
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((byte, after)) = bytes.split_first() else { return };
            self.head.push(*byte);
            bytes = after;
            match FrameHeader::parse(&mut Cursor::new(&self.head)) {
                Ok(None) => continue,
                Ok(Some((header, length))) => {
                    self.is_closed |= header.opcode == OpCode::Control(Control::Close);
                    self.rest = length;
                }
                // No frame can follow one that is invalid.
                Err(_) => self.is_closed = true,
            }
            self.head.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::DuplexStream;
    use tokio::time::Instant;

    use super::*;
    use crate::server::memory::MemoryBudget;

    /// Capacity of each stream in each direction, in bytes.
    const WIRE: usize = 4096;

    /// A call that is forwarded: the streams of the client and of the other node, and its link.
    struct Forwarded {
        client: DuplexStream,
        node: DuplexStream,
        link_ended: CancellationToken,
        end: tokio::task::JoinHandle<Option<&'static str>>,
    }

    fn forwarded(
        prefetched: &'static [u8],
        stop: impl Future<Output = PipeStop> + Send + 'static,
    ) -> Forwarded {
        let (client, ours) = tokio::io::duplex(WIRE);
        let (node, to_node) = tokio::io::duplex(WIRE);
        let link_ended = CancellationToken::new();
        let call = (to_node, link_ended.clone());
        let charge = MemoryBudget::new(1 << 20).empty_charge();
        let end = tokio::spawn(forward(Box::new(ours), prefetched.into(), call, charge, stop));
        Forwarded { client, node, link_ended, end }
    }

    async fn read(stream: &mut DuplexStream, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    async fn rest(stream: &mut DuplexStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    /// A masked close frame of a client, with code 1000.
    const CLOSE_OF_CLIENT: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 3, 0xe8];

    #[tokio::test(start_paused = true)]
    async fn bytes_are_forwarded_up_to_the_end_of_either_stream() {
        // The other node closes first.
        let mut call = forwarded(b"early", pending());
        assert_eq!(read(&mut call.node, 5).await, b"early");
        call.client.write_all(b"more").await.unwrap();
        assert_eq!(read(&mut call.node, 4).await, b"more");
        call.node.write_all(b"\x81\x02hi\x88\x00").await.unwrap();
        call.node.shutdown().await.unwrap();
        assert_eq!(rest(&mut call.client).await, b"\x81\x02hi\x88\x00");
        call.client.write_all(CLOSE_OF_CLIENT).await.unwrap();
        drop(call.client);
        assert_eq!(rest(&mut call.node).await, CLOSE_OF_CLIENT);
        assert_eq!(call.end.await.unwrap(), Some("the other node closed the pipe"));

        // The client is lost: the other node is notified, and still decides when that is the end.
        let mut call = forwarded(b"", pending());
        drop(call.client);
        assert_eq!(rest(&mut call.node).await, b"");
        drop(call.node);
        call.end.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_does_not_end_is_left_some_time_after_its_pipe() {
        let mut call = forwarded(b"", pending());
        drop(call.node);
        assert_eq!(rest(&mut call.client).await, b"");
        let begin = Instant::now();
        assert_eq!(call.end.await.unwrap(), Some("the other node closed the pipe"));
        assert!(begin.elapsed() <= END_TIMEOUT + Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn client_is_not_read_while_the_other_node_does_not_read() {
        let mut call = forwarded(b"", pending());
        let mut written = 0;
        let write = async {
            loop {
                call.client.write_all(&[7; 1024]).await.unwrap();
                written += 1024;
            }
        };
        assert!(timeout(Duration::from_secs(1), write).await.is_err());
        assert!((2 * WIRE..=2 * WIRE + BUFFER + 1024).contains(&written), "{written}");
        assert_eq!(read(&mut call.node, written).await, vec![7; written]);
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_takes_nothing_is_lost() {
        let mut call = forwarded(b"", pending());
        let begin = Instant::now();
        call.node.write_all(&[0x82, 126, 0xff, 0xff]).await.unwrap();
        let write = async { while call.node.write_all(&[7; 1024]).await.is_ok() {} };
        timeout(2 * WRITE_TIMEOUT, write).await.expect("no message reached the other node");
        assert_eq!(call.end.await.unwrap(), Some("disconnected"));
        assert!(begin.elapsed() <= WRITE_TIMEOUT + Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_reads_slowly_is_not_lost() {
        let Forwarded { mut client, mut node, .. } = forwarded(b"", pending());
        let message = [&[0x82, 126, 0x40, 0][..], &[7; 0x4000]].concat();
        let begin = Instant::now();
        let mut received = Vec::new();
        let receive = async {
            while received.len() < message.len() {
                tokio::time::sleep(WRITE_TIMEOUT / 2).await;
                received.extend(read(&mut client, 1024.min(message.len() - received.len())).await);
            }
        };
        let (written, ()) = tokio::join!(node.write_all(&message), receive);
        written.unwrap();
        assert_eq!(received, message);
        assert!(begin.elapsed() > 4 * WRITE_TIMEOUT);
        drop(node);
        assert_eq!(rest(&mut client).await, b"");
    }

    #[tokio::test(start_paused = true)]
    async fn stop_closes_the_client_between_two_frames() {
        let (stopper, stopped) = tokio::sync::oneshot::channel();
        let stop = async move {
            stopped.await.unwrap();
            PipeStop::Shutdown
        };
        let mut call = forwarded(b"", stop);
        call.node.write_all(b"\x82\x04ab").await.unwrap();
        assert_eq!(read(&mut call.client, 4).await, b"\x82\x04ab");
        stopper.send(()).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        call.node.write_all(b"cd").await.unwrap();
        let close = [&b"cd\x88\x1d\x03\xe9"[..], b"the server is shutting down"].concat();
        let close_length = close.len();
        assert_eq!(read(&mut call.client, close_length).await, close);
        // The other node has lost the client.
        assert_eq!(rest(&mut call.node).await, b"");
        call.client.write_all(CLOSE_OF_CLIENT).await.unwrap();
        drop(call.client);
        assert_eq!(call.end.await.unwrap(), Some("shutdown"));
    }

    #[tokio::test(start_paused = true)]
    async fn client_is_lost_with_the_link_to_the_other_node() {
        let mut call = forwarded(b"", pending());
        call.link_ended.cancel();
        assert_eq!(rest(&mut call.client).await, b"");
        assert_eq!(call.end.await.unwrap(), Some("disconnected"));
    }

    #[test]
    fn frames_are_distinguished() {
        for length in [0, 1, 125, 126, 300, 65_535, 65_536, 70_000_usize] {
            let mut frame = vec![0x82];
            match length {
                0..126 => frame.push(length as u8),
                126..65_536 => frame.extend([&[126][..], &(length as u16).to_be_bytes()].concat()),
                _ => frame.extend([&[127][..], &(length as u64).to_be_bytes()].concat()),
            }
            frame.resize(frame.len() + length, 0x88);
            for step in [1, 7, 4096, usize::MAX] {
                let mut position = FramePosition::default();
                let twice = [&frame[..], &frame].concat();
                let mut between = 0;
                for bytes in twice.chunks(step.min(frame.len())) {
                    position.advance(bytes);
                    between += usize::from(position.is_between_frames());
                }
                assert!(position.is_between_frames(), "{length} in steps of {step}");
                if step == 1 || step >= frame.len() {
                    assert_eq!(between, 2, "{length} in steps of {step}");
                }
            }
        }
        let mut position = FramePosition::default();
        position.advance(&[0x88, 0]);
        assert!(!position.is_between_frames());
    }
}
