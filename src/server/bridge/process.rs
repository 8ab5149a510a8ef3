//! The process of the bridge: started, and started again when it ends.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::config::BridgeConfig;

/// Shortest and longest time before the process is started again.
const RESTART_DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Time after which a process that ends is not treated as one that cannot run.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// Time in which the process has to end when the gateway stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A running process, which ends with the gateway.
#[derive(Debug)]
pub(super) struct BridgeProcess {
    program: OsString,
    arguments: Vec<OsString>,
    child: Option<Child>,
}

impl BridgeProcess {
    /// Returns the process that serves the addresses of a configuration, which is not started yet.
    ///
    /// # Errors
    /// The program's own path is not known.
    pub(super) fn new(config: &BridgeConfig, socket: &Path) -> io::Result<Self> {
        let mut arguments: Vec<OsString> = vec!["bridge".into(), "--socket".into(), socket.into()];
        for address in &config.listen {
            arguments.extend(["--listen".into(), address.to_string().into()]);
        }
        for address in &config.public_addresses {
            arguments.extend(["--public-address".into(), address.to_string().into()]);
        }
        Ok(BridgeProcess { program: std::env::current_exe()?.into(), arguments, child: None })
    }

    /// Keeps the process running; never returns.
    pub(super) async fn supervise(&mut self) {
        let (first, last) = RESTART_DELAYS;
        let mut delay = first;
        loop {
            let started = Instant::now();
            let end = match self.start() {
                Ok(child) => child.wait().await,
                Err(error) => Err(error),
            };
            self.child = None;
            if started.elapsed() >= STABLE_AFTER {
                delay = first;
            }
            let seconds = delay.as_secs();
            match end {
                Ok(status) => tracing::error!(%status, "the bridge ended; starting it again in {seconds} s"),
                Err(error) => tracing::error!(%error, "cannot run the bridge; trying again in {seconds} s"),
            }
            tokio::time::sleep(delay).await;
            delay = delay.saturating_mul(2).min(last);
        }
    }

    fn start(&mut self) -> io::Result<&mut Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        Ok(self.child.insert(command.spawn()?))
    }

    /// Asks the process to end, and waits for a short time until it has.
    pub(super) async fn stop(&mut self) {
        let Some(child) = &mut self.child else { return };
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        // It has ended already if this fails.
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        if asked && tokio::time::timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
            tracing::warn!("the bridge did not end in time");
        }
        self.child = None;
    }
}
