//! Names of what is cached in Redis. The component fills and drops it; the sidecar repeats a drop
//! that failed, so both must mean the same keys.

use uuid::Uuid;

/// A hash, one field per list query: dropped whole on every write.
pub fn lists_key(prefix: &str) -> String {
    format!("{prefix}:lists")
}

/// A string: the task as the API shows it.
pub fn task_key(prefix: &str, task_id: Uuid) -> String {
    format!("{prefix}:task:{task_id}")
}
