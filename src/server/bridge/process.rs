//! The process of the bridge: started, and started again when it ends.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::Instant;

use super::link::BridgeLink;
use crate::config::Config;
use crate::server::conn::Shutdown;

/// Shortest and longest time before the process is started again.
const RESTART_DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Time after which a process that ends is not treated as one that cannot run.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// Time in which the process has to end when the gateway stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// Time within which a process has to be connected, unless another bridge is.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Time between two looks if a bridge is connected.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// A running process, which ends with the gateway.
#[derive(Debug)]
pub(super) struct BridgeProcess {
    program: OsString,
    arguments: Vec<OsString>,
    connect_timeout: Duration,
    child: Option<Child>,
    /// The pipe whose end shows the process that the gateway has ended.
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
        for (name, value) in config.bridge.limits.arguments() {
            arguments.extend([name.into(), value.to_string().into()]);
        }
        let (program, connect_timeout) = (std::env::current_exe()?.into(), CONNECT_TIMEOUT);
        Ok(BridgeProcess { program, arguments, connect_timeout, child: None, stdin: None })
    }

    /// Keeps the process running until the connections of a server close, and has it end then.
    pub(super) async fn run(&mut self, link: &BridgeLink, shutdown: &Shutdown) {
        tokio::select! {
            () = self.supervise(link, shutdown) => {}
            () = shutdown.closing() => {}
        }
        self.stop().await;
    }

    /// Keeps the process running, also if it hangs. Returns if it ends during the drain: then a signal to the
    /// server was very likely one to both, and clients would only meet a new bridge to lose it again.
    async fn supervise(&mut self, link: &BridgeLink, shutdown: &Shutdown) {
        let (first, last) = RESTART_DELAYS;
        let connect_timeout = self.connect_timeout;
        let mut delay = first;
        loop {
            let started = Instant::now();
            let end = match self.start() {
                Ok(child) => {
                    let process = child.id();
                    tokio::select! {
                        end = child.wait() => end,
                        () = hangs(process, connect_timeout, link) => {
                            tracing::error!("the bridge hangs: killing it");
                            child.kill().await.and(child.wait().await)
                        }
                    }
                }
                Err(error) => Err(error),
            };
            self.child = None;
            if started.elapsed() >= STABLE_AFTER {
                delay = first;
            }
            if shutdown.is_draining() {
                return;
            }
            let seconds = delay.as_secs();
            match end {
                Ok(status) => tracing::error!(%status, "the bridge ended; starting it again in {seconds} s"),
                Err(error) => tracing::error!(%error, "cannot run the bridge; trying again in {seconds} s"),
            }
            tokio::time::sleep(delay).await;
            if shutdown.is_draining() {
                return;
            }
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
        // Ctrl-C in a terminal is for the gateway alone, which drains first.
        command.process_group(0);
        let child = self.child.insert(command.spawn()?);
        // Waiting for the process would close it.
        self.stdin = child.stdin.take();
        Ok(child)
    }

    /// Asks the process to end, and waits for a short time until it has.
    async fn stop(&mut self) {
        let Some(child) = &mut self.child else { return };
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        // It has ended already if this fails.
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        if asked && tokio::time::timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
            tracing::warn!("the bridge did not end in time: killing it");
        }
        self.child = None;
    }
}

