//! An engine that fails: the error, its text with what to do, and when it is logged.

use std::time::{Duration, Instant};

use thiserror::Error;

use crate::protocol::cluster::EngineFailure;

/// Shortest time between two lines about the same cause.
const REPEAT_PAUSE: Duration = Duration::from_secs(60);
/// Shortest time between two lines about different causes.
const CHANGE_PAUSE: Duration = Duration::from_secs(5);
/// Time for which the engine has to work until it is logged that it works again.
const SETTLE_TIME: Duration = Duration::from_secs(3);
/// Longest cause, in characters: the engine may send any.
const MAX_CAUSE: usize = 300;

/// Fault of a Redis that follows another one.
const REPLICA: &str = "it is a replica: name the primary in --cluster";

/// Text between the addresses of a server of a Redis Cluster and of the one that named it.
pub(super) const NAMED_BY: &str = ", named by ";

/// Parts of the texts of causes, in lower case, and what to do. The first part that fits counts.
const HINTS: [(&[&str], &str); 17] = [
    (&["noauth"], "it wants a password: --cluster-password-file"),
    (&["wrongpass", "authenticationfailed"], "check the user in --cluster and --cluster-password-file"),
    (&["noperm"], "its user lacks a permission: see the ACL of the how-to for clusters"),
    (&["readonly"], REPLICA),
    (&["clusterdown"], "the Redis Cluster has no primary for the keys: see CLUSTER INFO there"),
    (&[" ?:"], "that server of the Redis Cluster announces no host: set cluster-announce-hostname there"),
    (&["moved:"], "another server of the Redis Cluster has the keys, and is tried"),
    (&["ask: ", "tryagain"], "the keys are on their way to another server of the Redis Cluster"),
    (&["oom:", "oom command", "out of memory"], "it has no memory left: raise its maxmemory"),
    (&["misconf"], "it refuses writes as it cannot save: give it space, or set save \"\""),
    (&["unknownissuer"], "name the certificate of its authority in the environment variable SSL_CERT_FILE"),
    (
        &["notvalidforname", "not valid for name"],
        "its certificate is for another name than that in --cluster",
    ),
    (
        &["non deterministic", "non-deterministic", "unknown command", "unknown subcommand"],
        "Redis 7 or Valkey is needed",
    ),
    (
        &[NAMED_BY],
        "is that server reachable from here at the address that it announces (cluster-announce-ip)?",
    ),
    (&["failed to lookup", "name or service not known"], "check the host in --cluster"),
    (&["connection refused"], "check host and port in --cluster, and that Redis runs and listens there"),
    (&["db index", "switch database"], "check the number of the database in --cluster"),
];

/// Redis does not answer as it should.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Redis reports an error, or cannot be reached.
    #[error("{0}")]
    Redis(#[from] redis::RedisError),
    /// One of several servers reports an error, or cannot be reached.
    #[error("{server}: {source}")]
    OneServer {
        /// Host and port, and those of the server that named it.
        server: String,
        /// Cause.
        source: redis::RedisError,
    },
    /// An answer is not one of the scripts.
    #[error("an answer that no script gives")]
    Answer,
    /// Redis would forget claims while they are used.
    #[error("Redis evicts keys: set maxmemory-policy to noeviction, or use another instance")]
    Evicts,
    /// Redis follows another one, and takes no claims.
    #[error("{REPLICA}")]
    Replica,
    /// Redis has a part of the keys only.
    #[error("it is in a Redis Cluster: name servers of that as redis+cluster://host[:port],… in --cluster")]
    Clustered,
    /// Redis is in no Redis Cluster, though it is addressed as a server of one.
    #[error("it is in no Redis Cluster: use redis:// in --cluster")]
    NotClustered,
    /// Redis is of a version whose scripts are others.
    #[error("Redis 7 or Valkey is needed, and this is Redis {0}")]
    Old(String),
}

impl EngineError {
    fn redis(&self) -> Option<&redis::RedisError> {
        match self {
            EngineError::Redis(error) | EngineError::OneServer { source: error, .. } => Some(error),
            _ => None,
        }
    }

    /// Returns the way in which a server fails that could not be connected to because of this.
    pub(super) fn failure(&self) -> EngineFailure {
        match self {
            EngineError::Redis(error) if error.is_connection_refusal() => EngineFailure::Refused,
            _ => EngineFailure::Unreachable,
        }
    }
}

impl From<redis::ParsingError> for EngineError {
    fn from(_: redis::ParsingError) -> Self {
        EngineError::Answer
    }
}

/// The state of a connection that failed.
#[derive(Clone, Copy, Debug)]
pub(super) enum EngineConnection {
    /// The engine had not answered over it.
    Opening {
        /// True for a connection with TLS.
        is_tls: bool,
    },
    /// The engine had answered: its address and its scheme are right.
    Open,
}

