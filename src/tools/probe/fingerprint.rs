//! The behaviour of each release towards a client that sends little, as measured on the Node.js servers. No
//! sockets.

use std::fmt;
use std::time::Instant;

use crate::protocol::dialect::{
    Candidates, Family, Output, Release, Session, SessionOptions, UpgradeRequest,
};
use crate::protocol::frame::{Close, Message, Outgoing};
use crate::tools::dial::{ConnectError, error_chain};

/// An observation of a server's behaviour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Observation {
    /// Status and body of the answer to a `GET` without an upgrade; `None` if there is no answer.
    Http(Option<(u16, String)>),
    /// First frames to a silent client with a key in its path.
    Silent(FirstFrames),
    /// Close of a silent client without a key in its path.
    EmptyPath(Option<(u16, String)>),
    /// Close of a client that sent `{}`.
    EmptyObject(Option<(u16, String)>),
    /// Close code of a client that opened an empty key.
    EmptyKey(Option<u16>),
    /// True if a joiner is pinged before it has sent anything.
    SecondPinged(bool),
    /// True if a favored member is preferred to an older one.
    Favored(bool),
    /// Close code of a client that never answers, and after how many seconds it was closed.
    HeartbeatTimeout(Option<(u16, u64)>),
    /// The server, or a proxy in front of it, refused the connection with this HTTP status.
    Refused(u16),
    /// There was no connection, or the server's reaction cannot be used.
    Failed(String),
}

/// The first frames to a silent client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstFrames {
    /// No frame.
    None,
    /// `{"ping":true}`.
    JsonPing,
    /// `isFirst`.
    IsFirst,
    /// `isFirst`, and a ping.
    IsFirstAndPing,
    /// `isFirst`, and a ping in the field of sigver 15.0.0.
    IsFirstAndPing15_0_0,
    /// Frames that no Node.js server sends.
    Other,
}

/// Returns the releases that behave like this.
pub(crate) fn matching_releases(observation: &Observation) -> Vec<Release> {
    Release::ALL.into_iter().filter(|release| matches_release(observation, *release)).collect()
}

fn matches_release(observation: &Observation, release: Release) -> bool {
    match observation {
        Observation::Http(answer) => answer.as_ref().map(|(status, _)| *status) == http_status(release),
        Observation::Silent(first) => *first == first_frames(release),
        Observation::EmptyPath(closed) => *closed == close_of_empty_path(release),
        Observation::EmptyObject(closed) => *closed == close_of_empty_object(release),
        Observation::EmptyKey(closed) => *closed == (release == Release::V10_1_0).then_some(4001),
        Observation::SecondPinged(pinged) => *pinged == (release <= Release::V15_0_2),
        Observation::Favored(preferred) => *preferred == (release >= Release::V19_1_2),
        Observation::HeartbeatTimeout(closed) => {
            let expected = heartbeat_timeout(release);
            match (closed, expected) {
                (None, None) => true,
                (Some((code, after)), Some((expected, seconds))) => {
                    *code == expected && after.abs_diff(seconds) <= u64::from(seconds > 10)
                }
                _ => false,
            }
        }
        Observation::Refused(_) | Observation::Failed(_) => false,
    }
}

fn http_status(release: Release) -> Option<u16> {
    if release <= Release::V7_6_4 {
        Some(426)
    } else if release <= Release::V11_0_0 {
        Some(200)
    } else {
        None
    }
}

/// Returns the first frames to a silent client: JSON releases ping every client or none.
fn first_frames(release: Release) -> FirstFrames {
    match release.family() {
        Family::Json if release.has_keepalive_of_joiners() => FirstFrames::JsonPing,
        Family::ProtobufV1 if release.has_protobuf_pong() => FirstFrames::IsFirstAndPing,
        Family::ProtobufV1 if release.pings() => FirstFrames::IsFirstAndPing15_0_0,
        Family::ProtobufV1 => FirstFrames::IsFirst,
        Family::Json | Family::ProtobufV2 => FirstFrames::None,
    }
}

fn close_of_empty_path(release: Release) -> Option<(u16, String)> {
    let upgrade = UpgradeRequest { path: "/".to_owned(), favored: false, from_page: true };
    code_and_reason(Session::key_error(&upgrade, release)?)
}

