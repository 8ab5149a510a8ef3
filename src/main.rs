//! The program: reads the command line, opens the port, serves until it is told to stop.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sigver::cli::{self, Outcome};
use sigver::config::{self, Config};
use sigver::protocol::detect::{DetectionTimeouts, Policy, RoomPolicy};
use sigver::server::admin::StatusService;
use sigver::server::admin::unix::AdminSocket;
use sigver::server::conn::{ConnectionLimits, Shared};
use sigver::server::fd_limit;
use sigver::server::signaller::{Signaller, SignallerOptions};
use sigver::server::telemetry::StatusQuery;
use sigver::server::{self, listener, tls};
use sigver::tools;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Time without a frame from a client after which it is sent a WebSocket ping.
const PING_AFTER: Duration = Duration::from_secs(45);

fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let mut args = args.peekable();
    if args.peek().is_some_and(tools::is_named) {
        return tools::run(std::iter::once(program).chain(args));
    }
    match cli::parse(&program, args, &environment) {
        Outcome::Print(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Outcome::Fail(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
        Outcome::UsageError(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
        Outcome::Run(config, warnings) => {
            warnings.iter().for_each(|warning| eprintln!("{warning}"));
            match run(&config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("error: {error}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

fn run(config: &Config) -> Result<()> {
    // Before there is a second thread.
    if let Err(why) = fd_limit::raise() {
        eprintln!("warning: the limit of open files stays as it is: {why}");
    }
    let filter: Targets = config.log.parse()?;
    let colours = std::io::stderr().is_terminal();
    let written = fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    tracing_subscriber::registry().with(filter).with(written).init();
    let protocols = Policy::parse(&config.protocol)?;
    let relay_only = protocols.releases.is_empty();
    let policy = Policy {
        releases: protocols.releases,
        windows: DetectionTimeouts {
            margin: config.silence_margin,
            silence: config.silence_max,
            first_frame: config.first_frame_timeout,
        },
        transcode: config.transcode,
        rooms: match &config.rooms {
            config::Rooms::Shared => RoomPolicy::Shared,
            config::Rooms::ByGeneration => RoomPolicy::Partitioned,
            config::Rooms::ByGenerationIn(keys) => RoomPolicy::partitioned_for(keys)?,
        },
    };
    let relay = SignallerOptions::new(&config.relay)?;
    let tls = config.tls.as_ref().map(tls::load).transpose()?;
    let limits = ConnectionLimits { max_pending: config.max_pending, ping_after: PING_AFTER };
    let shared = Shared::new(policy, limits, config.log_ip);
    let signaller = protocols.signaller.then(|| Signaller::new(relay, relay_only));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let listener = listener::bind(&config.host, config.port).await?;
        // Before the line that says we are here: whoever reads it may stop us at once.
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let asked = signal(SignalKind::user_defined1())?;
        let status = StatusService {
            shared: Arc::clone(&shared),
            signaller: signaller.clone(),
            address: listener.local_addr()?,
        };
        let control = open_control(config, status.address.port()).await;
        println!("{}", listener::startup_line(listener.local_addr()?));
        tracing::info!(protocols = config.protocol, tls = tls.is_some(), "serving");
        let stop = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tracing::info!("stopping");
        };
        let options = server::Options { max_message: config.max_message, transports: config.transports };
        // Among the workers, as are the connections: here, each accept would wake two threads.
        let serving = tokio::spawn(server::serve(listener, tls, options, shared, signaller, stop));
        tokio::select! {
            served = serving => served?,
            () = answer(control.as_ref(), asked, &status) => {}
        }
        Ok(())
    })
}

/// Who asks for the status can do without; the clients cannot do without the server.
async fn open_control(config: &Config, port: u16) -> Option<AdminSocket> {
    match AdminSocket::open(&config.control.places(port, &environment)).await {
        Ok(control) => control,
        Err(why) => {
            eprintln!("warning: no control socket, so that 'sigver status' does not work: {why}");
            None
        }
    }
}

/// Tells the status to whoever asks, over the control socket or by a signal, without an end.
async fn answer(control: Option<&AdminSocket>, mut asked: Signal, status: &StatusService) {
    let by_signal = async {
        while asked.recv().await.is_some() {
            let text = status.written(StatusQuery::default()).await;
            // On stderr, whatever the log is: who sends the signal wants to see it. There may be nobody to see it.
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
    };
    let by_socket = async {
        match control {
            Some(control) => control.serve(status).await,
            None => std::future::pending().await,
        }
    };
    tokio::join!(by_signal, by_socket);
}
