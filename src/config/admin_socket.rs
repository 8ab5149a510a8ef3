//! Location of the control socket. The environment is an argument.

use std::path::PathBuf;

/// Location of the control socket, on which the server can be asked for its status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AdminSocketPath {
    /// There is no control socket.
    #[default]
    Off,
    /// The file `sigver-<port>.sock` in the first of these directories where it can be created.
    InFirstOf(Vec<PathBuf>),
    /// This path.
    At(PathBuf),
}

/// Directory for sockets where there is no other.
const FALLBACK_DIR: &str = "/tmp";

/// Directory that systemd creates for a service with `RuntimeDirectory=sigver`.
const SYSTEMD_RUNTIME_DIR: &str = "/run/sigver";

impl AdminSocketPath {
    /// Returns the location that `auto` means for a server.
    pub(crate) fn auto_for_server(env: &dyn Fn(&str) -> Option<String>) -> Self {
        // systemd separates several directories of a service by colons.
        let service =
            env("RUNTIME_DIRECTORY").map(|list| list.split(':').next().unwrap_or_default().to_owned());
        Self::in_first_of([service, env("XDG_RUNTIME_DIR"), Some(FALLBACK_DIR.to_owned())])
    }

    /// Returns the location that `auto` means for a client, which may run in another environment than the
    /// server.
    pub(crate) fn auto_for_client(env: &dyn Fn(&str) -> Option<String>) -> Self {
        Self::in_first_of([
            env("XDG_RUNTIME_DIR"),
            Some(SYSTEMD_RUNTIME_DIR.to_owned()),
            Some(FALLBACK_DIR.to_owned()),
        ])
    }

    fn in_first_of<const N: usize>(dirs: [Option<String>; N]) -> Self {
        let absolute = dirs.into_iter().flatten().filter(|dir| dir.starts_with('/'));
        AdminSocketPath::InFirstOf(absolute.map(PathBuf::from).collect())
    }

    /// Returns the possible paths of the socket of the server `name`, a port or a process id, the best first.
    /// None if there is no socket.
    pub(crate) fn candidates(&self, name: &str) -> Vec<PathBuf> {
        match self {
            AdminSocketPath::Off => Vec::new(),
            AdminSocketPath::At(path) => vec![path.clone()],
            AdminSocketPath::InFirstOf(dirs) => {
                dirs.iter().map(|dir| dir.join(format!("sigver-{name}.sock"))).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse::admin_socket;

    #[test]
    fn candidates_are_in_order_of_preference() {
        let env = |name: &str| match name {
            "RUNTIME_DIRECTORY" => Some("/run/sigver:/run/more".to_owned()),
            "XDG_RUNTIME_DIR" => Some("/run/user/7".to_owned()),
            _ => None,
        };
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        let server = AdminSocketPath::auto_for_server(&env);
        assert_eq!(
            server.candidates("80"),
            paths(&["/run/sigver/sigver-80.sock", "/run/user/7/sigver-80.sock", "/tmp/sigver-80.sock"])
        );
        assert_eq!(
            AdminSocketPath::auto_for_client(&env).candidates("80"),
            paths(&["/run/user/7/sigver-80.sock", "/run/sigver/sigver-80.sock", "/tmp/sigver-80.sock"])
        );
        for empty in [None, Some(String::new())] {
            let server = AdminSocketPath::auto_for_server(&|_| empty.clone());
            assert_eq!(server.candidates("80"), paths(&["/tmp/sigver-80.sock"]));
        }
        assert_eq!(AdminSocketPath::Off.candidates("80"), paths(&[]));
        let parse = |text| admin_socket(text, &server);
        assert_eq!(parse("x.sock").unwrap().candidates("80"), paths(&["x.sock"]));
        assert_eq!(parse("off").unwrap(), AdminSocketPath::Off);
        assert_eq!(parse("auto").unwrap(), server);
        assert!(parse("").is_err());
    }
}