fn close_of_empty_object(release: Release) -> Option<(u16, String)> {
    let upgrade = UpgradeRequest { path: "/k".to_owned(), favored: false, from_page: true };
    let candidates = Candidates::new([release].into_iter().collect());
    let mut outputs: Vec<Output> = Vec::new();
    let options = SessionOptions { transcode: false, pinned: true };
    Session::new(&upgrade, candidates, options, Instant::now()).decode(Message::text("{}"), &mut outputs);
    outputs.into_iter().find_map(|output| match output {
        Output::Send(Outgoing::Close(close)) => code_and_reason(close),
        _ => None,
    })
}

fn code_and_reason(close: Close) -> Option<(u16, String)> {
    Some((close.code?, close.reason.into_owned()))
}

fn heartbeat_timeout(release: Release) -> Option<(u16, u64)> {
    if release >= Release::V19_0_0 {
        Some((4742, 15))
    } else if release == Release::V18_0_0 {
        Some((4002, 15))
    } else if matches!(release, Release::V15_0_4 | Release::V15_1_0) {
        Some((4002, 5))
    } else {
        (release == Release::V15_0_2).then_some((4002, 4))
    }
}

impl Observation {
    /// Returns the observation that there is no connection.
    pub(crate) fn without_connection(error: &ConnectError) -> Observation {
        match error.refusal() {
            Some(status) => Observation::Refused(status),
            None => Observation::Failed(error_chain(error)),
        }
    }

    /// Returns the HTTP status of a refusal that shows nothing about what the server speaks.
    pub(crate) fn refusal(&self) -> Option<u16> {
        match self {
            Observation::Refused(status) => Some(*status),
            _ => None,
        }
    }

