//! Names of what is cached in Redis. The component fills and drops it; the sidecar repeats a drop
//! that failed, so both must mean the same keys.

use uuid::Uuid;

/// A hash, one field per list query: dropped whole on every write.
pub fn lists_key(prefix: &str) -> String {
    format!("{prefix}:lists")
}

/// A hash with the task as the API shows it: dropped on every write to the task.
pub fn task_key(prefix: &str, task_id: Uuid) -> String {
    format!("{prefix}:task:{task_id}")
}

/// A pattern for Redis's SCAN that matches every `task_key`.
pub fn task_keys_pattern(prefix: &str) -> String {
    let mut pattern = String::new();
    for character in prefix.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '^' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern + ":task:*"
}
