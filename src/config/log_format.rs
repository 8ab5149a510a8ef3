//! The form of the lines of the log.

/// The form of the lines of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// Lines for people, on stderr.
    #[default]
    Text,
    /// One JSON object on each line of stderr.
    Json,
    /// Entries of the journal of systemd, with the fields of an event as fields of the entry. Nothing is
    /// written on stderr.
    Journald,
}
