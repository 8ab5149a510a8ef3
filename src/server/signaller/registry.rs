//! Who listens under which handle. The lock is short: nothing awaits here, and no frame is seen.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::protocol::signaller::handle::Handle;

/// The listeners that wait, each with the way to hand it its guest: a `T`.
pub(crate) struct Registry<T> {
    waiting: Mutex<HashMap<Handle, oneshot::Sender<T>>>,
}

impl<T> Registry<T> {
    /// Takes a handle; `None` if it is taken already. It is free again when somebody claims the listener, or when the
    /// listener's guard is dropped.
    pub(crate) fn listen(self: &Arc<Self>, handle: Handle) -> Option<ListenerGuard<T>> {
        let (sender, guest) = oneshot::channel();
        match self.waiting.lock().entry(handle.clone()) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(vacant) => vacant.insert(sender),
        };
        Some(ListenerGuard { registry: Arc::clone(self), handle, guest })
    }

    /// Claims the listener under a handle, which is free from now on; `None` if there is none.
    pub(crate) fn claim(&self, handle: &Handle) -> Option<ConnectorSlot<T>> {
        self.waiting.lock().remove(handle).map(ConnectorSlot)
    }

    /// Whether somebody listens under a handle.
    pub(crate) fn has(&self, handle: &Handle) -> bool {
        self.waiting.lock().contains_key(handle)
    }
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Registry { waiting: Mutex::default() }
    }
}

impl<T> fmt::Debug for Registry<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Registry({} waiting)", self.waiting.lock().len())
    }
}

/// A listener's hold on its handle, which its drop frees.
pub(crate) struct ListenerGuard<T> {
    registry: Arc<Registry<T>>,
    handle: Handle,
    guest: oneshot::Receiver<T>,
}

impl<T> ListenerGuard<T> {
    /// The guest, once there is one; `None` if who claimed this listener went away. Not to be polled after that.
    pub(crate) fn poll_guest(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        Future::poll(std::pin::Pin::new(&mut self.guest), context).map(Result::ok)
    }

    /// Stops listening: the handle is free, no guest comes any more. A guest that came at the same moment is returned.
    pub(crate) fn leave(mut self) -> Option<T> {
        self.guest.close();
        self.guest.try_recv().ok()
    }
}

impl<T> Drop for ListenerGuard<T> {
    fn drop(&mut self) {
        self.guest.close();
        // Once claimed, the handle may be another's, whose end is still open: ours is closed, so we know it by that.
        let removed = match self.registry.waiting.lock().entry(self.handle.clone()) {
            Entry::Occupied(entry) if entry.get().is_closed() => Some(entry.remove()),
            Entry::Occupied(_) | Entry::Vacant(_) => None,
        };
        drop(removed);
    }
}

impl<T> fmt::Debug for ListenerGuard<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Listening").field(&self.handle).finish()
    }
}

/// The right to be a listener's guest. If it is dropped, the listener gets none.
pub(crate) struct ConnectorSlot<T>(oneshot::Sender<T>);

impl<T> ConnectorSlot<T> {
    /// Hands the guest to the listener.
    ///
    /// # Errors
    /// The listener left in the meantime: here is the guest.
    pub(crate) fn join(self, guest: T) -> Result<(), T> {
        self.0.send(guest)
    }
}

impl<T> fmt::Debug for ConnectorSlot<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Claim")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn handle(text: &str) -> Handle {
        Handle::parse(text).unwrap()
    }

    fn guest(listening: &mut ListenerGuard<u8>) -> Poll<Option<u8>> {
        listening.poll_guest(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_handle_is_taken_once() {
        let registry = Arc::<Registry<u8>>::default();
        let listening = registry.listen(handle("abc")).unwrap();
        assert!(registry.listen(handle("abc")).is_none());
        assert!(registry.listen(handle("abd")).is_some());
        assert!(registry.has(&handle("abc")));
        drop(listening);
        assert!(!registry.has(&handle("abc")));
        assert!(registry.listen(handle("abc")).is_some());
    }

    #[test]
    fn a_guest_is_handed_over_and_the_handle_free() {
        let registry = Arc::<Registry<u8>>::default();
        assert!(registry.claim(&handle("abc")).is_none());
        let mut first = registry.listen(handle("abc")).unwrap();
        let claim = registry.claim(&handle("abc")).unwrap();
        assert!(registry.claim(&handle("abc")).is_none());
        let second = registry.listen(handle("abc")).unwrap();
        assert_eq!(guest(&mut first), Poll::Pending);
        assert_eq!(claim.join(7), Ok(()));
        assert_eq!(guest(&mut first), Poll::Ready(Some(7)));
        // What is freed now belongs to the second.
        drop(first);
        assert!(registry.has(&handle("abc")));
        drop(second);
        assert!(registry.waiting.lock().is_empty());
    }

    #[test]
    fn a_claim_may_fail_at_either_end() {
        let registry = Arc::<Registry<u8>>::default();
        let mut listening = registry.listen(handle("abc")).unwrap();
        drop(registry.claim(&handle("abc")).unwrap());
        assert_eq!(guest(&mut listening), Poll::Ready(None));

        let listening = registry.listen(handle("abc")).unwrap();
        let claim = registry.claim(&handle("abc")).unwrap();
        assert_eq!(listening.leave(), None);
        assert_eq!(claim.join(7), Err(7));

        let listening = registry.listen(handle("abc")).unwrap();
        assert_eq!(registry.claim(&handle("abc")).unwrap().join(8), Ok(()));
        assert_eq!(listening.leave(), Some(8));
    }
}
