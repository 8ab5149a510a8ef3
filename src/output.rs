//! Standard output and standard error of the program, either of which may be closed, full, or not read.
//! The macros of the standard library panic then.

use std::fmt::Display;
use std::io::{self, Write as _};

use thiserror::Error;

/// Failure to write on stdout.
#[derive(Debug, Error)]
#[error("cannot write the output: {0}")]
pub struct StdoutError(#[from] io::Error);

impl StdoutError {
    /// Returns true if the reader of a pipe has closed it, which needs no message: `sigver dialects | head`.
    pub fn is_closed_pipe(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Writes text on stdout.
///
/// # Errors
/// The text was not written as a whole.
pub fn print(text: &str) -> Result<(), StdoutError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Writes a line on stderr. It is lost if stderr is closed or full: there is no other place for it.
pub fn print_error(line: impl Display) {
    // One write, so that lines of several processes do not mix.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
