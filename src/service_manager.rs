//! Notifications to the service manager (`Type=notify` of systemd). Without one, they do nothing.

use sd_notify::NotifyState;

/// Reports that the program listens, and starts the watchdog's notifications if the unit has `WatchdogSec=`.
pub(crate) fn notify_ready() {
    notify(&[NotifyState::Ready]);
    if let Some(timeout) = sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero()) {
        // A task of the runtime, so that they end with a runtime that runs no tasks any more.
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(timeout / 2);
            loop {
                interval.tick().await;
                notify(&[NotifyState::Watchdog]);
            }
        });
    }
}

/// Reports that a reload begins. [`notify_reloaded`] has to follow.
pub(crate) fn notify_reloading() {
    // systemd distinguishes reloads by their time.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no clock for the service manager"),
    }
}

/// Reports that the reload is over, whether or not anything changed.
pub(crate) fn notify_reloaded() {
    notify(&[NotifyState::Ready]);
}

/// Reports that the drain has begun.
pub(crate) fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager was not notified");
    }
}
