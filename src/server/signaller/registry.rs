//! The listeners that wait for a connector, by their handles.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::protocol::signaller::handle::Handle;

/// The waiting listeners, each with the channel that receives its connector, a `T`.
pub(crate) struct Registry<T> {
    waiting: Mutex<HashMap<Handle, WaitingListener<T>>>,
}

struct WaitingListener<T> {
    connector: oneshot::Sender<T>,
    /// Rank of a reservation; `None` once the listener can be connected to.
    reserved: Option<u64>,
}

impl<T> Registry<T> {
    /// Registers a listener; `None` if the handle is taken. It is free again when the listener is taken by a
    /// connector, or when the guard is dropped.
    pub(crate) fn listen(self: &Arc<Self>, handle: Handle) -> Option<ListenerGuard<T>> {
        self.register(handle, None)
    }

    /// Reserves a handle for a listener, with a random rank; `None` if the handle is taken. Until it is
    /// [confirmed](ListenerGuard::confirm), no connector is admitted.
    #[cfg(any(test, feature = "cluster"))]
    pub(crate) fn reserve(self: &Arc<Self>, handle: Handle, rank: u64) -> Option<ListenerGuard<T>> {
        self.register(handle, Some(rank))
    }

    fn register(self: &Arc<Self>, handle: Handle, reserved: Option<u64>) -> Option<ListenerGuard<T>> {
        let (sender, connector) = oneshot::channel();
        match self.waiting.lock().entry(handle.clone()) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(vacant) => vacant.insert(WaitingListener { connector: sender, reserved }),
        };
        Some(ListenerGuard { registry: Arc::clone(self), handle, connector })
    }

    /// Returns true if a handle is free for a listener of another server, which has reserved it there with
    /// this rank. A reservation of a higher rank is dropped.
    ///
    /// Each server asks all others after its own reservation, so that of two at once one at least is asked
    /// while it has a reservation or a listener, and one at most goes on.
    #[cfg(any(test, feature = "cluster"))]
    pub(crate) fn yield_to(&self, handle: &Handle, rank: u64) -> bool {
        let yielding = match self.waiting.lock().entry(handle.clone()) {
            Entry::Vacant(_) => return true,
            Entry::Occupied(entry) if entry.get().reserved.is_some_and(|own| own > rank) => entry.remove(),
            Entry::Occupied(_) => return false,
        };
        drop(yielding);
        true
    }

    /// Takes the listener under a handle, which is free after that; `None` if there is none.
    pub(crate) fn take_listener(&self, handle: &Handle) -> Option<ConnectorSlot<T>> {
        match self.waiting.lock().entry(handle.clone()) {
            Entry::Occupied(entry) if entry.get().reserved.is_none() => {
                Some(ConnectorSlot(entry.remove().connector))
            }
            Entry::Occupied(_) | Entry::Vacant(_) => None,
        }
    }

    /// Returns true if there is a listener under a handle.
    pub(crate) fn has_listener(&self, handle: &Handle) -> bool {
        self.waiting.lock().get(handle).is_some_and(|listener| listener.reserved.is_none())
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

/// The registration of a listener. Dropping it frees the handle.
pub(crate) struct ListenerGuard<T> {
    registry: Arc<Registry<T>>,
    handle: Handle,
    connector: oneshot::Receiver<T>,
}

impl<T> ListenerGuard<T> {
    /// Returns the connector once it arrives, or `None` if it was lost. Must not be polled after that.
    pub(crate) fn poll_connector(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        Future::poll(std::pin::Pin::new(&mut self.connector), context).map(Result::ok)
    }

    /// Makes a reservation a listener that connectors find. Returns false if the handle was lost to another
    /// server.
    #[cfg(any(test, feature = "cluster"))]
    pub(crate) fn confirm(&mut self) -> bool {
        let mut waiting = self.registry.waiting.lock();
        // The channel of a reservation that was dropped is closed.
        let is_lost = matches!(self.connector.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        match waiting.get_mut(&self.handle) {
            Some(listener) if !is_lost => {
                listener.reserved = None;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Frees the handle. Returns the connector if one arrived before.
    pub(crate) fn leave(mut self) -> Option<T> {
        self.connector.close();
        self.connector.try_recv().ok()
    }
}

impl<T> Drop for ListenerGuard<T> {
    fn drop(&mut self) {
        self.connector.close();
        // After this listener was taken, another one may have the handle. Its channel is open, this one's is
        // closed.
        let removed = match self.registry.waiting.lock().entry(self.handle.clone()) {
            Entry::Occupied(entry) if entry.get().connector.is_closed() => Some(entry.remove()),
            Entry::Occupied(_) | Entry::Vacant(_) => None,
        };
        drop(removed);
    }
}

impl<T> fmt::Debug for ListenerGuard<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ListenerGuard").field(&self.handle).finish()
    }
}

/// The right to connect to a listener. Dropping it closes the listener.
pub(crate) struct ConnectorSlot<T>(oneshot::Sender<T>);

impl<T> ConnectorSlot<T> {
    /// Hands the connector to the listener.
    ///
    /// # Errors
    /// The listener left before; the connector is returned.
    pub(crate) fn connect(self, connector: T) -> Result<(), T> {
        self.0.send(connector)
    }
}

impl<T> fmt::Debug for ConnectorSlot<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ConnectorSlot")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn handle(text: &str) -> Handle {
        Handle::parse(text).unwrap()
    }

    fn connector(guard: &mut ListenerGuard<u8>) -> Poll<Option<u8>> {
        guard.poll_connector(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn handle_has_one_listener() {
        let registry = Arc::<Registry<u8>>::default();
        let guard = registry.listen(handle("abc")).unwrap();
        assert!(registry.listen(handle("abc")).is_none());
        assert!(registry.listen(handle("abd")).is_some());
        assert!(registry.has_listener(&handle("abc")));
        drop(guard);
        assert!(!registry.has_listener(&handle("abc")));
        assert!(registry.listen(handle("abc")).is_some());
    }

    #[test]
    fn connector_is_handed_over_and_the_handle_freed() {
        let registry = Arc::<Registry<u8>>::default();
        assert!(registry.take_listener(&handle("abc")).is_none());
        let mut first = registry.listen(handle("abc")).unwrap();
        let slot = registry.take_listener(&handle("abc")).unwrap();
        assert!(registry.take_listener(&handle("abc")).is_none());
        let second = registry.listen(handle("abc")).unwrap();
        assert_eq!(connector(&mut first), Poll::Pending);
        assert_eq!(slot.connect(7), Ok(()));
        assert_eq!(connector(&mut first), Poll::Ready(Some(7)));
        // The handle belongs to the second listener.
        drop(first);
        assert!(registry.has_listener(&handle("abc")));
        drop(second);
        assert!(registry.waiting.lock().is_empty());
    }

    #[test]
    fn reservation_is_no_listener_until_it_is_confirmed() {
        let registry = Arc::<Registry<u8>>::default();
        let mut guard = registry.reserve(handle("abc"), 5).unwrap();
        assert!(registry.listen(handle("abc")).is_none());
        assert!(!registry.has_listener(&handle("abc")) && registry.take_listener(&handle("abc")).is_none());
        assert!(guard.confirm());
        assert_eq!(registry.take_listener(&handle("abc")).unwrap().connect(7), Ok(()));
        assert_eq!(connector(&mut guard), Poll::Ready(Some(7)));
    }

    #[test]
    fn handle_is_yielded_to_a_lower_rank_only() {
        let registry = Arc::<Registry<u8>>::default();
        assert!(registry.yield_to(&handle("abc"), 9));
        let mut guard = registry.reserve(handle("abc"), 5).unwrap();
        assert!(!registry.yield_to(&handle("abc"), 6) && !registry.yield_to(&handle("abc"), 5));
        assert!(registry.yield_to(&handle("abc"), 4));
        // Another listener has the handle since.
        let mut second = registry.reserve(handle("abc"), 3).unwrap();
        assert!(!guard.confirm());
        drop(guard);
        assert!(second.confirm() && !registry.yield_to(&handle("abc"), 0));
        drop(second);
        assert!(registry.waiting.lock().is_empty());
    }

    #[test]
    fn listener_and_connector_can_miss_each_other() {
        let registry = Arc::<Registry<u8>>::default();
        let mut guard = registry.listen(handle("abc")).unwrap();
        drop(registry.take_listener(&handle("abc")).unwrap());
        assert_eq!(connector(&mut guard), Poll::Ready(None));

        let guard = registry.listen(handle("abc")).unwrap();
        let slot = registry.take_listener(&handle("abc")).unwrap();
        assert_eq!(guard.leave(), None);
        assert_eq!(slot.connect(7), Err(7));

        let guard = registry.listen(handle("abc")).unwrap();
        assert_eq!(registry.take_listener(&handle("abc")).unwrap().connect(8), Ok(()));
        assert_eq!(guard.leave(), Some(8));
    }
}
