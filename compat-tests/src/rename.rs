//! Room keys that are different at each run, so that many scripts can use one server at the same time.
//!
//! The new name goes in after the last letter or digit of the key, so that everything a server might trip over stays:
//! `/a/b/` becomes `/a/b-x7/`, `//a/b` becomes `//a/b-x7`. Very long keys keep their length. Keys without a letter or
//! digit (the empty one) stay as they are.

use crate::ids::Layout;
use crate::json::members;

/// Keys longer than this keep their length, because their length is what they test.
const LONG: usize = 256;

/// The names given in one run.
#[derive(Debug, Default)]
pub struct Renamer {
    suffix: Option<String>,
    /// Renamed and original, to translate what the server says back.
    names: Vec<(String, String)>,
}

impl Renamer {
    /// With `None`, keys stay as they are.
    pub fn new(suffix: Option<String>) -> Self {
        Self { suffix, names: Vec::new() }
    }

    fn key(&mut self, key: &str) -> String {
        let Some(suffix) = &self.suffix else {
            return key.to_owned();
        };
        let Some(last) = key.rfind(|c: char| c.is_ascii_alphanumeric()) else {
            return key.to_owned();
        };
        let (head, tail) = key.split_at(last + 1);
        let insert = format!("-{suffix}");
        let keep = match key.len() > LONG && head.is_ascii() {
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
    pub fn path(&mut self, path: &str) -> String {
        let (path, query) = path.find('?').map_or((path, ""), |at| path.split_at(at));
        let Some(key) = path.strip_prefix('/') else {
            return format!("{path}{query}");
        };
        format!("/{}{query}", self.key(key))
    }

    /// Renames the key in a JSON message; any other frame stays as it is.
    pub fn frame(&mut self, layout: Layout, bytes: Vec<u8>) -> Vec<u8> {
        let (Layout::Json { keys, .. }, true) = (layout, self.suffix.is_some()) else {
            return bytes;
        };
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => return error.into_bytes(),
        };
        let mut out = String::new();
        let mut done = 0;
        for (name, place) in members(&text).unwrap_or_default() {
            let plain = text[place.clone()].strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            if let (true, Some(key)) = (keys.contains(&name.as_str()), plain.filter(|k| !k.contains('\\'))) {
                out.push_str(&text[done..=place.start]);
                out.push_str(&self.key(key));
                done = place.end - 1;
            }
        }
        out.push_str(&text[done..]);
        out.into_bytes()
    }

    /// Puts the original keys back into something the server said.
    pub fn restore(&self, text: &str) -> String {
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

    fn renamer() -> Renamer {
        Renamer::new(Some("u7".into()))
    }

    #[test]
    fn paths_keep_their_form() {
        let paths =
            ["/k1", "/a/b", "/a/b?x=1", "/a/b/", "/%61/b", "//a/b", "/A/b", "/", "/?favored", "/k1?favored"];
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
        ];
        assert_eq!(new, expected);
        assert_eq!(Renamer::new(None).path("/k1"), "/k1");
    }

    #[test]
    fn long_keys_keep_their_length() {
        let path = format!("/{}", "k".repeat(512));
        let new = renamer().path(&path);
        assert_eq!(new.len(), 513);
        assert!(new.ends_with("k-u7"));
    }

    #[test]
    fn keys_in_json_are_renamed_and_restored() {
        let mut renamer = renamer();
        let layout = Layout::of("5.0.0");
        let mut frame = |text: &str| String::from_utf8(renamer.frame(layout, text.into())).unwrap();
        assert_eq!(frame(r#"{ "type":"open", "key" : "k1"}"#), r#"{ "type":"open", "key" : "k1-u7"}"#);
        for same in [r#"{"data":{"key":"k1"}}"#, r#"{"key":5}"#, r#"{"key":""}"#, "not json", "null"] {
            assert_eq!(frame(same), same);
        }
        assert_eq!(renamer.restore("The key k1-u7 exists"), "The key k1 exists");
        assert_eq!(renamer.frame(Layout::of("18.0.0"), b"{\"key\":\"k1\"}".to_vec()), b"{\"key\":\"k1\"}");
        assert_eq!(renamer.frame(layout, vec![0xff]), [0xff]);
    }
}
