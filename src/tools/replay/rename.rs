//! Room keys that are different in each run, so that many scripts can use one server at the same time.
//!
//! The suffix is inserted after the last letter or digit of the key, so that everything a server may parse
//! in a special way stays: `/a/b/` becomes `/a/b-x7/`, `//a/b` becomes `//a/b-x7`. Very long keys keep
//! their length. Keys without a letter or digit (the empty one), and those that are not plain JSON strings,
//! stay as they are: a script that uses one needs a server of its own.

use super::ids::IdLayout;
use super::json_members::members;
use super::transcript::{RecordedEvent, Scenario};

/// Length in bytes beyond which a key keeps its length, because the length is under test.
const MAX_EXTENDED_KEY: usize = 256;

/// Returns the position for the suffix: after the last letter or digit.
fn place(key: &str) -> Option<usize> {
    key.rfind(|c: char| c.is_ascii_alphanumeric()).map(|last| last + 1)
}

/// Returns a key in JSON, if it can be renamed: a string without escapes.
fn plain(value: &str) -> Option<&str> {
    let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    inner.filter(|key| !key.contains('\\'))
}

/// Returns true if the script may open a room whose key cannot be renamed (`""`, `null`, a number, or none
/// at all, which the oldest releases accept as a key), so that no other script may use the server at the
/// same time.
pub fn needs_own_server(script: &Scenario) -> bool {
    let Some(keys) = IdLayout::from_version(&script.version).keys() else {
        // The key is the path, and servers reject an empty one.
        return false;
    };
    script.records.iter().any(|record| {
        let RecordedEvent::Send(payload) = &record.event else { return false };
        let Ok(text) = std::str::from_utf8(&payload.bytes) else { return false };
        let Some(members) = members(text) else { return false };
        let is_key = |name: &str| keys.contains(&name);
        let fixed = |value: &str| plain(value).and_then(place).is_none();
        let opens = |name: &str, value: &str| name == "type" && matches!(value, "\"open\"" | "\"join\"");
        members.iter().any(|(name, place)| is_key(name) && fixed(&text[place.clone()]))
            || (members.iter().any(|(name, place)| opens(name, &text[place.clone()]))
                && !members.iter().any(|(name, _)| is_key(name)))
    })
}

/// The room keys that were renamed in one run.
#[derive(Debug, Default)]
pub(crate) struct KeyRenamer {
    suffix: Option<String>,
    /// Renamed and original key, to restore the original in the server's frames.
    names: Vec<(String, String)>,
}

impl KeyRenamer {
    /// Returns a renamer that appends `suffix`; with `None`, keys stay as they are.
    pub(crate) fn new(suffix: Option<String>) -> Self {
        Self { suffix, names: Vec::new() }
    }

    fn key(&mut self, key: &str) -> String {
        let Some(suffix) = &self.suffix else {
            return key.to_owned();
        };
        let Some(place) = place(key) else {
            return key.to_owned();
        };
        let (head, tail) = key.split_at(place);
        // The handles of signaller may have underscores in them, and no other punctuation.
        let is_signaller = key.starts_with("listen/") || key.starts_with("connect/");
        let insert = format!("{}{suffix}", if is_signaller { '_' } else { '-' });
        let keep = match key.len() > MAX_EXTENDED_KEY && head.is_ascii() {
            true => head.len().saturating_sub(insert.len()),
            false => head.len(),
        };
        let renamed = format!("{}{insert}{tail}", &head[..keep]);
        if !self.names.iter().any(|(r, _)| *r == renamed) {
            self.names.push((renamed.clone(), key.to_owned()));
        }
        renamed
    }

    /// Renames the key in a URL path; the query stays.
    pub(crate) fn path(&mut self, path: &str) -> String {
        let (path, query) = path.find('?').map_or((path, ""), |at| path.split_at(at));
        let Some(key) = path.strip_prefix('/') else {
            return format!("{path}{query}");
        };
        format!("/{}{query}", self.key(key))
    }

