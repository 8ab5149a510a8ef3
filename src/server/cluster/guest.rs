//! The end of a link at the node that has rooms: each session is a connection in one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use super::queue::LinkQueue;
use super::wire::{EdgeMessage, EventMessage, OwnerMessage};
use crate::protocol::model::Event;
use crate::server::clock;
use crate::server::hub::{Hub, Membership, Outbox, RemoteReader};

/// A link from a node that has connections.
#[derive(Debug)]
pub(super) struct GuestLink {
    pub(super) queue: Arc<LinkQueue>,
    notices: Arc<Notices>,
    hub: Arc<Hub>,
    guests: Mutex<FxHashMap<u32, Guest>>,
}

/// Sessions to look at again.
#[derive(Debug, Default)]
struct Notices {
    sessions: Mutex<Vec<u32>>,
    added: Notify,
}

/// A connection of the other node in a room of this one.
#[derive(Debug)]
struct Guest {
    membership: Membership,
    /// The queue of the connection is full.
    is_full: Arc<AtomicBool>,
    /// The other node waits for the role.
    awaits_role: bool,
    /// The other node was asked to hold the connection.
    is_held: bool,
}

/// The way of events to the connection.
#[derive(Debug)]
struct GuestReader {
    queue: Arc<LinkQueue>,
    notices: Arc<Notices>,
    session: u32,
    is_full: Arc<AtomicBool>,
}

impl GuestLink {
    pub(super) fn new(hub: &Arc<Hub>) -> Self {
        GuestLink {
            queue: Arc::default(),
            notices: Arc::default(),
            hub: Arc::clone(hub),
            guests: Mutex::default(),
        }
    }

    /// Handles a message of the other node.
    pub(super) fn handle(&self, session: u32, message: EdgeMessage) {
        let mut guests = self.guests.lock();
        let guest = match message {
            EdgeMessage::Enter(key, command) => {
                let guest = guests.entry(session).or_insert_with(|| self.guest(session));
                guest.awaits_role = true;
                guest.membership.enter(&key, command);
                guest
            }
            EdgeMessage::Leave(normal_closure) => {
                let guest = guests.remove(&session);
                drop(guests);
                if let Some(mut guest) = guest {
                    guest.membership.leave(normal_closure);
                }
                return;
            }
            message => {
                // One that has left, or was refused.
                let Some(guest) = guests.get_mut(&session) else { return };
                guest.handle(message);
                guest
            }
        };
        if !guest.settle(session, &self.queue) {
            guests.remove(&session);
        }
    }

    fn guest(&self, session: u32) -> Guest {
        let is_full = Arc::new(AtomicBool::new(false));
        let reader = GuestReader {
            queue: Arc::clone(&self.queue),
            notices: Arc::clone(&self.notices),
            session,
            is_full: Arc::clone(&is_full),
        };
        let membership = self.hub.register(Outbox::remote(Box::new(reader)));
        Guest { membership, is_full, awaits_role: false, is_held: false }
    }

    /// Looks at the sessions that were notified, until the link ends.
    pub(super) async fn follow_notices(&self) {
        loop {
            self.notices.added.notified().await;
            let noticed = std::mem::take(&mut *self.notices.sessions.lock());
            let mut guests = self.guests.lock();
            for session in noticed {
                let Some(guest) = guests.get_mut(&session) else { continue };
                guest.membership.resume();
                if !guest.settle(session, &self.queue) {
                    guests.remove(&session);
                }
            }
        }
    }

    /// Takes note that the queue of the link is no longer full.
    pub(super) fn relieved(&self) {
        for guest in self.guests.lock().values() {
            guest.membership.outbox().relieve_remote();
        }
    }

    /// Returns the number of connections of the other node.
    pub(super) fn sessions(&self) -> usize {
        self.guests.lock().len()
    }
}

impl Guest {
    fn handle(&mut self, message: EdgeMessage) {
        match message {
            EdgeMessage::Command(command) => {
                self.awaits_role |= command.changes_role();
                self.membership.command(command);
            }
            EdgeMessage::DropMembership => self.membership.drop_membership(),
            EdgeMessage::MarkMixed(link) => {
                self.membership.mark_mixed(link);
            }
            EdgeMessage::CloseJoiner => self.membership.close_full_joiner(),
            EdgeMessage::Full(is_full) => {
                self.is_full.store(is_full, Ordering::Release);
                if !is_full {
                    self.membership.outbox().relieve_remote();
                }
            }
            EdgeMessage::Enter(..)
            | EdgeMessage::Leave(_)
            | EdgeMessage::Ping { .. }
            | EdgeMessage::Bye
            | EdgeMessage::Find(_)
            | EdgeMessage::Ask { .. } => {}
        }
    }

    /// Sends what has changed for the connection. Returns false if it was refused.
    fn settle(&mut self, session: u32, queue: &LinkQueue) -> bool {
        if let Some(reason) = self.membership.refusal() {
            queue.send(session, &OwnerMessage::Event(Event::Evicted(reason.clone())));
            return false;
        }
        if self.awaits_role
            && let Some(role) = self.membership.single_role()
        {
            self.awaits_role = false;
            queue.send(session, &OwnerMessage::Role(role));
        }
        let hold = if self.membership.is_common() { None } else { self.membership.hold(clock::now()) };
        match hold {
            Some(hold) if !self.is_held => queue.send(session, &OwnerMessage::Hold(hold)),
            None if self.is_held => queue.send(session, &OwnerMessage::Relieved),
            Some(_) | None => {}
        }
        self.is_held = hold.is_some();
        true
    }
}

impl RemoteReader for GuestReader {
    fn send(&self, event: &Event) -> Option<Waker> {
        self.queue.push(self.session, &EventMessage::Event(event))
    }

    fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire) || self.queue.is_full()
    }

    fn notify(&self) {
        self.notices.sessions.lock().push(self.session);
        self.notices.added.notify_one();
    }

    fn overflow(&self) {
        self.queue.send(self.session, &OwnerMessage::Overflow);
    }
}
