//! Where a recording goes: lines of a transcript, each written at once, in scenarios that can be replayed.
//!
//! Connections that overlap in time are one scenario, and a new one begins when none is open: a server that everybody
//! left has forgotten them, so a scenario needs nothing of what was before it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use parking_lot::Mutex;

use super::transcript::{Connect, Event, Record, print_line};

/// Where the lines go.
enum Out {
    One(Box<dyn Write + Send>),
    /// To a file for each scenario.
    Folder(PathBuf),
}

/// What is being recorded.
struct RecorderState {
    out: Out,
    /// The file of the scenario, if each has one.
    file: Option<File>,
    scenarios: usize,
    /// When the scenario began, its name, and how many clients it has had.
    begin: Instant,
    name: String,
    peers: usize,
    open: usize,
    /// What went wrong when something was last written, if it is not yet told.
    failed: bool,
}

/// A recording of many connections.
pub struct Recorder {
    version: String,
    prefix: String,
    reel: Mutex<RecorderState>,
}

/// The recording of one connection. With the last there is, a scenario ends.
pub struct ConnectionRecorder {
    tape: Arc<Recorder>,
    peer: String,
}

impl Recorder {
    /// Records to standard output, to a new file, or, if `out` is a folder, to a new file in it for each scenario. The
    /// scenarios' names begin with `prefix`; `version` is the release that the clients speak, or `any`.
    ///
    /// # Errors
    ///
    /// When there is such a file already, or none can be made.
    pub fn new(out: Option<&Path>, prefix: &str, version: &str) -> Result<Arc<Recorder>> {
        let out = match out {
            None => Out::One(Box::new(io::stdout())),
            Some(path) if path.is_dir() => Out::Folder(path.to_owned()),
            Some(path) => {
                let file =
                    File::create_new(path).with_context(|| format!("cannot create {}", path.display()));
                Out::One(Box::new(file?))
            }
        };
        let reel = RecorderState {
            out,
            file: None,
            scenarios: 0,
            begin: Instant::now(),
            name: String::new(),
            peers: 0,
            open: 0,
            failed: false,
        };
        Ok(Arc::new(Recorder {
            version: version.to_owned(),
            prefix: prefix.to_owned(),
            reel: Mutex::new(reel),
        }))
    }

    /// A client connects.
    pub fn track(self: &Arc<Self>, connect: Connect) -> ConnectionRecorder {
        let mut reel = self.reel.lock();
        if reel.open == 0 {
            self.next_scenario(&mut reel);
        }
        reel.open += 1;
        reel.peers += 1;
        let peer = format!("P{}", reel.peers);
        self.write(&mut reel, Some(&peer), Event::Connect(connect));
        drop(reel);
        ConnectionRecorder { tape: Arc::clone(self), peer }
    }

    fn next_scenario(&self, reel: &mut RecorderState) {
        (reel.begin, reel.peers) = (Instant::now(), 0);
        loop {
            reel.scenarios += 1;
            reel.name = format!("{}_{}", self.prefix, reel.scenarios);
            let Out::Folder(folder) = &reel.out else { return };
            match File::create_new(folder.join(format!("{}.jsonl", reel.name))) {
                Ok(file) => return reel.file = Some(file),
                // Of an earlier recording.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    reel.file = None;
                    return reel.complain(&error);
                }
            }
        }
    }

    fn write(&self, reel: &mut RecorderState, peer: Option<&str>, event: Event) {
        let t = u64::try_from(reel.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let record = Record { t, peer: peer.map(str::to_owned), event };
        let written = print_line(&self.version, &reel.name, &record).map_err(io::Error::other);
        let written = written.and_then(|line| {
            let out: &mut dyn Write = match (&mut reel.out, &mut reel.file) {
                (Out::One(out), _) => out,
                (Out::Folder(_), Some(file)) => file,
                // That there is no file was told.
                (Out::Folder(_), None) => return Ok(()),
            };
            out.write_all(line.as_bytes())?;
            out.flush()
        });
        match written {
            Ok(()) => reel.failed = false,
            Err(error) => reel.complain(&error),
        }
    }
}

impl RecorderState {
    /// The clients go on as if nothing were: they are not what fails.
    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failed, true) {
            eprintln!("error: cannot write the recording: {error}");
        }
    }
}

impl ConnectionRecorder {
    /// Something that the client did or saw.
    pub fn write(&self, event: Event) {
        self.tape.write(&mut self.tape.reel.lock(), Some(&self.peer), event);
    }

    /// A remark about the client.
    pub fn note(&self, remark: &str) {
        let note = Event::Note(format!("{}: {remark}", self.peer));
        self.tape.write(&mut self.tape.reel.lock(), None, note);
    }
}

impl Drop for ConnectionRecorder {
    fn drop(&mut self) {
        self.tape.reel.lock().open -= 1;
    }
}

/// Makes the folder that a path names by a `/` at its end, so that [`Recorder::new`] takes it for one.
///
/// # Errors
///
/// When it cannot be made.
pub fn make_folder(path: &Path) -> Result<()> {
    if path.as_os_str().to_string_lossy().ends_with('/') {
        fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    Ok(())
}
