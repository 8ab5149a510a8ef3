//! The options of a cluster.

use super::{Outcome, called, failure, with_env};
use crate::config::{ClusterConfig, EngineLoss, EngineUrl, NodeAddress};

/// The options that the test of all options gives.
pub(super) const GIVEN: [(&str, &str); 7] = [
    ("cluster", "redis://r.example:1"),
    ("cluster-password-file", "/p"),
    ("cluster-name", "blue"),
    ("node-address", "10.0.0.5"),
    ("node-port", "8001"),
    ("node-name", "a"),
    ("engine-loss", "close"),
];

/// The values that the test of all options gives.
pub(super) fn expected() -> ClusterConfig {
    ClusterConfig {
        url: Some(EngineUrl::parse("redis://r.example:1").unwrap()),
        password_file: Some("/p".into()),
        name: "blue".to_owned(),
        node_address: Some(NodeAddress::parse("10.0.0.5").unwrap()),
        node_port: Some(8001),
        node_name: Some("a".to_owned()),
        engine_loss: EngineLoss::Close,
    }
}

#[test]
fn passwords_of_the_engine_are_not_shown() {
    let url = "redis://sigver:hush@redis.example.org";
    let Outcome::Run(config, warnings) = with_env(&["--cluster", url], &[]) else { panic!("not run") };
    assert!(config.cluster.url.as_ref().unwrap().has_password());
    assert!(
        warnings[0].contains("--cluster-password-file")
            && !format!("{config:?}{warnings:?}").contains("hush")
    );
    let Outcome::Run(_, warnings) = with_env(&[], &[("SIGVER_CLUSTER", url)]) else { panic!("not run") };
    assert!(warnings.is_empty());
    let Outcome::Check(_, text, _) = called("sigver", &["check-config"], &[("SIGVER_CLUSTER", url)]) else {
        panic!("not checked")
    };
    let line = r#"# cluster = "redis://sigver:***@redis.example.org""#;
    assert!(text.contains(line) && text.contains("SIGVER_CLUSTER, without its password"), "{text}");
    let message = failure(&["--cluster", "mysql://sigver:hush@h"], &[]);
    assert!(message.contains("mysql://sigver:***@h") && message.contains("redis://"), "{message}");
}
