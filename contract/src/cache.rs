//! What is cached in Redis: the names of the keys, and the scripts that read and fill them. The
//! component fills and invalidates them; the sidecar repeats an invalidation that failed, so both
//! must mean the same keys.
//!
//! All keys of a deployment have one hash tag, so that a cluster keeps them in one slot.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use sha1::{Digest as _, Sha1};
use thiserror::Error;
use uuid::Uuid;

/// Looks an answer up. Refused by every server that would refuse an invalidation.
pub static FIND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("cache/find.lua")));

/// Stores an answer under the lease that `FIND` gave.
pub static STORE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("cache/store.lua")));

/// A script, and the digest by which a server that has run it knows it. By its text each call costs
/// the server 4 µs more.
pub struct Script {
    pub text: &'static str,
    pub sha1: String,
}

impl Script {
    fn new(text: &'static str) -> Script {
        Script { text, sha1: format!("{:x}", Sha1::digest(text)) }
    }
}

/// What a deployment's keys begin with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyPrefix(String);

#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[error("{0:?} must not be empty or have braces: it becomes the hash tag of the keys in Redis")]
pub struct InvalidPrefix(String);

impl FromStr for KeyPrefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        if text.is_empty() || text.contains(['{', '}']) {
            return Err(InvalidPrefix(text.to_owned()));
        }
        Ok(KeyPrefix(text.to_owned()))
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl KeyPrefix {
    /// A hash, one field per list query: invalidated whole by every write.
    pub fn lists_key(&self) -> String {
        format!("{{{self}}}:lists")
    }

    /// A hash with the task as the API shows it: invalidated by every write to the task.
    pub fn task_key(&self, task_id: Uuid) -> String {
        format!("{{{self}}}:task:{task_id}")
    }

    /// Never exists. Deleting it shows whether the server takes invalidations.
    pub fn probe_key(&self) -> String {
        format!("{{{self}}}:probe")
    }

    /// A pattern for Redis's SCAN that matches every `task_key`.
    pub fn task_keys_pattern(&self) -> String {
        let mut pattern = "{".to_owned();
        for character in self.0.chars() {
            if matches!(character, '*' | '?' | '[' | ']' | '^' | '\\') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern + "}:task:*"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_breaks_the_hash_tag_is_refused() {
        for text in ["", "{", "}", "a{b}", "}a"] {
            assert_eq!(text.parse::<KeyPrefix>(), Err(InvalidPrefix(text.to_owned())));
        }
        let prefix: KeyPrefix = "tasks".parse().unwrap();
        assert_eq!(prefix.lists_key(), "{tasks}:lists");
        assert_eq!(prefix.task_key(Uuid::nil()), format!("{{tasks}}:task:{}", Uuid::nil()));
    }
}
