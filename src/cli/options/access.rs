//! Options of access: which clients may connect.

use super::Section::Access;
use super::{OptionSpec, set};
use crate::config::AllowedOrigins;

pub(super) const ALLOWED_ORIGINS: OptionSpec = set("allowed-origins", "list", "*", |d, v| {
    AllowedOrigins::parse(v).map(|v| d.config.access.allowed_origins = v)
})
.help(
    Access,
    "Origins of the pages that may connect, with commas: https://example.org, example.org (any scheme and port), \
     *.example.org, null, /expression/ for whole origins, or * for any. Requests without an Origin are not from pages",
);
