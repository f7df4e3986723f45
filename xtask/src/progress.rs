//! Says on standard error what goes on, in cargo's layout, between whose lines it stands.

/// `   Starting PostgreSQL`
pub fn say(verb: &str, what: impl std::fmt::Display) {
    eprintln!("{verb:>12} {what}");
}
