//! The names of rooms in the engine, which does not know their keys.

use std::fmt;

use ring::hmac;

/// The name of a room in the engine, which does not show its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NameHash(String);

impl fmt::Display for NameHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The function from keys of rooms to their names in the engine, which is another one in each cluster.
#[derive(Clone, Debug)]
pub struct NameHasher(hmac::Key);

impl NameHasher {
    /// Creates the function of the cluster of this name.
    pub fn new(cluster: &str) -> Self {
        NameHasher(hmac::Key::new(hmac::HMAC_SHA256, cluster.as_bytes()))
    }

    /// Returns the name of a room: a hash of its key, so that the engine does not know what lets peers in.
    pub fn room(&self, text: &str, partition: u8) -> NameHash {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&[b'r', partition]);
        context.update(text.as_bytes());
        let tag = context.sign();
        NameHash(data_encoding::HEXLOWER.encode(tag.as_ref().get(..16).unwrap_or_default()))
    }
}
