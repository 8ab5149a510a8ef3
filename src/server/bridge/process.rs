//! The process of the bridge: started, and started again when it ends.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::Instant;

use crate::config::Config;

/// Shortest and longest time before the process is started again.
const RESTART_DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Time after which a process that ends is not treated as one that cannot run.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// Time in which the process has to end when the gateway stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// A running process, which ends with the gateway.
#[derive(Debug)]
pub(super) struct BridgeProcess {
    program: OsString,
    arguments: Vec<OsString>,
    child: Option<Child>,
    /// The pipe whose end tells the process that the gateway is no more.
    stdin: Option<ChildStdin>,
}

impl BridgeProcess {
    /// Returns the process that serves the addresses of a configuration, which is not started yet.
    ///
    /// # Errors
    /// The program's own path is not known.
    pub(super) fn new(config: &Config, socket: &Path) -> io::Result<Self> {
        let mut arguments: Vec<OsString> = ["bridge", "--supervised", "--socket"].map(Into::into).into();
        arguments.push(socket.into());
        let format: &'static str = config.log_format.into();
        arguments.extend(["--log".into(), config.log.to_string().into()]);
        arguments.extend(["--log-format".into(), format.into()]);
        for address in &config.bridge.listen {
            arguments.extend(["--listen".into(), address.to_string().into()]);
        }
        for address in &config.bridge.public_addresses {
            arguments.extend(["--public-address".into(), address.to_string().into()]);
        }
        Ok(BridgeProcess { program: std::env::current_exe()?.into(), arguments, child: None, stdin: None })
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
        // The service manager is notified by the gateway alone.
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"] {
            command.env_remove(name);
        }
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
        let child = self.child.insert(command.spawn()?);
        // Waiting for the process would close it.
        self.stdin = child.stdin.take();
        Ok(child)
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn process_is_started_again_and_ends_with_the_gateway() {
        let file = std::env::temp_dir().join(format!("sigver-bridge-process-{}", std::process::id()));
        let _ = fs::remove_file(&file);
        // The first one fails; the second waits until it is asked to end.
        let script = format!(
            "trap 'echo ended >> {0}; exit 0' TERM; echo started >> {0}; \
             test $(wc -l < {0}) -gt 1 || exit 1; while :; do sleep 0.05; done",
            file.display()
        );
        let arguments = vec!["-c".into(), script.into()];
        let mut process = BridgeProcess { program: "sh".into(), arguments, child: None, stdin: None };
        let lines = || fs::read_to_string(&file).unwrap_or_default().lines().count();
        let restarted = async {
            while lines() < 2 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let began = Instant::now();
        tokio::select! {
            () = process.supervise() => {}
            result = tokio::time::timeout(Duration::from_secs(20), restarted) => result.unwrap(),
        }
        assert!(began.elapsed() >= RESTART_DELAYS.0);
        process.stop().await;
        assert_eq!(fs::read_to_string(&file).unwrap(), "started\nstarted\nended\n");
        assert!(process.child.is_none());
        fs::remove_file(&file).unwrap();
    }
}