    /// Renames the key in a JSON message; any other frame stays as it is.
    pub(crate) fn frame(&mut self, layout: IdLayout, bytes: Vec<u8>) -> Vec<u8> {
        let (Some(keys), true) = (layout.keys(), self.suffix.is_some()) else {
            return bytes;
        };
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => return error.into_bytes(),
        };
        let mut out = String::new();
        let mut done = 0;
        for (name, place) in members(&text).unwrap_or_default() {
            if let (true, Some(key)) = (keys.contains(&name.as_str()), plain(&text[place.clone()])) {
                out.push_str(&text[done..=place.start]);
                out.push_str(&self.key(key));
                done = place.end - 1;
            }
        }
        out.push_str(&text[done..]);
        out.into_bytes()
    }

    /// Restores the original keys in a text of the server.
    pub(crate) fn restore(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (renamed, key)| {
            match text.contains(renamed.as_str()) {
                true => text.replace(renamed.as_str(), key),
                false => text,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::replay::transcript::{FrameKind, RecordedFrame, TranscriptRecord};

    fn renamer() -> KeyRenamer {
        KeyRenamer::new(Some("u7".into()))
    }

    #[test]
    fn renamed_path_keeps_its_form() {
        let paths = [
            "/k1",
            "/a/b",
            "/a/b?x=1",
            "/a/b/",
            "/%61/b",
            "//a/b",
            "/A/b",
            "/",
            "/?favored",
            "/k1?favored",
            "/listen/abc",
        ];
        let new: Vec<_> = paths.iter().map(|p| renamer().path(p)).collect();
        let expected = [
            "/k1-u7",
            "/a/b-u7",
            "/a/b-u7?x=1",
            "/a/b-u7/",
            "/%61/b-u7",
            "//a/b-u7",
            "/A/b-u7",
            "/",
            "/?favored",
            "/k1-u7?favored",
            "/listen/abc_u7",
        ];
        assert_eq!(new, expected);
        assert_eq!(KeyRenamer::new(None).path("/k1"), "/k1");
    }

    #[test]
    fn long_key_keeps_its_length() {
        let path = format!("/{}", "k".repeat(512));
        let new = renamer().path(&path);
        assert_eq!(new.len(), 513);
        assert!(new.ends_with("k-u7"));
    }

    #[test]
    fn script_with_unrenamable_key_needs_own_server() {
        let needs = |version: &str, text: &str| {
            let event = RecordedEvent::Send(RecordedFrame::new(FrameKind::Text, text));
            let records = vec![TranscriptRecord { t: 0, peer: Some("O".into()), event }];
            needs_own_server(&Scenario { version: version.into(), name: "s".into(), records })
        };
        for (version, text) in [
            ("3.0.0", r#"{"type":"open"}"#),
            ("3.0.0", r#"{"type":"open","id":1}"#),
            ("6.0.0", r#"{"joinkey":""}"#),
            ("7.0.0", r#"{"key":null}"#),
            ("8.0.2", r#"{"open":["a"]}"#),
            ("8.0.2", r#"{"open":"é😀"}"#),
            ("8.0.2", r#"{"join":"k\u0031"}"#),
        ] {
            assert!(needs(version, text), "{version} {text}");
        }
        for (version, text) in [
            ("3.0.0", r#"{"type":"open","id":"k1"}"#),
            ("3.0.0", r#"{"type":"offer","index":0}"#),
            ("4.0.0", r#"{"type":"join","key":"k1"}"#),
            ("8.0.2", r#"{"id":7,"data":1}"#),
            ("8.0.2", "null"),
            ("18.0.0", r#"{"key":null}"#),
        ] {
            assert!(!needs(version, text), "{version} {text}");
        }
    }

    #[test]
    fn key_of_oldest_releases_is_in_attribute_id() {
        let frame = |version: &str, text: &str| {
            let frame = renamer().frame(IdLayout::from_version(version), text.into());
            String::from_utf8(frame).unwrap()
        };
        assert_eq!(frame("3.0.0", r#"{"type":"open","id":"k1"}"#), r#"{"type":"open","id":"k1-u7"}"#);
        assert_eq!(frame("7.6.4", r#"{"id":"k1","data":1}"#), r#"{"id":"k1","data":1}"#);
    }

    #[test]
    fn keys_in_json_are_renamed_and_restored() {
        let mut renamer = renamer();
        let layout = IdLayout::from_version("5.0.0");
        let mut frame = |text: &str| String::from_utf8(renamer.frame(layout, text.into())).unwrap();
        assert_eq!(frame(r#"{ "type":"open", "key" : "k1"}"#), r#"{ "type":"open", "key" : "k1-u7"}"#);
        for same in [r#"{"data":{"key":"k1"}}"#, r#"{"key":5}"#, r#"{"key":""}"#, "not json", "null"] {
            assert_eq!(frame(same), same);
        }
        assert_eq!(renamer.restore("The key k1-u7 exists"), "The key k1 exists");
        assert_eq!(
            renamer.frame(IdLayout::from_version("18.0.0"), b"{\"key\":\"k1\"}".to_vec()),
            b"{\"key\":\"k1\"}"
        );
        assert_eq!(renamer.frame(layout, vec![0xff]), [0xff]);
    }
}
