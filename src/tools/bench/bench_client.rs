//! A client of a dialect on a link: what it says and understands is in `compat`, and is asked for whatever is not the
//! one content that comes again and again.

use std::collections::VecDeque;
use std::time::Duration;

use super::error::Error;
use super::frame::{BINARY, CLOSE, Frame, PING, PONG, TEXT, closing, put, put_close, put_said};
use super::patiently;
use super::ws_connection::WsConnection;
use crate::tools::client::dialects::{
    ClientAction, ClientEvent, JoinerId, Role, SyntheticClient, new_client, request_path,
};
use crate::tools::client::message::TestMessage;
use crate::tools::client::peer;
use crate::tools::client::protocol::Protocol;
use crate::tools::dial::Target;

/// How long what is to happen may take: what is for a silent member may be held for some seconds.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long what a server said before it has closed is waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A client on a link.
pub struct BenchClient {
    link: WsConnection,
    /// What it speaks.
    pub tongue: Protocol,
    role: Role,
    mind: ClientState,
}

/// What is made of what comes, apart from the link it comes over.
struct ClientState {
    client: Box<dyn SyntheticClient>,
    heard: VecDeque<ClientEvent>,
    /// What is to be written, because of what came.
    replies: Vec<u8>,
    /// First byte and length of the last content that was understood. Contents of a measurement are all alike, and
    /// heartbeats and the like are not as long, so that later ones need not be understood to be counted.
    content: Option<(u8, usize)>,
    /// Whether contents are counted, and no longer understood.
    counts: bool,
    broken: Option<Error>,
}

impl BenchClient {
    /// Connects, and says nothing yet.
    ///
    /// # Errors
    ///
    /// When there is no connection.
    pub async fn open(
        target: &Target,
        tongue: Protocol,
        role: Role,
        key: &str,
    ) -> Result<BenchClient, Error> {
        let link = WsConnection::open(target, &request_path(tongue, role, key)).await?;
        let mind = ClientState {
            client: new_client(tongue, role, key),
            heard: VecDeque::new(),
            replies: Vec::new(),
            content: None,
            counts: false,
            broken: None,
        };
        Ok(BenchClient { link, tongue, role, mind })
    }

    /// Says what a client says first, and waits until it is what it wants to be.
    ///
    /// # Errors
    ///
    /// When the server does not let it be that.
    pub async fn begin(&mut self, first: Option<&TestMessage>) -> Result<(), Error> {
        let acts = self.mind.client.on_open(first);
        self.mind.perform(acts);
        let words = self.tongue.capabilities();
        let told = match self.role {
            Role::Member => words.confirms_member,
            Role::Joiner => words.confirms_joiner,
        };
        if !told {
            // What is answered in order was read before.
            put(&mut self.mind.replies, PING, &[]);
        }
        self.reply().await?;
        let (role, relay) = (self.role, self.tongue == Protocol::Signaller);
        self.until("an answer to its first words", |heard| match (heard, role) {
            (ClientEvent::Synced, _) if !told => Some(Ok(())),
            (ClientEvent::LinkedToMember, _) if relay => Some(Ok(())),
            (ClientEvent::BecameMember, Role::Member) | (ClientEvent::LinkedToMember, Role::Joiner) => {
                Some(Ok(()))
            }
            (ClientEvent::BecameMember, Role::Joiner) => {
                Some(Err(Error::Refused("is told that it is the first".to_owned())))
            }
            (ClientEvent::LinkedToMember, Role::Member) => {
                Some(Err(Error::Refused("is told that it is bound to another".to_owned())))
            }
            _ => None,
        })
        .await
    }

    /// Waits for this, among what it hears.
    ///
    /// # Errors
    ///
    /// When it does not come, or if `found` says so.
    pub async fn until<T>(
        &mut self,
        what: &'static str,
        mut found: impl FnMut(ClientEvent) -> Option<Result<T, Error>>,
    ) -> Result<T, Error> {
        patiently(PATIENCE, what, async {
            loop {
                while let Some(heard) = self.mind.heard.pop_front() {
                    if let ClientEvent::Rejected(words) = heard {
                        return Err(Error::Refused(format!("refused: {words}")));
                    }
                    if let Some(found) = found(heard) {
                        return found;
                    }
                }
                self.read().await?;
                self.reply().await?;
            }
        })
        .await
    }

    /// Waits for something from another, and tells from whom.
    ///
    /// # Errors
    ///
    /// When nothing comes.
    pub async fn parcel(&mut self, what: &'static str) -> Result<Option<JoinerId>, Error> {
        self.until(what, |heard| match heard {
            ClientEvent::Message { from, .. } => Some(Ok(from)),
            ClientEvent::PeerLeft { .. } => Some(Err(Error::Closed("the other is gone".to_owned()))),
            _ => None,
        })
        .await
    }

    /// The frame by which it says this.
    ///
    /// # Errors
    ///
    /// When it has no words for it.
    pub fn frame(&mut self, to: Option<&JoinerId>, parcel: &TestMessage) -> Result<Vec<u8>, Error> {
        let said = self.mind.client.encode(to, parcel);
        let said =
            said.ok_or(Error::Cannot { tongue: self.tongue, why: "it has no words for what is to be sent" })?;
        let mut frame = Vec::new();
        put_said(&mut frame, &said);
        Ok(frame)
    }

