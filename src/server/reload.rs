//! New settings for a running gateway.

use std::sync::Arc;

use parking_lot::Mutex;

use super::gateway::StartError;
use super::tls::ReloadableTls;
use crate::config::Config;

/// Access to the settings of a running gateway.
#[derive(Clone, Debug)]
pub struct Reloader {
    tls: Option<Arc<ReloadableTls>>,
    /// The settings in force, but for those that took no effect.
    current: Arc<Mutex<Config>>,
}

impl Reloader {
    pub(super) fn new(config: Config, tls: Option<Arc<ReloadableTls>>) -> Self {
        Reloader { tls, current: Arc::new(Mutex::new(config)) }
    }

    /// Puts the settings in force that a running gateway can change: the files for TLS, which are read again
    /// also if the settings are the same, and the log filter, which the program applies. Blocks while it
    /// reads the files.
    ///
    /// Returns true if other settings differ from those in force: these take a restart.
    ///
    /// # Errors
    /// The configuration is contradictory, or the files for TLS are invalid. Everything stays as it was.
    pub fn reload(&self, config: &Config) -> Result<bool, StartError> {
        config.check()?;
        let mut current = self.current.lock();
        if let (Some(tls), Some(files)) = (&self.tls, &config.tls) {
            tls.reload(files)?;
            current.tls = Some(files.clone());
        }
        current.log = config.log.clone();
        Ok(*current != *config)
    }
}
