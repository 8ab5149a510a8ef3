//! What each release shows to a client that says little, as measured on the originals: one table. No sockets here.

use std::fmt;

use crate::protocol::dialect::{Dialect, Family, Release};

/// What was seen of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// A plain `GET`, answered with this status and line, or never.
    Http(Option<(u16, String)>),
    /// What a silent client with a key in its path was sent at once.
    Silent(First),
    /// How a silent client without a key in its path was closed.
    Empty(Option<(u16, String)>),
    /// How a client was closed that said `{}`.
    Object(Option<(u16, String)>),
    /// How a client was closed that opened an empty key.
    EmptyOpen(Option<u16>),
    /// Whether a joiner is pinged before it has said anything.
    SecondPinged(bool),
    /// Whether a favored member is preferred to an older one.
    Favored(bool),
    /// How a client was closed that never answers, and after how many seconds.
    Fate(Option<(u16, u64)>),
    /// Nothing: there was no connection, or what came is of no use.
    Broken(String),
}

/// What a silent client hears first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Nothing.
    Nothing,
    /// `{"ping":true}`.
    JsonPing,
    /// That it is the first.
    IsFirst,
    /// The same, and a ping.
    IsFirstAndPing,
    /// Something that no original sends.
    Other,
}

/// The releases that show this.
pub fn fitting(seen: &Observation) -> Vec<Release> {
    Release::ALL.into_iter().filter(|release| fits(seen, *release)).collect()
}

fn fits(seen: &Observation, release: Release) -> bool {
    match seen {
        Observation::Http(answer) => answer.as_ref().map(|(status, _)| *status) == http(release),
        Observation::Silent(first) => *first == silent(release),
        Observation::Empty(closed) => matches(closed.as_ref(), empty(release)),
        Observation::Object(closed) => matches(closed.as_ref(), object(release)),
        Observation::EmptyOpen(closed) => *closed == (release == Release::V10_1_0).then_some(4001),
        Observation::SecondPinged(pinged) => *pinged == (release <= Release::V15_0_2),
        Observation::Favored(preferred) => *preferred == (release >= Release::V19_1_2),
        Observation::Fate(closed) => {
            let expected = fate(release);
            match (closed, expected) {
                (None, None) => true,
                (Some((code, after)), Some((expected, seconds))) => {
                    *code == expected && after.abs_diff(seconds) <= u64::from(seconds > 10)
                }
                _ => false,
            }
        }
        Observation::Broken(_) => false,
    }
}

fn matches(closed: Option<&(u16, String)>, expected: Option<(u16, &str)>) -> bool {
    closed.map(|(code, reason)| (*code, reason.as_str())) == expected
}

fn http(release: Release) -> Option<u16> {
    if release <= Release::V7_6_4 {
        Some(426)
    } else if release <= Release::V11_0_0 {
        Some(200)
    } else {
        None
    }
}

fn silent(release: Release) -> First {
    match release.dialect() {
        Dialect::Sigver13 => First::JsonPing,
        Dialect::Sigver15 | Dialect::Sigver15_1 => First::IsFirstAndPing,
        Dialect::Sigver16 | Dialect::Sigver18 => First::IsFirst,
        _ => First::Nothing,
    }
}

fn empty(release: Release) -> Option<(u16, &'static str)> {
    if release <= Release::V14_0_0 {
        return None;
    }
    Some(match release {
        Release::V17_0_1 => (4001, "ERR_KEY: The key  is an empty string"),
        Release::V18_0_0 => (4001, "4001: The key  is an empty string"),
        release if release >= Release::V19_0_0 => (4741, "4741: The key  is an empty string"),
        _ => (4001, "KEY_ERROR: The key  is an empty string"),
    })
}

fn object(release: Release) -> Option<(u16, &'static str)> {
    Some(match release {
        Release::V3_0_0 | Release::V4_0_0 => (1000, ""),
        Release::V5_0_0 => {
            (1008, "The first message received from any socket must contain \"type\" and \"key\" attributes")
        }
        Release::V6_0_0 | Release::V7_0_0 => (1007, "Unsupported message format"),
        Release::V7_1_0 => (4001, "Unsupported message format"),
        Release::V7_6_4 => (4001, "Unknown JSON attribute: {}"),
        Release::V8_0_2 => (4000, "MESSAGE_FORMAT_ERROR: Unknown message"),
        Release::V8_1_0 => (4000, "MESSAGE_ERROR: Unknown message"),
        Release::V9_1_0 | Release::V10_1_0 => (4000, "MESSAGE_ERROR=4000: Unknown message"),
        Release::V11_0_0 => (4000, "MESSAGE_ERROR=4000: Unknown message: {}"),
        Release::V14_0_0 => (4000, "MESSAGE_ERROR: Unknown message: {}"),
        // Text is read as a message without fields, and ignored.
        release if release.family() == Family::ProtobufV1 => return None,
        Release::V19_0_0 | Release::V19_1_2 | Release::V20_0_2 => {
            (4743, "Wrong message format or unknown message")
        }
        _ => (4743, "Wrong data type"),
    })
}

