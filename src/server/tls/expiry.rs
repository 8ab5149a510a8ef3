//! Expiry of the certificate that is served, and the warnings about it. The time is an argument.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::server::telemetry::UnixSeconds;

const DAY: u64 = 24 * 60 * 60;

/// Time before the expiry from which on there are warnings, in seconds.
const WARN_BEFORE: u64 = 14 * DAY;

/// Longest time between two warnings while they are needed.
const WARN_INTERVAL: Duration = Duration::from_secs(DAY);

/// Time at which a certificate expires, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CertificateExpiry(pub(crate) u64);

/// A reason to renew a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpiryWarning {
    Expired(CertificateExpiry),
    /// The certificate expires within this number of days.
    Soon(CertificateExpiry, u64),
}

impl CertificateExpiry {
    /// Returns a reason to renew the certificate, if there is one at this time.
    pub(super) fn warning(self, now: SystemTime) -> Option<ExpiryWarning> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        match self.0.checked_sub(now) {
            None => Some(ExpiryWarning::Expired(self)),
            Some(left) if left < WARN_BEFORE => Some(ExpiryWarning::Soon(self, left.div_ceil(DAY))),
            Some(_) => None,
        }
    }

    /// Returns the time for people, which is at most that of [`UnixSeconds`].
    pub(crate) fn time(self) -> UnixSeconds {
        UnixSeconds(u32::try_from(self.0).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for ExpiryWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExpiryWarning::Expired(expiry) => {
                write!(f, "has expired, on {}, and clients reject it: renew it", expiry.time())
            }
            ExpiryWarning::Soon(expiry, days) => {
                let days = if *days == 1 { "a day".to_owned() } else { format!("{days} days") };
                write!(f, "expires in less than {days}, on {}: renew it", expiry.time())
            }
        }
    }
}

/// The last warning while a server runs.
#[derive(Debug, Default)]
pub(super) struct ExpiryWarnings {
    last: Option<(SystemTime, bool)>,
}

impl ExpiryWarnings {
    /// Returns the warning that is due: one a day, and one when the certificate expires.
    pub(super) fn due(&mut self, expiry: CertificateExpiry, now: SystemTime) -> Option<ExpiryWarning> {
        let warning = expiry.warning(now)?;
        let is_expired = matches!(warning, ExpiryWarning::Expired(_));
        // A clock that was set back is no reason to be silent.
        let is_recent =
            |then: SystemTime| now.duration_since(then).is_ok_and(|passed| passed < WARN_INTERVAL);
        if self.last.is_some_and(|(then, was_expired)| was_expired == is_expired && is_recent(then)) {
            return None;
        }
        self.last = Some((now, is_expired));
        Some(warning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn warnings_begin_two_weeks_before_the_expiry() {
        // 2026-05-01T12:00:05Z
        let expiry = CertificateExpiry(1_777_636_805);
        let text = |left: i64| {
            expiry.warning(at(expiry.0.saturating_add_signed(-left))).map(|warning| warning.to_string())
        };
        assert_eq!(text(14 * DAY as i64), None);
        let soon =
            |days: &str| Some(format!("expires in less than {days}, on 2026-05-01T12:00:05Z: renew it"));
        assert_eq!(text(14 * DAY as i64 - 1), soon("14 days"));
        assert_eq!(text(1), soon("a day"));
        assert!(text(-1).unwrap().starts_with("has expired, on 2026-05-01T12:00:05Z, and clients reject it"));
        assert_eq!(CertificateExpiry(u64::MAX).warning(at(u64::from(u32::MAX))), None);
    }

    #[test]
    fn warning_is_repeated_each_day_and_when_the_certificate_expires() {
        let expiry = CertificateExpiry(100 * DAY);
        let mut warnings = ExpiryWarnings::default();
        let hours = (80 * 24..103 * 24).filter(|hour| warnings.due(expiry, at(hour * 3600 + 1)).is_some());
        let days: Vec<u64> = hours.map(|hour| hour / 24).collect();
        assert_eq!(days, (86..103).collect::<Vec<_>>());
    }
}
