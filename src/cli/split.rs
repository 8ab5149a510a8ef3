//! Splits the arguments of sigver into options and operands, by the rules of commander.js (measured): an
//! option takes the next argument whatever it looks like, the last of repeated options wins, `-V` ends the
//! arguments, and abbreviations of long options are unknown options.

use std::ffi::OsString;

use super::options::{Effect, OptionSpec, find_long, find_short};
use super::{CliError, GivenValue, Source, Values};

/// Arguments, before any value is parsed.
#[derive(Default)]
pub(super) struct SplitArgs {
    pub(super) values: Values,
    pub(super) version: bool,
    pub(super) help: bool,
    pub(super) secure: bool,
    /// First unknown option.
    pub(super) unknown: Option<String>,
    pub(super) operands: Vec<String>,
    /// True if the first argument of all is an operand.
    pub(super) begins_with_operand: bool,
}

impl SplitArgs {
    fn is_empty(&self) -> bool {
        self.values.is_empty()
            && self.operands.is_empty()
            && !self.secure
            && !self.help
            && self.unknown.is_none()
    }
}

/// Splits the arguments, up to `-V` if it is among them.
///
/// # Errors
/// An option lacks its value, or is not allowed here.
pub(super) fn split_args(mut args: impl Iterator<Item = OsString>) -> Result<SplitArgs, CliError> {
    let mut split = SplitArgs::default();
    // The rest of an argument after a flag: `-sp` is `-s -p`.
    let mut rest: Option<OsString> = None;
    while let Some(arg) = rest.take().or_else(|| args.next()) {
        // An option is Unicode; its value need not be if it is an argument of its own.
        let text = arg.to_string_lossy();
        if text == "--" {
            split.operands.extend(args.by_ref().map(|operand| operand.to_string_lossy().into_owned()));
            break;
        }
        if text == "--help" {
            split.help = true;
            continue;
        }
        if !text.starts_with('-') || text == "-" {
            split.begins_with_operand |= split.is_empty();
            split.operands.push(text.into_owned());
            continue;
        }
        let Some((option, inline)) =
            find(&text).filter(|(_, inline)| inline.is_none() || arg.to_str().is_some())
        else {
            split.unknown.get_or_insert(text.into_owned());
            continue;
        };
        match option.effect {
            Effect::Secure => {
                split.secure = true;
                rest = inline.map(|inline| format!("-{inline}").into());
            }
            Effect::Help | Effect::Version => {
                split.version = true;
                break;
            }
            _ => {
                let Some(value) = inline.map(OsString::from).or_else(|| args.next()) else {
                    return Err(CliError::ArgumentMissing(option.display()));
                };
                if matches!(option.effect, Effect::Flavor) {
                    return Err(CliError::NotFirst(option.display()));
                }
                let given = GivenValue { texts: vec![value], source: Source::CommandLine };
                match split.values.get_mut(option.long) {
                    Some(earlier) if option.repeatable => earlier.texts.extend(given.texts),
                    _ => drop(split.values.insert(option.long, given)),
                }
            }
        }
    }
    Ok(split)
}

/// Returns the option that an argument names, and the rest of the argument: `-p9000`, `--port=9000`, `-sp`.
fn find(text: &str) -> Option<(&'static OptionSpec, Option<&str>)> {
    if let Some(long) = text.strip_prefix("--") {
        return match long.split_once('=') {
            None => find_long(long).map(|option| (option, None)),
            Some((long, value)) => find_long(long)
                .filter(|option| option.value_name.is_some())
                .map(|option| (option, Some(value))),
        };
    }
    let mut chars = text.chars();
    let option = chars.nth(1).and_then(find_short)?;
    Some((option, Some(chars.as_str()).filter(|rest| !rest.is_empty())))
}