fn fate(release: Release) -> Option<(u16, u64)> {
    match release {
        Release::V15_0_2 => Some((4002, 4)),
        Release::V15_0_4 | Release::V15_1_0 => Some((4002, 5)),
        Release::V18_0_0 => Some((4002, 15)),
        release if release >= Release::V19_0_0 => Some((4742, 15)),
        _ => None,
    }
}

impl Observation {
    /// Whether the server says that it is a gateway like ours.
    pub fn is_ours(&self) -> bool {
        matches!(self, Observation::Http(Some((200, line))) if line.to_lowercase().contains("sigver"))
    }
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Observation::Http(Some((status, _))) => write!(f, "HTTP {status}"),
            Observation::Http(None) => f.write_str("never answered"),
            Observation::Silent(First::Nothing) => f.write_str("hears nothing"),
            Observation::Silent(First::JsonPing) => f.write_str("hears {\"ping\":true}"),
            Observation::Silent(First::IsFirst) => f.write_str("hears isFirst"),
            Observation::Silent(First::IsFirstAndPing) => f.write_str("hears isFirst and a ping"),
            Observation::Silent(First::Other) => f.write_str("hears what no original says"),
            Observation::Empty(Some((code, reason))) | Observation::Object(Some((code, reason)))
                if reason.is_empty() =>
            {
                write!(f, "is closed with {code}")
            }
            Observation::Empty(Some((code, reason))) | Observation::Object(Some((code, reason))) => {
                write!(f, "is closed with {code} {reason}")
            }
            Observation::EmptyOpen(Some(code)) => write!(f, "is closed with {code}"),
            Observation::Empty(None) | Observation::Object(None) | Observation::EmptyOpen(None) => {
                f.write_str("is not closed")
            }
            Observation::SecondPinged(true) => f.write_str("is pinged before it says anything"),
            Observation::SecondPinged(false) => f.write_str("is not pinged before it says anything"),
            Observation::Favored(true) => f.write_str("gets the next joiner"),
            Observation::Favored(false) => f.write_str("gets no more joiners than others"),
            Observation::Fate(Some((code, after))) => write!(f, "is closed with {code} after {after} s"),
            Observation::Fate(None) => f.write_str("is not closed"),
            Observation::Broken(why) => write!(f, "tells nothing: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server of this release shows at once.
    fn shown(release: Release) -> [Observation; 4] {
        let owned = |closed: Option<(u16, &str)>| closed.map(|(code, reason)| (code, reason.to_owned()));
        [
            Observation::Http(http(release).map(|status| (status, String::new()))),
            Observation::Silent(silent(release)),
            Observation::Empty(owned(empty(release))),
            Observation::Object(owned(object(release))),
        ]
    }

    #[test]
    fn what_is_seen_at_once_leaves_few_releases() {
        let alike: Vec<&[Release]> = vec![
            &[Release::V3_0_0, Release::V4_0_0],
            &[Release::V6_0_0, Release::V7_0_0],
            &[Release::V9_1_0, Release::V10_1_0],
            &[Release::V15_0_1, Release::V15_0_2, Release::V15_0_4, Release::V15_1_0],
            &[Release::V19_0_0, Release::V19_1_2, Release::V20_0_2],
        ];
        for release in Release::ALL {
            let shown = shown(release);
            let left: Vec<Release> = Release::ALL
                .into_iter()
                .filter(|other| shown.iter().all(|seen| fits(seen, *other)))
                .collect();
            let expected = alike.iter().find(|alike| alike.contains(&release));
            assert_eq!(left, expected.map_or(vec![release], |alike| alike.to_vec()));
        }
    }

    #[test]
    fn patience_tells_the_first_two_of_15_apart() {
        assert_ne!(fate(Release::V15_0_1), fate(Release::V15_0_2));
        assert_eq!(fitting(&Observation::Fate(Some((4002, 4)))), [Release::V15_0_2]);
        assert!(fitting(&Observation::Fate(Some((4002, 14)))).contains(&Release::V18_0_0));
    }

    #[test]
    fn what_no_original_does_fits_none() {
        assert!(fitting(&Observation::Silent(First::Other)).is_empty());
        assert!(fitting(&Observation::Object(Some((4000, "no".to_owned())))).is_empty());
        assert!(fitting(&Observation::Broken(String::new())).is_empty());
    }
}
