//! The configuration in force: a configuration file that has each value, with its source as a comment.

use std::borrow::Cow;
use std::ffi::OsStr;

use toml::Value;

use super::options::{OPTIONS, OptionSpec};
use super::{GivenValue, Source, Values};
use crate::config::redact::{displayed_path, may_be_secret, without_password};

/// Returns the values in force in the syntax of the configuration file, without a line end.
pub(super) fn text(values: &Values) -> String {
    let mut lines = vec!["# The configuration in force, with the source of each value.".to_owned()];
    let options = OPTIONS.iter().filter(|option| option.is_file_key());
    let settings: Vec<(String, String)> = options.map(|option| setting(option, values)).collect();
    let width = settings.iter().map(|(setting, _)| setting.chars().count()).max().unwrap_or_default().min(60);
    lines.extend(settings.iter().map(|(setting, source)| format!("{setting:width$}  # {source}")));
    lines.join("\n")
}

/// Returns the line of an option, and the source of its value.
fn setting(option: &OptionSpec, values: &Values) -> (String, String) {
    let key = option.long;
    match values.get(key) {
        Some(given) if given.texts.iter().any(|text| may_be_secret(&text.to_string_lossy())) => {
            (format!("# {key} = (not shown)"), source(&given.source))
        }
        Some(given) if given.texts.iter().any(|text| has_password(text)) => (
            format!("# {key} = {}", value(option, given)),
            format!("{}, without its password", source(&given.source)),
        ),
        Some(given) => (format!("{key} = {}", value(option, given)), source(&given.source)),
        // In a file, it would be one more address to listen on.
        None if ["host", "port"].contains(&key) && has_own_addresses(values) => {
            (format!("# {key} = {}", scalar(option.default)), "not used, as listen is set".to_owned())
        }
        None if option.default.is_empty() => (format!("# {key} ="), "not set".to_owned()),
        None => (format!("{key} = {}", scalar(option.default)), "default".to_owned()),
    }
}

/// Returns true if the addresses of `listen` are all to listen on.
fn has_own_addresses(values: &Values) -> bool {
    let is_given = |key| values.get(key).is_some_and(|given| !given.texts.is_empty());
    is_given("listen") && !is_given("host") && !is_given("port")
}

fn has_password(text: &OsStr) -> bool {
    matches!(without_password(&text.to_string_lossy()), Cow::Owned(_))
}

fn value(option: &OptionSpec, given: &GivenValue) -> String {
    let mut texts = given.texts.iter().map(|text| scalar(&without_secrets(&text.to_string_lossy())));
    match option.repeatable {
        true => format!("[{}]", texts.collect::<Vec<_>>().join(", ")),
        false => texts.next().unwrap_or_default(),
    }
}

/// Returns the text without the password of a URL, and without the query of one that is asked about tokens.
fn without_secrets(text: &str) -> String {
    let shown = without_password(text);
    match shown.split_once('?') {
        Some((url, _)) if url.starts_with("callout:") => format!("{url}?***"),
        _ => shown.into_owned(),
    }
}

/// Returns a number as it is, and any other text in quotes.
fn scalar(text: &str) -> String {
    match text.parse::<i64>() {
        Ok(number) if number.to_string() == text => text.to_owned(),
        _ => Value::String(text.to_owned()).to_string(),
    }
}

fn source(source: &Source) -> String {
    match source {
        Source::CommandLine => "command line".to_owned(),
        Source::Environment(name) => format!("environment variable {name}"),
        Source::File(path) => format!("file {}", displayed_path(path)),
        Source::Signallerd(flag) => format!("command line, -{flag}"),
    }
}
