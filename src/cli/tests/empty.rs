//! Empty values: of a shell's variable that is not set, for instance.

use super::*;

#[test]
fn empty_variables_are_absent() {
    let empty =
        ["SIGVER_PORT", "SIGVER_HOST", "SIGVER_KEY", "SIGVER_CERT", "SIGVER_CLIENT_CA", "SIGVER_AUTH"];
    assert_eq!(config(&[], &empty.map(|name| (name, ""))), defaults());
}

#[test]
fn empty_value_on_the_command_line_is_an_error() {
    for args in [
        &["-k", "", "-c", ""][..],
        &["-k", "k", "--cert="],
        &["-k", "k", "-c", "c", "--client-ca", ""],
        &["--host", ""],
        &["--host="],
        &["--auth-jwt-audience", ""],
        &["--signaller-origin", ""],
        &["--cluster-password-file", ""],
        &["--bridge-rooms", ""],
    ] {
        let error = failure(args, &[]);
        assert!(error.contains(" argument '' is invalid. It is empty, as a variable of a shell"), "{error}");
    }
    // The reason is that of the option where it has one.
    for option in OPTIONS.iter().filter(|option| option.is_file_key() && option.long != "ca") {
        let error = failure(&[&format!("--{}=", option.long)], &[]);
        assert!(error.contains("argument '' is invalid. "), "{error}");
    }
}

#[test]
fn intermediate_certificates_may_be_empty() {
    assert_eq!(config(&["-k", "k", "-c", "c", "-a", ""], &[]).tls.map(|tls| tls.ca), Some(None));
}

#[test]
fn empty_file_name_in_the_configuration_file_is_an_error() {
    for file in ["key = \"\"\ncert = \"\"", "client-ca = \"\""] {
        let outcome = with_file("sigver", &["--config", "sigver.toml"], &[], file);
        let Outcome::Fail(text) = outcome else { panic!("{outcome:?}") };
        assert!(text.contains(" value '' in sigver.toml is invalid. It is empty, as a"), "{text}");
    }
}
