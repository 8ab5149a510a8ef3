//! The output of a recording: lines of a transcript, each written at once, in scenarios that can be
//! replayed.
//!
//! Connections that overlap in time are one scenario, and a new one begins when none is open: a server
//! without clients keeps no state, so a scenario depends on nothing before it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use thiserror::Error;

use super::transcript::{ConnectRequest, RecordedEvent, TranscriptRecord, print_line};

use crate::output;

/// A file or folder of a recording that cannot be created.
#[derive(Debug, Error)]
#[error("cannot create {}", path.display())]
pub(crate) struct CreateError {
    path: PathBuf,
    source: io::Error,
}

impl CreateError {
    fn new(path: &Path, source: io::Error) -> Self {
        CreateError { path: path.to_owned(), source }
    }
}

/// The destination of the lines.
enum RecordingOutput {
    One(Box<dyn Write + Send>),
    /// To a file for each scenario.
    Folder(PathBuf),
}

/// The state of a recording.
struct RecorderState {
    out: RecordingOutput,
    /// The file of the scenario, if each has one.
    file: Option<File>,
    scenarios: usize,
    /// Start time of the scenario, its name, and its number of clients.
    begin: Instant,
    name: String,
    peers: usize,
    open: usize,
    /// Number of lines so far.
    lines: usize,
    /// True if the last write failed, which was reported.
    failed: bool,
}

/// A recording of many connections.
pub(crate) struct Recorder {
    version: String,
    prefix: String,
    state: Mutex<RecorderState>,
}

/// The recording of one connection. The scenario ends when the last of them is dropped.
pub(crate) struct ConnectionRecorder {
    recorder: Arc<Recorder>,
    peer: String,
}

impl Recorder {
    /// Returns a recorder to standard output, to a new file, or, if `out` is a folder, to a new file in it
    /// for each scenario. The scenarios' names begin with `prefix`; `version` is the release that the
    /// clients speak, or `any`.
    pub(crate) fn new(out: Option<&Path>, prefix: &str, version: &str) -> Result<Arc<Recorder>, CreateError> {
        let out = match out {
            None => RecordingOutput::One(Box::new(io::stdout())),
            Some(path) if path.is_dir() => RecordingOutput::Folder(path.to_owned()),
            Some(path) => {
                let file = File::create_new(path).map_err(|error| CreateError::new(path, error))?;
                RecordingOutput::One(Box::new(file))
            }
        };
        let state = RecorderState {
            out,
            file: None,
            scenarios: 0,
            begin: Instant::now(),
            name: String::new(),
            peers: 0,
            open: 0,
            lines: 0,
            failed: false,
        };
        Ok(Arc::new(Recorder {
            version: version.to_owned(),
            prefix: prefix.to_owned(),
            state: Mutex::new(state),
        }))
    }

    /// Returns the state of the recording, for its user.
    pub(crate) fn progress(&self) -> String {
        let RecorderState { scenarios, open, lines, .. } = *self.state.lock();
        let count =
            |number: usize, name: &str| format!("{number} {name}{}", if number == 1 { "" } else { "s" });
        let (clients, scenarios, lines) =
            (count(open, "client"), count(scenarios, "scenario"), count(lines, "line"));
        format!("{clients} connected; recorded: {scenarios}, {lines}")
    }

    /// Begins the recording of a client's connection.
    pub(crate) fn connection(self: &Arc<Self>, connect: ConnectRequest) -> ConnectionRecorder {
        let mut state = self.state.lock();
        if state.open == 0 {
            self.next_scenario(&mut state);
        }
        state.open += 1;
        state.peers += 1;
        let peer = format!("P{}", state.peers);
        self.write(&mut state, Some(&peer), RecordedEvent::Connect(connect));
        drop(state);
        ConnectionRecorder { recorder: Arc::clone(self), peer }
    }

    fn next_scenario(&self, state: &mut RecorderState) {
        (state.begin, state.peers) = (Instant::now(), 0);
        loop {
            state.scenarios += 1;
            state.name = format!("{}_{}", self.prefix, state.scenarios);
            let RecordingOutput::Folder(folder) = &state.out else { return };
            match File::create_new(folder.join(format!("{}.jsonl", state.name))) {
                Ok(file) => return state.file = Some(file),
                // A file of an earlier recording.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    state.file = None;
                    return state.report_failure(&error);
                }
            }
        }
    }

    fn write(&self, state: &mut RecorderState, peer: Option<&str>, event: RecordedEvent) {
        let t = u64::try_from(state.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let record = TranscriptRecord { t, peer: peer.map(str::to_owned), event };
        let written = print_line(&self.version, &state.name, &record).map_err(io::Error::other);
        let written = written.and_then(|line| {
            let out: &mut dyn Write = match (&mut state.out, &mut state.file) {
                (RecordingOutput::One(out), _) => out,
                (RecordingOutput::Folder(_), Some(file)) => file,
                // The missing file was reported.
                (RecordingOutput::Folder(_), None) => return Ok(()),
            };
            out.write_all(line.as_bytes())?;
            out.flush()
        });
        match written {
            Ok(()) => {
                state.lines += 1;
                state.failed = false;
            }
            Err(error) => state.report_failure(&error),
        }
    }
}

impl RecorderState {
    /// Reports an error once. The clients' connections go on, which did not fail.
    fn report_failure(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failed, true) {
            output::print_error(format_args!("error: cannot write the recording: {error}"));
        }
    }
}

impl ConnectionRecorder {
    /// Returns the release that the clients speak, or `any`.
    pub(crate) fn version(&self) -> &str {
        &self.recorder.version
    }

    /// Records an action or an event of the client.
    pub(crate) fn write(&self, event: RecordedEvent) {
        self.recorder.write(&mut self.recorder.state.lock(), Some(&self.peer), event);
    }

    /// Records a remark about the client.
    pub(crate) fn note(&self, remark: &str) {
        let note = RecordedEvent::Note(format!("{}: {remark}", self.peer));
        self.recorder.write(&mut self.recorder.state.lock(), None, note);
    }
}

impl Drop for ConnectionRecorder {
    fn drop(&mut self) {
        self.recorder.state.lock().open -= 1;
    }
}

/// Creates the folder that a path with a `/` at its end names, so that [`Recorder::new`] writes into it.
pub(crate) fn create_folder(path: &Path) -> Result<(), CreateError> {
    if path.as_os_str().to_string_lossy().ends_with('/') {
        fs::create_dir_all(path).map_err(|error| CreateError::new(path, error))?;
    }
    Ok(())
}
