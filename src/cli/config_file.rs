//! The configuration file: TOML, with the long name of an option as the key of its value.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use toml::{Table, Value};

use super::options::{OPTIONS, OptionSpec};
use super::{GivenValue, Source, Values, find_long, mistyped};
use crate::config::io_text::read_error_text;
use crate::config::redact::{displayed, displayed_path};

/// Failure to take values from a configuration file. No text quotes a value, which may be a secret.
#[derive(Debug, Error)]
pub(super) enum ConfigFileError {
    #[error("cannot read the configuration file {}: {}", displayed_path(path), read_error_text(source))]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the configuration file {}, line {line}, is not TOML: {message}", displayed_path(path))]
    Syntax { path: PathBuf, line: usize, message: String },
    #[error("the configuration file {} has an unknown key '{key}'{}", displayed_path(path), suggestion(key))]
    UnknownKey { path: PathBuf, key: String },
    #[error(
        "the configuration file {} has the table '{key}': all keys are outside of tables",
        displayed_path(path)
    )]
    Table { path: PathBuf, key: String },
    #[error(
        "the configuration file {} has the key '{key}', which is an option of the command line only",
        displayed_path(path)
    )]
    CommandLineOnly { path: PathBuf, key: String },
    #[error(
        "the configuration file {} has a value of the wrong type for '{key}': {expected}",
        displayed_path(path)
    )]
    Type { path: PathBuf, key: String, expected: &'static str },
}

fn suggestion(unknown: &str) -> String {
    match mistyped::similar_key(unknown) {
        Some(key) => format!("; is '{key}' meant?"),
        None => "; sigver --help lists the options, whose long names are the keys".to_owned(),
    }
}

/// Adds the values of the configuration file that `values` name, for options that are absent.
///
/// # Errors
/// The file cannot be read, is no TOML, or has a key that is no option.
pub(super) fn add_values(
    values: &mut Values,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<(), ConfigFileError> {
    let Some(path) = values.get("config").and_then(|config| config.texts.first()).map(PathBuf::from) else {
        return Ok(());
    };
    let text = match read_file(&path) {
        Ok(text) => text,
        Err(source) => return Err(ConfigFileError::Unreadable { path, source }),
    };
    let table: Table = text.parse().map_err(|error| syntax_error(&path, &text, &error))?;
    for (key, value) in table {
        let option = OPTIONS.iter().find(|option| option.long == key && option.is_file_key());
        let Some(option) = option else {
            let is_option = find_long(&key).is_some();
            let key = displayed(&key).into_owned();
            return Err(match value {
                _ if is_option => ConfigFileError::CommandLineOnly { path, key },
                Value::Table(_) => ConfigFileError::Table { path, key },
                _ => ConfigFileError::UnknownKey { path, key },
            });
        };
        let texts = match texts(option, value) {
            Ok(texts) => texts,
            Err(expected) => return Err(ConfigFileError::Type { path, key, expected }),
        };
        values.entry(option.long).or_insert_with(|| GivenValue { texts, source: Source::File(path.clone()) });
    }
    Ok(())
}

fn syntax_error(path: &Path, text: &str, error: &toml::de::Error) -> ConfigFileError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    // The first line of the message; the library's own display would quote the file.
    let message = error.message().lines().next().unwrap_or_default().to_owned();
    ConfigFileError::Syntax { path: path.to_owned(), line, message }
}

/// Returns the texts of a value as the command line would have them, or what the file should have instead.
fn texts(option: &OptionSpec, value: Value) -> Result<Vec<OsString>, &'static str> {
    // Its text has the values with commas.
    let is_list = option.value_name == Some("list");
    let expected = match option.repeatable || is_list {
        true => "it must be a string, or a list of strings",
        false => "it must be a string, a whole number, true or false",
    };
    match value {
        Value::String(text) => Ok(vec![text.into()]),
        Value::Integer(number) => Ok(vec![number.to_string().into()]),
        Value::Boolean(on) => Ok(vec![if on { "on" } else { "off" }.into()]),
        Value::Array(values) if option.repeatable || is_list => {
            let text = |value| match value {
                Value::String(text) => Ok(text),
                _ => Err(expected),
            };
            let texts: Vec<String> = values.into_iter().map(text).collect::<Result<_, _>>()?;
            Ok(match option.repeatable {
                true => texts.into_iter().map(OsString::from).collect(),
                false => vec![texts.join(",").into()],
            })
        }
        Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => Err(expected),
    }
}
