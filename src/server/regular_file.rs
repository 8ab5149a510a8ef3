//! Files of the configuration, read whole or not at all.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

/// Returns the content of a file of at most `max` bytes.
///
/// # Errors
/// The file cannot be read, is longer, or is no regular file: a FIFO blocks its reader until someone writes,
/// and a device may have no end.
pub(crate) fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    // Before it is opened, which blocks as well.
    let kind = fs::metadata(path)?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut content = Vec::new();
    fs::File::open(path)?.take(max.saturating_add(1)).read_to_end(&mut content)?;
    match u64::try_from(content.len()) {
        Ok(length) if length <= max => Ok(content),
        _ => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {max} bytes"))),
    }
}

/// Returns the text of a file of at most `max` bytes.
///
/// # Errors
/// Those of `read`, and content that is not UTF-8.
pub fn read_text(path: &Path, max: u64) -> io::Result<String> {
    let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text");
    String::from_utf8(read(path, max)?).map_err(not_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_read_whole_or_not_at_all() {
        let path = std::env::temp_dir().join(format!("sigver-regular-file-{}", std::process::id()));
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read(&path, 4).unwrap_err().to_string(), "it has more than 4 bytes");
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        fs::write(&path, b"\xff").unwrap();
        assert_eq!(read_text(&path, 5).unwrap_err().to_string(), "it is not UTF-8 text");
        fs::remove_file(&path).unwrap();
        assert_eq!(read(&path, 5).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let fifo = std::env::temp_dir().join(format!("sigver-fifo-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        for path in [&*fifo, Path::new("/dev/zero")] {
            assert_eq!(read(path, 5).unwrap_err().to_string(), "it is no regular file");
        }
        fs::remove_file(&fifo).unwrap();
        assert_eq!(read(&std::env::temp_dir(), 5).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }
}
