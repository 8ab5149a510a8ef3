//! The program as a process of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::soon;
use super::ws::Ws;

/// Arguments of a server on a port of its own.
pub const SERVE: [&str; 6] = ["-h", "127.0.0.1", "-p", "0", "--control", "off"];

/// Returns the program with these arguments.
pub fn sigver(args: &[&str]) -> Command {
    called(Path::new(env!("CARGO_BIN_EXE_sigver")), args)
}

/// Returns the program under another name.
pub fn called(name: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(name);
    // The environment of the tests must not configure the program.
    let meant = |name: &str| !name.starts_with("SIGVER_") && !["NODE_IP", "NODE_PORT"].contains(&name);
    for (name, _) in std::env::vars().filter(|(name, _)| !meant(name)) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Returns the program with these arguments, in a shell that sets this limit of open files before.
pub fn with_open_files(ulimit: &str, args: &[&str]) -> Command {
    let script = format!(r#"ulimit {ulimit}; exec "$0" "$@""#);
    called(Path::new("sh"), &[&["-c", &script, env!("CARGO_BIN_EXE_sigver")], args].concat())
}

/// Runs the program to its end. Returns the exit code, stdout and stderr.
pub async fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = soon("the end of the process", sigver(args).output()).await.unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// A process that serves.
pub struct Served {
    pub process: Child,
    pub stdout: BufReader<ChildStdout>,
    pub stderr: BufReader<ChildStderr>,
    /// The start-up line.
    pub line: String,
}

impl Served {
    pub async fn start(args: &[&str]) -> Served {
        Served::spawn(sigver(args)).await
    }

    pub async fn spawn(mut command: Command) -> Served {
        let mut process = command.spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        soon("the line", stdout.read_line(&mut line)).await.unwrap();
        if line.is_empty() {
            let mut why = String::new();
            stderr.read_to_string(&mut why).await.unwrap();
            panic!("it does not serve: {why}");
        }
        Served { process, stdout, stderr, line: line.trim_end().to_owned() }
    }

    pub fn port(&self) -> u16 {
        self.line.rsplit(':').next().unwrap().parse().unwrap()
    }

    pub async fn tcp(&self) -> TcpStream {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port()));
        soon("a connection", TcpStream::connect(address)).await.unwrap()
    }

    pub async fn ws(&self, path: &str) -> Ws<TcpStream> {
        Ws::open(self.tcp().await, path).await
    }

    pub async fn signal(&self, name: &str) {
        let id = self.process.id().unwrap().to_string();
        let command = format!("kill -{name} {id}");
        let sent = Command::new("sh").args(["-c", &command]).status().await.unwrap();
        assert!(sent.success());
    }

    /// Waits for the end. Returns the status, the rest of stdout, and stderr.
    pub async fn end(mut self) -> (ExitStatus, String, String) {
        let status = soon("the end of the process", self.process.wait()).await.unwrap();
        let (mut rest, mut errors) = (String::new(), String::new());
        soon("stdout", self.stdout.read_to_string(&mut rest)).await.unwrap();
        soon("stderr", self.stderr.read_to_string(&mut errors)).await.unwrap();
        (status, rest, errors)
    }
}

/// Reads the log up to a line with this text, and returns the line.
pub async fn log_line(log: &mut BufReader<ChildStderr>, text: &str) -> String {
    let find = async {
        loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).await.unwrap(), 0, "the log ended");
            if line.contains(text) {
                return line;
            }
        }
    };
    soon("a line of the log", find).await
}
