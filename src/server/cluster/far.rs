//! The end of a link at the node that has connections, to a node that has rooms.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use indexmap::IndexSet;
use parking_lot::Mutex;
use rustc_hash::{FxBuildHasher, FxHashMap};
use tokio_util::sync::CancellationToken;

use super::queue::LinkQueue;
use super::wire::{EdgeMessage, LINK_SESSION, OwnerMessage};
use crate::protocol::cluster::NodeId;
use crate::protocol::model::{Command, Event, LinkId, Reason, RoomKey, RoomRole};
use crate::server::hub::{Hold, Outbox, RemoteReader, RemoteRoom};
use crate::server::memory::MemoryBudget;

/// Most links of one session that are noted. They are only needed by connections in several rooms.
const MAX_NOTED_LINKS: usize = 16 * 1024;

/// Time over which connections are closed when their node has ended, so that not all come back at once.
const EVICTION_TIME: Duration = Duration::from_secs(3);
/// Number of steps in that time.
const EVICTION_STEPS: u32 = 60;

/// A link to a node that has rooms.
#[derive(Debug)]
pub(crate) struct FarLink {
    pub(super) node: NodeId,
    /// The address that was dialled.
    pub(super) address: SocketAddr,
    pub(super) queue: LinkQueue,
    /// Cancelled when the link has ended.
    pub(super) ended: CancellationToken,
    /// The version of the messages of the other node.
    version: AtomicU16,
    memory: Arc<MemoryBudget>,
    sessions: Mutex<FxHashMap<u32, Arc<FarSession>>>,
    last_session: AtomicU32,
    /// Sessions that are held as the queue of the link is full.
    held: Mutex<Vec<Arc<FarSession>>>,
}

/// One connection in one room at the other node.
#[derive(Debug)]
struct FarSession {
    outbox: Outbox,
    /// The role in the room; `None` while the other node has not sent it.
    role: Mutex<Option<RoomRole>>,
    links: Mutex<IndexSet<LinkId, FxBuildHasher>>,
    /// A hold of the other node that the connection has not taken.
    hold: Mutex<Option<Hold>>,
    /// The last hold of the other node is not over.
    is_held: AtomicBool,
    /// The session waits until the queue of the link is relieved.
    waits: AtomicBool,
    /// The other node has not answered the entry.
    enters: AtomicBool,
    /// The other node does not have the room.
    is_misplaced: AtomicBool,
    /// The other node knows that the queue of the connection is full.
    is_full: AtomicBool,
}

impl FarLink {
    pub(super) fn new(node: NodeId, address: SocketAddr, memory: &Arc<MemoryBudget>) -> Arc<Self> {
        Arc::new(FarLink {
            node,
            address,
            queue: LinkQueue::default(),
            ended: CancellationToken::new(),
            version: AtomicU16::new(0),
            memory: Arc::clone(memory),
            sessions: Mutex::default(),
            last_session: AtomicU32::new(LINK_SESSION),
            held: Mutex::default(),
        })
    }

    /// Returns the other node.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn set_version(&self, version: u16) {
        self.version.store(version, Ordering::Release);
    }

    /// Returns the version of the messages of the other node.
    pub(super) fn version(&self) -> u16 {
        self.version.load(Ordering::Acquire)
    }

    /// Returns the number of connections in rooms of the other node.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Asks the other node whether it has a room.
    pub(super) fn find(&self, key: &RoomKey) {
        self.queue.send(LINK_SESSION, &EdgeMessage::Find(key.clone()));
    }

    /// Returns a room of the other node for the connection whose queue is `outbox`.
    pub(crate) fn room(self: &Arc<Self>, outbox: &Outbox) -> Box<dyn RemoteRoom> {
        let session = Arc::new(FarSession {
            outbox: outbox.clone(),
            role: Mutex::default(),
            links: Mutex::default(),
            hold: Mutex::default(),
            is_held: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            enters: AtomicBool::new(false),
            is_misplaced: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
        });
        let mut sessions = self.sessions.lock();
        let number = loop {
            let number = self.last_session.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            if number != LINK_SESSION && !sessions.contains_key(&number) {
                break number;
            }
        };
        sessions.insert(number, Arc::clone(&session));
        Box::new(FarRoom { link: Arc::clone(self), number, session, left: AtomicBool::new(false) })
    }

    /// Handles a message of the other node.
    pub(super) fn handle(self: &Arc<Self>, number: u32, message: OwnerMessage) {
        let Some(session) = self.sessions.lock().get(&number).map(Arc::clone) else { return };
        match message {
            OwnerMessage::Event(event) => self.deliver(number, &session, event),
            OwnerMessage::Role(role) => {
                session.enters.store(false, Ordering::Release);
                *session.role.lock() = Some(role);
                session.outbox.notify();
            }
            OwnerMessage::Hold(hold) => {
                session.is_held.store(hold != Hold::NoReceiver, Ordering::Release);
                *session.hold.lock() = Some(hold);
                session.outbox.notify();
            }
            OwnerMessage::Relieved => {
                session.is_held.store(false, Ordering::Release);
                session.outbox.notify();
            }
            OwnerMessage::Overflow => session.outbox.overflow(),
            // Of the link, not of a session.
            OwnerMessage::Pong { .. }
            | OwnerMessage::Bye
            | OwnerMessage::Has(_)
            | OwnerMessage::Answer { .. } => {}
        }
    }

    fn deliver(self: &Arc<Self>, number: u32, session: &Arc<FarSession>, event: Event) {
        // The room has another place since it was located.
        if matches!(event, Event::Evicted(Reason::Moved)) && session.misplace() {
            return;
        }
        session.enters.store(false, Ordering::Release);
        match &event {
            Event::LinkedToMember { link } | Event::LinkedToJoiner { link } => {
                let mut links = session.links.lock();
                if links.len() >= MAX_NOTED_LINKS {
                    links.shift_remove_index(0);
                }
                links.insert(*link);
            }
            Event::LinkEnded { link, .. } => {
                session.links.lock().swap_remove(link);
            }
            _ => {}
        }
        let relief = || {
            if session.is_full.swap(true, Ordering::AcqRel) {
                return None;
            }
            self.queue.send(number, &EdgeMessage::Full(true));
            let (link, session) = (Arc::downgrade(self), Arc::downgrade(session));
            let notice = ReliefNotice { link, number, session };
            Some(Outbox::remote(Box::new(notice)))
        };
        session.outbox.deliver(event, &self.memory, relief);
    }

    /// Takes note that the queue of the link is no longer full.
    pub(super) fn relieved(&self) {
        for session in std::mem::take(&mut *self.held.lock()) {
            session.waits.store(false, Ordering::Release);
            session.outbox.notify();
        }
    }

    /// Ends the link: nothing more is sent, and the connections are closed one after the other.
    pub(super) async fn end(&self) {
        self.queue.close();
        self.relieved();
        let mut sessions: Vec<_> = self.sessions.lock().drain().map(|(_, session)| session).collect();
        // Those that were not answered yet look for their room again.
        sessions.retain(|session| !session.misplace());
        let step = sessions.len().div_ceil(EVICTION_STEPS as usize);
        while !sessions.is_empty() {
            for session in sessions.drain(..step.min(sessions.len())) {
                session.outbox.deliver(Event::Evicted(Reason::Moved), &self.memory, || None);
            }
            tokio::time::sleep(EVICTION_TIME / EVICTION_STEPS).await;
        }
    }
}