    /// Returns true if the server answers as a gateway like this one.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, Observation::Http(Some((200, line))) if line.to_lowercase().contains("sigver"))
    }
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Observation::Http(Some((status, _))) => write!(f, "HTTP {status}"),
            Observation::Http(None) => f.write_str("no answer"),
            Observation::Silent(FirstFrames::None) => f.write_str("receives nothing"),
            Observation::Silent(FirstFrames::JsonPing) => f.write_str("receives {\"ping\":true}"),
            Observation::Silent(FirstFrames::IsFirst) => f.write_str("receives isFirst"),
            Observation::Silent(FirstFrames::IsFirstAndPing) => f.write_str("receives isFirst and a ping"),
            Observation::Silent(FirstFrames::IsFirstAndPing15_0_0) => {
                f.write_str("receives isFirst and the ping of 15.0.0")
            }
            Observation::Silent(FirstFrames::Other) => f.write_str("receives frames of no known release"),
            Observation::EmptyPath(Some((code, reason))) | Observation::EmptyObject(Some((code, reason)))
                if reason.is_empty() =>
            {
                write!(f, "is closed with {code}")
            }
            Observation::EmptyPath(Some((code, reason))) | Observation::EmptyObject(Some((code, reason))) => {
                write!(f, "is closed with {code} {reason}")
            }
            Observation::EmptyKey(Some(code)) => write!(f, "is closed with {code}"),
            Observation::EmptyPath(None) | Observation::EmptyObject(None) | Observation::EmptyKey(None) => {
                f.write_str("is not closed")
            }
            Observation::SecondPinged(true) => f.write_str("is pinged before it sends anything"),
            Observation::SecondPinged(false) => f.write_str("is not pinged before it sends anything"),
            Observation::Favored(true) => f.write_str("is linked to the next joiner"),
            Observation::Favored(false) => f.write_str("is not preferred to others"),
            Observation::HeartbeatTimeout(Some((code, after))) => {
                write!(f, "is closed with {code} after {after} s")
            }
            Observation::HeartbeatTimeout(None) => f.write_str("is not closed"),
            Observation::Refused(status) => write!(f, "is refused with HTTP {status}"),
            Observation::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the immediate observations of a server of this release.
    fn shown(release: Release) -> [Observation; 4] {
        [
            Observation::Http(http_status(release).map(|status| (status, String::new()))),
            Observation::Silent(first_frames(release)),
            Observation::EmptyPath(close_of_empty_path(release)),
            Observation::EmptyObject(close_of_empty_object(release)),
        ]
    }

    /// Measured on the Node.js servers.
    #[test]
    fn closes_are_those_of_the_originals() {
        for (release, code, reason) in [
            (Release::V14_0_0, 0, ""),
            (Release::V15_0_1, 4001, "KEY_ERROR: The key  is an empty string"),
            (Release::V16_0_0, 4001, "KEY_ERROR: The key  is an empty string"),
            (Release::V17_0_1, 4001, "ERR_KEY: The key  is an empty string"),
            (Release::V18_0_0, 4001, "4001: The key  is an empty string"),
            (Release::V19_0_0, 4741, "4741: The key  is an empty string"),
            (Release::V20_1_0, 4741, "4741: The key  is an empty string"),
        ] {
            let expected = (code != 0).then(|| (code, reason.to_owned()));
            assert_eq!(close_of_empty_path(release), expected, "{release}");
        }
        let first = "The first message received from any socket must contain \"type\" and \"key\" attributes";
        for (release, code, reason) in [
            (Release::V3_0_0, 1000, ""),
            (Release::V4_0_0, 1000, ""),
            (Release::V5_0_0, 1008, first),
            (Release::V6_0_0, 1007, "Unsupported message format"),
            (Release::V7_0_0, 1007, "Unsupported message format"),
            (Release::V7_1_0, 4001, "Unsupported message format"),
            (Release::V7_6_4, 4001, "Unknown JSON attribute: {}"),
            (Release::V8_0_2, 4000, "MESSAGE_FORMAT_ERROR: Unknown message"),
            (Release::V8_1_0, 4000, "MESSAGE_ERROR: Unknown message"),
            (Release::V9_1_0, 4000, "MESSAGE_ERROR=4000: Unknown message"),
            (Release::V10_1_0, 4000, "MESSAGE_ERROR=4000: Unknown message"),
            (Release::V11_0_0, 4000, "MESSAGE_ERROR=4000: Unknown message: {}"),
            (Release::V14_0_0, 4000, "MESSAGE_ERROR: Unknown message: {}"),
            // A text is decoded as a message without fields, and ignored.
            (Release::V15_0_1, 0, ""),
            (Release::V15_1_0, 0, ""),
            (Release::V16_0_0, 0, ""),
            (Release::V18_0_0, 0, ""),
            (Release::V19_1_2, 4743, "Wrong message format or unknown message"),
            (Release::V20_0_2, 4743, "Wrong message format or unknown message"),
            (Release::V20_1_0, 4743, "Wrong data type"),
        ] {
            let expected = (code != 0).then(|| (code, reason.to_owned()));
            assert_eq!(close_of_empty_object(release), expected, "{release}");
        }
    }

    #[test]
    fn immediate_observations_leave_few_releases() {
        let alike: Vec<&[Release]> = vec![
            &[Release::V3_0_0, Release::V4_0_0],
            &[Release::V6_0_0, Release::V7_0_0],
            &[Release::V8_1_0, Release::V9_0_1],
            &[Release::V9_1_0, Release::V10_1_0],
            &[Release::V15_0_1, Release::V15_0_2, Release::V15_0_4, Release::V15_1_0],
            &[Release::V19_0_0, Release::V19_1_2, Release::V20_0_2],
        ];
        // Newer ones may be alike.
        let published = || Release::ALL.into_iter().filter(|release| *release <= Release::V20_1_0);
        for release in published() {
            let shown = shown(release);
            let left: Vec<Release> = published()
                .filter(|other| shown.iter().all(|observation| matches_release(observation, *other)))
                .collect();
            let expected = alike.iter().find(|alike| alike.contains(&release));
            assert_eq!(left, expected.map_or(vec![release], |alike| alike.to_vec()));
        }
    }

    #[test]
    fn heartbeat_timeout_distinguishes_first_two_of_15() {
        assert_ne!(heartbeat_timeout(Release::V15_0_1), heartbeat_timeout(Release::V15_0_2));
        assert_eq!(matching_releases(&Observation::HeartbeatTimeout(Some((4002, 4)))), [Release::V15_0_2]);
        assert!(
            matching_releases(&Observation::HeartbeatTimeout(Some((4002, 14)))).contains(&Release::V18_0_0)
        );
    }

    #[test]
    fn unknown_behaviour_matches_no_release() {
        assert!(matching_releases(&Observation::Silent(FirstFrames::Other)).is_empty());
        assert!(matching_releases(&Observation::EmptyObject(Some((4000, "no".to_owned())))).is_empty());
        assert!(matching_releases(&Observation::Failed(String::new())).is_empty());
    }
}