/// Waits until a process was disconnected because it hangs, or no bridge was connected for some time.
async fn hangs(process: Option<u32>, connect_timeout: Duration, link: &BridgeLink) {
    let missing = async {
        let mut time = Duration::ZERO;
        while time < connect_timeout {
            tokio::time::sleep(LOOK_INTERVAL).await;
            // Looks are counted: this process can be stopped.
            time =
                if link.reported().is_some() { Duration::ZERO } else { time.saturating_add(LOOK_INTERVAL) };
        }
    };
    tokio::select! {
        () = link.hung.is(process.unwrap_or_default()) => {}
        () = missing => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::protocol::detect::{Policy, ProtocolSet};
    use crate::server::telemetry::Telemetry;

    #[test]
    fn limits_of_the_gateway_are_those_of_the_process() {
        let mut config = Config::default();
        config.bridge.limits.max_members = 3;
        let process = BridgeProcess::new(&config, Path::new("bridge.sock")).unwrap();
        let value = |name: &str| {
            let at = process.arguments.iter().position(|argument| argument == name)?;
            process.arguments.get(at + 1)?.to_str()
        };
        assert_eq!((value("--max-members"), value("--max-connections")), (Some("3"), Some("2000")));
    }

    /// Runs a process that is a script, until `steps` have stopped it. Returns the lines that the script
    /// appended to its file.
    async fn run(
        name: &str,
        script: &str,
        connect_timeout: Duration,
        steps: impl AsyncFnOnce(&Path, &BridgeLink, &Shutdown),
    ) -> String {
        let file = std::env::temp_dir().join(format!("sigver-bridge-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&file);
        let arguments = vec!["-c".into(), script.into(), (&file).into()];
        let mut process =
            BridgeProcess { program: "sh".into(), arguments, connect_timeout, child: None, stdin: None };
        let policy = Policy::new(ProtocolSet::default().releases);
        let link = BridgeLink::new(&Arc::new(policy), &Telemetry::new());
        let shutdown = Shutdown::default();
        let ends = async { tokio::join!(process.run(&link, &shutdown), steps(&file, &link, &shutdown)) };
        tokio::time::timeout(Duration::from_secs(60), ends).await.unwrap();
        assert!(process.child.is_none());
        let lines = fs::read_to_string(&file).unwrap();
        fs::remove_file(&file).unwrap();
        lines
    }

    async fn wait_for_lines(file: &Path, count: usize) {
        while fs::read_to_string(file).unwrap_or_default().lines().count() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn process_is_started_again_and_ends_with_the_gateway() {
        // The first one fails; the second waits until it is asked to end.
        let script = "trap 'echo ended >> $0; exit 0' TERM; echo started >> $0; \
                      test $(wc -l < $0) -gt 1 || exit 1; while :; do sleep 0.05; done";
        let began = Instant::now();
        let steps = async |file: &Path, _: &BridgeLink, shutdown: &Shutdown| {
            wait_for_lines(file, 2).await;
            assert!(began.elapsed() >= RESTART_DELAYS.0);
            shutdown.begin_closing();
        };
        assert_eq!(run("ends", script, CONNECT_TIMEOUT, steps).await, "started\nstarted\nended\n");
    }

    #[tokio::test]
    async fn process_that_hangs_is_killed_and_started_again() {
        let steps = async |file: &Path, link: &BridgeLink, shutdown: &Shutdown| {
            wait_for_lines(file, 1).await;
            link.hung.report(Some(std::process::id()));
            tokio::time::sleep(2 * RESTART_DELAYS.0).await;
            let started = fs::read_to_string(file).unwrap();
            assert_eq!(started.lines().count(), 1, "another bridge hangs");
            link.hung.report(Some(started.trim().parse().unwrap()));
            wait_for_lines(file, 2).await;
            shutdown.begin_closing();
        };
        let ids = run("hangs", "echo $$ >> $0; exec sleep 60", CONNECT_TIMEOUT, steps).await;
        assert_eq!(ids.lines().count(), 2);
    }

    #[tokio::test]
    async fn process_that_does_not_connect_is_killed_and_started_again() {
        let steps = async |file: &Path, _: &BridgeLink, shutdown: &Shutdown| {
            wait_for_lines(file, 2).await;
            shutdown.begin_closing();
        };
        let script = "echo started >> $0; exec sleep 60";
        assert_eq!(run("missing", script, Duration::from_secs(1), steps).await, "started\nstarted\n");
    }

    #[tokio::test]
    async fn process_that_ends_during_the_drain_is_not_started_again() {
        let steps = async |file: &Path, _: &BridgeLink, shutdown: &Shutdown| {
            wait_for_lines(file, 1).await;
            shutdown.begin_draining(Duration::from_secs(60));
        };
        let script = "echo started >> $0; sleep 0.3; exit 1";
        assert_eq!(run("drain", script, CONNECT_TIMEOUT, steps).await, "started\n");
    }
}