impl FarSession {
    /// Has the room located again, if the other node has not answered the entry. Returns true if so.
    fn misplace(&self) -> bool {
        let enters = self.enters.swap(false, Ordering::AcqRel);
        if enters {
            self.is_misplaced.store(true, Ordering::Release);
            self.outbox.notify();
        }
        enters
    }
}

/// A room of the other node, as one connection uses it.
#[derive(Debug)]
struct FarRoom {
    link: Arc<FarLink>,
    number: u32,
    session: Arc<FarSession>,
    left: AtomicBool,
}

impl FarRoom {
    fn send(&self, message: &EdgeMessage) {
        self.link.queue.send(self.number, message);
        if self.link.queue.is_full() && !self.session.waits.swap(true, Ordering::AcqRel) {
            *self.session.hold.lock() = Some(Hold::Full);
            self.link.held.lock().push(Arc::clone(&self.session));
            self.session.outbox.notify();
        }
    }
}

impl RemoteRoom for FarRoom {
    fn enter(&self, key: &RoomKey, command: Command) {
        *self.session.role.lock() = None;
        self.session.enters.store(true, Ordering::Release);
        self.send(&EdgeMessage::Enter(key.clone(), command));
    }

    fn command(&self, command: Command, changes_role: bool) {
        if changes_role {
            *self.session.role.lock() = None;
        }
        self.send(&EdgeMessage::Command(command));
    }

    fn drop_membership(&self) {
        self.send(&EdgeMessage::DropMembership);
    }

    fn leave(&self, normal_closure: bool) {
        if !self.left.swap(true, Ordering::AcqRel) {
            self.link.sessions.lock().remove(&self.number);
            self.link.queue.send(self.number, &EdgeMessage::Leave(normal_closure));
        }
    }

    fn is_endpoint_of(&self, link: LinkId) -> bool {
        self.session.links.lock().contains(&link)
    }

    fn mark_mixed(&self, link: LinkId) {
        self.send(&EdgeMessage::MarkMixed(link));
    }

    fn role(&self) -> Option<RoomRole> {
        *self.session.role.lock()
    }

    fn is_misplaced(&self) -> bool {
        self.session.is_misplaced.load(Ordering::Acquire)
    }

    fn take_hold(&self) -> Option<Hold> {
        self.session.hold.lock().take()
    }

    fn is_relieved(&self) -> bool {
        !self.session.is_held.load(Ordering::Acquire) && !self.session.waits.load(Ordering::Acquire)
    }

    fn close_joiner(&self) {
        self.send(&EdgeMessage::CloseJoiner);
    }
}

impl Drop for FarRoom {
    fn drop(&mut self) {
        self.leave(false);
    }
}

/// The place of a queue of this node among those that wait for another: it reports to the other node that
/// the connection takes events again.
#[derive(Debug)]
struct ReliefNotice {
    link: Weak<FarLink>,
    number: u32,
    session: Weak<FarSession>,
}

impl RemoteReader for ReliefNotice {
    fn send(&self, _: &Event) -> Option<Waker> {
        None
    }

    fn is_full(&self) -> bool {
        false
    }

    fn notify(&self) {
        if let (Some(link), Some(session)) = (self.link.upgrade(), self.session.upgrade()) {
            session.is_full.store(false, Ordering::Release);
            link.queue.send(self.number, &EdgeMessage::Full(false));
        }
    }

    fn overflow(&self) {}
}