/// Returns a line for people: the cause, and what to do if that is known.
pub(super) fn explain(error: &EngineError, connection: EngineConnection) -> String {
    let is_timeout = error.redis().is_some_and(redis::RedisError::is_timeout);
    explain_text(&error.to_string(), is_timeout, connection)
}

fn explain_text(text: &str, is_timeout: bool, connection: EngineConnection) -> String {
    let cause: String = text
        .chars()
        .filter(|c| *c != '"')
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_CAUSE)
        .collect();
    let lower = cause.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    let hint = HINTS.iter().find(|(parts, _)| has(parts)).map(|(_, hint)| *hint);
    let hint = hint.or_else(|| {
        let EngineConnection::Opening { is_tls } = connection else { return None };
        let is_cut = has(&["reset by peer", "broken pipe", "eof", "dropped", "closed"]);
        match (is_timeout || has(&["timed out"]), is_cut, is_tls) {
            (true, _, true) | (_, true, true) => Some("does this port speak TLS?"),
            (true, _, false) => Some("is the port open in the firewalls, and does it want rediss://?"),
            (_, true, false) => Some("does this port want rediss://, or is Redis in protected mode?"),
            _ if has(&["corrupt message", "invalidcontenttype"]) => {
                Some("this port does not speak TLS: use redis://")
            }
            _ => None,
        }
    });
    let cause = cause.trim_end_matches([' ', '.']);
    hint.map_or_else(|| cause.to_owned(), |hint| format!("{cause}: {hint}"))
}

/// Returns the value of a field of the answer to `INFO`, whose name ends with a colon.
pub(super) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Checks what a server reports about itself. One of a Redis Cluster that answers for the keys is no replica.
///
/// # Errors
/// It cannot be the engine, or would forget claims.
pub(super) fn check_server(info: &str, is_of_cluster: bool) -> Result<(), EngineError> {
    let field = |name| info_field(info, name);
    let version = field("redis_version:").unwrap_or_default();
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let is_bounded = field("maxmemory:").is_some_and(|bytes| bytes != "0");
    if major.is_some_and(|major| major < 7) {
        return Err(EngineError::Old(version.chars().take(20).collect()));
    }
    match (is_of_cluster, field("cluster_enabled:")) {
        (true, Some("0")) => Err(EngineError::NotClustered),
        (false, Some("1")) => Err(EngineError::Clustered),
        (false, _) if field("role:") == Some("slave") => Err(EngineError::Replica),
        _ if is_bounded && field("maxmemory_policy:").is_some_and(|policy| policy != "noeviction") => {
            Err(EngineError::Evicts)
        }
        _ => Ok(()),
    }
}

/// A change that the log reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    /// The engine works for the first time.
    First,
    /// The engine works again.
    Again,
}

/// The last line of the log about the engine.
#[derive(Debug, Default)]
pub(super) struct EngineLog {
    has_worked: bool,
    /// Cause and time of the last line, if the engine has not worked since.
    said: Option<(String, Instant)>,
}

impl EngineLog {
    /// Takes note of a failure. Returns true if a line is due.
    pub(super) fn failed(&mut self, cause: &str, now: Instant) -> bool {
        let is_due = self.said.as_ref().is_none_or(|(said, at)| {
            let pause = if said == cause { REPEAT_PAUSE } else { CHANGE_PAUSE };
            now.saturating_duration_since(*at) >= pause
        });
        if is_due {
            self.said = Some((cause.to_owned(), now));
        }
        is_due
    }

    /// Takes note that scripts succeed, for that time without a failure. Returns the change if a line is
    /// due.
    pub(super) fn works(&mut self, time: Duration) -> Option<Recovery> {
        if !std::mem::replace(&mut self.has_worked, true) {
            self.said = None;
            return Some(Recovery::First);
        }
        (time >= SETTLE_TIME && self.said.take().is_some()).then_some(Recovery::Again)
    }
}

/// The last failure of the engine, for people.
#[derive(Debug)]
pub(super) struct LastFault {
    /// The number of the connection that failed.
    connection: u64,
    text: String,
}

impl Default for LastFault {
    fn default() -> Self {
        LastFault { connection: 0, text: "no answer yet".to_owned() }
    }
}

impl LastFault {
    /// Takes note of a failure of a connection, by its number. A request over an earlier one may time out
    /// when a later one has failed for another cause.
    pub(super) fn failed(&mut self, connection: u64, text: String) {
        if connection >= self.connection {
            *self = LastFault { connection, text };
        }
    }