    /// Writes this.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self.link.write(bytes).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.last_words(error).await),
        }
    }

    /// Writes this, and reads while the server does not take it; counts the contents that come. What is to be written
    /// because of the rest is left to [`settle`](Self::settle).
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn pass(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let mind = &mut self.mind;
        let mut contents = 0;
        let passed = self.link.pass(bytes, |frame| contents += mind.hear(frame)).await;
        match (self.mind.broken.take(), passed) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(contents),
            (None, Err(error)) => Err(self.last_words(error).await),
        }
    }

    /// Why nothing more can be written: what the server has said last, if it has said anything.
    #[cold]
    async fn last_words(&mut self, error: Error) -> Error {
        let (link, mind) = (&mut self.link, &mut self.mind);
        let reading = async {
            let mut contents = 0;
            while mind.broken.is_none() && link.read(|frame| contents += mind.hear(frame)).await.is_ok() {}
        };
        // Who is gone has said it already.
        let _ = tokio::time::timeout(LAST_WORDS, reading).await;
        self.mind.broken.take().unwrap_or(error)
    }

    /// From now on contents like the last one are only counted.
    pub fn count(&mut self) {
        self.mind.counts = true;
    }

    /// Reads once, and counts the contents. What is to be written because of the rest is left to
    /// [`reply`](Self::reply), so that nothing is lost if this is dropped while it waits.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn read(&mut self) -> Result<usize, Error> {
        let mind = &mut self.mind;
        let mut contents = 0;
        self.link.read(|frame| contents += mind.hear(frame)).await?;
        match self.mind.broken.take() {
            None => Ok(contents),
            Some(error) => Err(error),
        }
    }

    /// Writes what is to be written because of what came.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn reply(&mut self) -> Result<(), Error> {
        if !self.mind.replies.is_empty() {
            let replies = std::mem::take(&mut self.mind.replies);
            self.write(&replies).await?;
        }
        Ok(())
    }

    /// Reads, and writes what is to be written because of it; counts the contents.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn hear(&mut self) -> Result<usize, Error> {
        let contents = self.read().await?;
        self.settle().await?;
        Ok(contents)
    }

    /// Writes what is to be written because of what came, and forgets the rest of it.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn settle(&mut self) -> Result<(), Error> {
        self.mind.heard.clear();
        self.reply().await
    }

    /// Leaves as its clients do, and waits until the server has ended the connection.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub async fn leave(mut self) -> Result<(), Error> {
        let mut close = Vec::new();
        put_close(&mut close, self.tongue.capabilities().close_code);
        // Who has been closed already need not close.
        if self.link.write(&close).await.is_err() {
            return Ok(());
        }
        patiently(PATIENCE, "the end of the connection", async {
            self.link.drain().await;
            Ok(())
        })
        .await
    }
}

impl ClientState {
    /// What comes; 1 if it is a content.
    fn hear(&mut self, frame: Frame<'_>) -> usize {
        match self.content {
            Some((first, length)) if self.counts && frame.first == first && frame.payload.len() == length => {
                1
            }
            _ => self.understand(frame),
        }
    }

    /// What comes beside the contents that are known already; 1 if it is a content all the same.
    #[cold]
    fn understand(&mut self, frame: Frame<'_>) -> usize {
        let before = self.heard.len();
        match frame.first {
            TEXT => match std::str::from_utf8(frame.payload) {
                Ok(text) => {
                    let acts = self.client.on_text(text);
                    self.perform(acts);
                }
                Err(_) => self.broken = Some(Error::Closed("a text comes that is none".to_owned())),
            },
            BINARY => {
                let acts = self.client.on_binary(frame.payload);
                self.perform(acts);
            }
            PING => put(&mut self.replies, PONG, frame.payload),
            PONG => self.heard.push_back(ClientEvent::Synced),
            CLOSE => {
                let (code, reason) = closing(frame.payload);
                self.broken = Some(Error::Closed(peer::close_text(code, &reason)));
            }
            // No server of sigver does that.
            _ => self.broken = Some(Error::Closed("a message comes in parts".to_owned())),
        }
        let parcels =
            self.heard.iter().skip(before).filter(|heard| matches!(heard, ClientEvent::Message { .. }));
        match parcels.count() {
            0 => 0,
            _ => {
                self.content = Some((frame.first, frame.payload.len()));
                1
            }
        }
    }

    fn perform(&mut self, acts: Vec<ClientAction>) {
        for act in acts {
            match act {
                ClientAction::Send(said) => put_said(&mut self.replies, &said),
                // Real clients have a clock for this; the server's is as good, and is one for thousands of clients.
                ClientAction::Report(ClientEvent::HeartbeatRequest) => {
                    if let Some(said) = self.client.heartbeat() {
                        put_said(&mut self.replies, &said);
                    }
                }
                ClientAction::Report(heard) => self.heard.push_back(heard),
                ClientAction::Close(_) => {
                    let why = match self.heard.back() {
                        Some(ClientEvent::Unexpected(what)) => {
                            format!("it would close, because of what comes: {what}")
                        }
                        _ => "it would close, because of what comes".to_owned(),
                    };
                    self.broken = Some(Error::Closed(why));
                }
            }
        }
    }
}
