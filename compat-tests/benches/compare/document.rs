//! Generated parts of a document, each between two markers.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Replaces the part with this name.
pub fn replace(path: &Path, name: &str, text: &str) -> Result<()> {
    let whole = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let new = replaced(&whole, name, text)
        .with_context(|| format!("{} has no markers '<!-- {name}: begin -->'", path.display()))?;
    fs::write(path, new).with_context(|| path.display().to_string())
}

fn replaced(whole: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {name}: begin -->"), format!("<!-- {name}: end -->"));
    let from = whole.find(&begin)? + begin.len();
    let to = from + whole[from..].find(&end)?;
    Some(format!("{}\n\n{}\n\n{}", &whole[..from], text.trim(), &whole[to..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_part_is_replaced() {
        let whole = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb <!-- y: begin --><!-- y: end -->\n";
        let new = replaced(whole, "x", "new\n").unwrap();
        assert_eq!(
            new,
            "a\n<!-- x: begin -->\n\nnew\n\n<!-- x: end -->\nb <!-- y: begin --><!-- y: end -->\n"
        );
        assert_eq!(replaced(&new, "x", "new").unwrap(), new);
        assert!(replaced(whole, "z", "new").is_none());
    }
}
