//! Texts for errors of files that the operator named.

use std::io;

/// Returns the text for an error of reading a file.
pub(crate) fn read_error_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => system_error_text(error),
    }
}

/// Returns the text for an error of making a file, such as that of a Unix socket.
pub(crate) fn create_error_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "its folder does not exist".to_owned(),
        io::ErrorKind::NotADirectory => "its folder is a file".to_owned(),
        _ => system_error_text(error),
    }
}

/// Returns the text for an error of the system, without its number.
fn system_error_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string().split(" (os error ").next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_no_numbers_of_the_system() {
        for (number, read, created) in [
            (2, "there is no such file", "its folder does not exist"),
            (13, "permission denied", "permission denied"),
            (20, "Not a directory", "its folder is a file"),
            (21, "it is a directory", "it is a directory"),
            (40, "Too many levels of symbolic links", "Too many levels of symbolic links"),
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!((&*read_error_text(&error), &*create_error_text(&error)), (read, created));
        }
        assert_eq!(read_error_text(&io::Error::other("it is no regular file")), "it is no regular file");
    }
}
