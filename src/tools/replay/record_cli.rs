//! `sigver record`: its options. The proxy and the recorder are in `replay`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::ProgressBar;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::output;
use crate::tools::dial::{Target, TrustArgs};
use crate::tools::draw_target;
use crate::tools::replay::proxy;
use crate::tools::replay::recorder::{Recorder, create_folder};

const ABOUT: &str = "\
Clients connect to this program instead of the server, with any path; every byte is forwarded unchanged. The frames of both sides are \
recorded, in the format of docs/reference/transcript-format.md, for 'sigver replay'. Conversations that overlap in time are one \
scenario; a new one begins when no client is connected. Each line is written at once: stop with Ctrl-C.

A recording holds every frame, room keys, origins and payloads included. Think before you share it.";

/// The options of `sigver record`.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct RecordArgs {
    /// The server to pass connections on to, ws://HOST:PORT or wss://HOST
    #[arg(long, value_name = "URL")]
    upstream: String,
    /// Address to listen on
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8001")]
    listen: String,
    /// A new file, or a folder (name a new one with a / at its end), which gets a file for each scenario;
    /// without it, standard output
    #[arg(long, value_name = "FILE|DIR")]
    out: Option<PathBuf>,
    /// Name of the scenarios: session_1, session_2 ...
    #[arg(long, value_name = "NAME", default_value = "session", value_parser = scenario_name)]
    name: String,
    /// The release that all clients speak, as 20.1.0; it decides where ids are in a frame, which is otherwise
    /// read off each frame (and cannot be for releases before 4)
    #[arg(long, value_name = "VERSION", default_value = "any")]
    release: String,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Time between two updates of the progress on a terminal.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Checks a scenario's name, which may become the name of a file.
fn scenario_name(name: &str) -> Result<String> {
    if name.is_empty() || name.contains(['/', '\\']) {
        bail!("a name without '/' is expected");
    }
    Ok(name.to_owned())
}

impl RecordArgs {
    /// Records until a signal ends the program.
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let target = Target::with_trust(&self.upstream, &self.trust).context("--upstream")?;
        let listener = TcpListener::bind(&self.listen).await;
        let listener = listener.with_context(|| format!("cannot listen on {}", self.listen))?;
        if let Some(out) = &self.out {
            create_folder(out)?;
        }
        let recorder = Recorder::new(self.out.as_deref(), &self.name, &self.release)?;
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        output::print_error(format_args!(
            "Recording connections from ws://{} to {target}",
            listener.local_addr()?
        ));
        let stop = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        let bar = ProgressBar::with_draw_target(None, draw_target());
        bar.enable_steady_tick(PROGRESS_INTERVAL);
        let progress = async {
            loop {
                bar.set_message(recorder.progress());
                sleep(PROGRESS_INTERVAL).await;
            }
        };
        tokio::select! {
            () = proxy::run(listener, target, Arc::clone(&recorder), stop) => {}
            () = progress => {}
        }
        bar.finish_and_clear();
        output::print_error(recorder.progress());
        Ok(ExitCode::SUCCESS)
    }
}
