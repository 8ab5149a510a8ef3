//! Where the control socket is: what the operator says, and where it is looked for if nothing is said. Pure: the
//! environment comes as an argument.

use std::path::{Path, PathBuf};

/// Where the server can be asked for its status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AdminSocketPath {
    /// In the first folder of [`AdminSocketPath::places`] where it can be.
    #[default]
    Auto,
    /// Nowhere.
    Off,
    /// At this path.
    At(PathBuf),
}

/// Where there is no folder for such things.
const LAST_RESORT: &str = "/tmp";

/// Where systemd makes the folder of a service that has `RuntimeDirectory=sigver`.
const OF_A_SERVICE: &str = "/run/sigver";

impl AdminSocketPath {
    /// The paths that a server on `port` tries, the best first. None if it is off.
    pub fn places(&self, port: u16, env: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
        // systemd names the folders of a service, with colons between them.
        let service =
            env("RUNTIME_DIRECTORY").map(|list| list.split(':').next().unwrap_or_default().to_owned());
        self.named(port, [service, env("XDG_RUNTIME_DIR"), Some(LAST_RESORT.to_owned())])
    }

    /// The paths where somebody who looks for the server on `port` finds it.
    pub fn wanted(&self, port: u16, env: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
        let folders = [env("XDG_RUNTIME_DIR"), Some(OF_A_SERVICE.to_owned()), Some(LAST_RESORT.to_owned())];
        self.named(port, folders)
    }

    fn named<const N: usize>(&self, port: u16, folders: [Option<String>; N]) -> Vec<PathBuf> {
        match self {
            AdminSocketPath::Off => Vec::new(),
            AdminSocketPath::At(path) => vec![path.clone()],
            AdminSocketPath::Auto => {
                let folders = folders.into_iter().flatten().filter(|folder| folder.starts_with('/'));
                folders.map(|folder| Path::new(&folder).join(format!("sigver-{port}.sock"))).collect()
            }
        }
    }
}

/// Reads where the control socket is to be.
///
/// # Errors
///
/// Says what there is to say when nothing is said.
pub fn control(text: &str) -> Result<AdminSocketPath, String> {
    match text {
        "" => Err("It is auto, off, or the path of a socket.".to_owned()),
        "auto" => Ok(AdminSocketPath::Auto),
        "off" => Ok(AdminSocketPath::Off),
        path => Ok(AdminSocketPath::At(path.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_place_comes_first() {
        let env = |name: &str| match name {
            "RUNTIME_DIRECTORY" => Some("/run/sigver:/run/more".to_owned()),
            "XDG_RUNTIME_DIR" => Some("/run/user/7".to_owned()),
            _ => None,
        };
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(
            AdminSocketPath::Auto.places(80, &env),
            paths(&["/run/sigver/sigver-80.sock", "/run/user/7/sigver-80.sock", "/tmp/sigver-80.sock"])
        );
        assert_eq!(
            AdminSocketPath::Auto.wanted(80, &env),
            paths(&["/run/user/7/sigver-80.sock", "/run/sigver/sigver-80.sock", "/tmp/sigver-80.sock"])
        );
        assert_eq!(
            AdminSocketPath::Auto.places(80, &|_| Some(String::new())),
            paths(&["/tmp/sigver-80.sock"])
        );
        assert_eq!(AdminSocketPath::Auto.places(80, &|_| None), paths(&["/tmp/sigver-80.sock"]));
        assert_eq!(AdminSocketPath::Off.places(80, &env), paths(&[]));
        assert_eq!(control("x.sock").unwrap().places(80, &env), paths(&["x.sock"]));
        assert_eq!((control("off"), control("auto")), (Ok(AdminSocketPath::Off), Ok(AdminSocketPath::Auto)));
        assert!(control("").is_err());
    }
}
