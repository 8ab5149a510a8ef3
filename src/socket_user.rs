//! The users whose processes may be at the other end of a Unix socket.

/// User id of root.
pub(crate) const ROOT: u32 = 0;

/// Returns true if a process of `user` may act for `owner`: it is of the same user, or of root.
pub(crate) fn is_owner_or_root(user: u32, owner: u32) -> bool {
    user == owner || user == ROOT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_acts_for_another_user() {
        assert!(is_owner_or_root(1500, 1500) && is_owner_or_root(ROOT, 1500) && is_owner_or_root(ROOT, ROOT));
        assert!(!is_owner_or_root(1501, 1500) && !is_owner_or_root(1500, ROOT));
    }
}