    /// Returns the text of the failure.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_causes_name_what_to_do() {
        let cases = [
            ("\"NOAUTH\": Authentication required.", false, "--cluster-password-file"),
            (
                "Password authentication failed - AuthenticationFailed: WRONGPASS invalid",
                false,
                "check the user",
            ),
            ("ReadOnly: You can't write against a read only replica.", false, "name the primary"),
            ("a:1: ClusterDown: Hash slot not served", false, "has no primary"),
            ("a:1: Moved: 866 ?:7001", false, "cluster-announce-hostname"),
            ("Moved: 866 10.0.0.9:7001", false, "and is tried"),
            ("Ask: 866 10.0.0.9:7001", false, "on their way"),
            ("TryAgain: Multiple keys request during rehashing of slot", false, "on their way"),
            ("10.0.0.9:7001, named by a:1: Connection refused (os error 111)", false, "cluster-announce-ip"),
            ("10.0.0.9:7001, named by a:1: \"NOAUTH\": required", false, "--cluster-password-file"),
            ("a:1: Connection refused (os error 111)", false, "that Redis runs"),
            ("invalid peer certificate: UnknownIssuer", true, "SSL_CERT_FILE"),
            ("timed out", true, "speak TLS?"),
            ("timed out", false, "open in the firewalls"),
            ("Connection reset by peer (os error 104)", false, "protected mode?"),
            ("Broken pipe (os error 32)", false, "rediss://"),
            (
                "ResponseError: Write commands not allowed after non deterministic commands",
                false,
                "Redis 7 or",
            ),
            ("\"OOM\": command not allowed", false, "maxmemory"),
        ];
        for (text, is_tls, hint) in cases {
            let said = explain_text(text, false, EngineConnection::Opening { is_tls });
            assert!(said.contains(hint), "{said}");
            assert!(!said.contains(['"', '\n']), "{said}");
        }
        let open = EngineConnection::Open;
        assert_eq!(explain_text("a\u{1b}[31m\nb", false, open), "a [31m b");
        assert!(explain_text(&"x".repeat(10_000), false, open).len() <= MAX_CAUSE);
        assert!(explain(&EngineError::Answer, open).contains("no script"));
    }

    #[test]
    fn address_of_an_engine_that_has_answered_is_not_doubted() {
        for text in ["Connection reset by peer (os error 104)", "Broken pipe (os error 32)", "timed out"] {
            assert_eq!(explain_text(text, false, EngineConnection::Open), text);
        }
        let said = explain_text("ReadOnly: a read only replica", false, EngineConnection::Open);
        assert!(said.contains("name the primary"), "{said}");
    }

    #[test]
    fn servers_that_cannot_be_the_engine_are_refused() {
        let check = |line: &str, is_of_cluster| {
            check_server(&format!("# Server\r\n{line}\r\nrole:master\r\n"), is_of_cluster)
        };
        let server = |line: &str| check(line, false);
        assert!(server("redis_version:7.2.4").is_ok());
        assert!(server("maxmemory:0\r\nmaxmemory_policy:allkeys-lru").is_ok());
        assert!(
            matches!(server("redis_version:6.2.14"), Err(EngineError::Old(version)) if version == "6.2.14")
        );
        assert!(matches!(server("cluster_enabled:1"), Err(EngineError::Clustered)));
        assert!(check("cluster_enabled:1", true).is_ok());
        assert!(matches!(check("cluster_enabled:0", true), Err(EngineError::NotClustered)));
        assert!(matches!(server("role:slave"), Err(EngineError::Replica)));
        let bounded = server("maxmemory:100\r\nmaxmemory_policy:allkeys-lru");
        assert!(matches!(bounded, Err(EngineError::Evicts)));
    }

    #[test]
    fn engine_that_refuses_is_reported_once_and_never_as_working() {
        let (mut log, start) = (EngineLog::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert!(log.failed("one", at(0)));
        for step in 1..290 {
            assert!(!log.failed("one", at(200 * step)));
        }
        assert!(log.failed("one", at(60_000)));
        // Causes that alternate are no flood.
        let lines =
            (0..50).filter(|step| log.failed(["two", "one"][step % 2], at(60_000 + 200 * *step as u64)));
        assert!(lines.count() <= 2);
    }

    #[test]
    fn engine_works_again_once_it_has_for_some_seconds() {
        let (mut log, start) = (EngineLog::default(), Instant::now());
        assert!(log.failed("one", start));
        assert_eq!(log.works(Duration::ZERO), Some(Recovery::First));
        assert_eq!(log.works(SETTLE_TIME), None);
        assert!(log.failed("one", start));
        assert_eq!(log.works(Duration::ZERO), None);
        assert!(!log.failed("one", start));
        assert_eq!(log.works(SETTLE_TIME), Some(Recovery::Again));
        assert_eq!(log.works(SETTLE_TIME), None);
    }

    #[test]
    fn late_failure_of_an_earlier_connection_does_not_replace_that_of_a_later_one() {
        let mut fault = LastFault::default();
        assert_eq!(fault.text(), "no answer yet");
        for (connection, text, shown) in
            [(1, "timed out", "timed out"), (2, "a replica", "a replica"), (1, "timed out", "a replica")]
        {
            fault.failed(connection, text.to_owned());
            assert_eq!(fault.text(), shown);
        }
        fault.failed(2, "refused".to_owned());
        assert_eq!(fault.text(), "refused");
    }
}
