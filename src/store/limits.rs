//! What the server itself ends: a statement that its guest gave up would otherwise hold its session
//! for as long as it waits, and take effect when nobody expects it any more.
//!
//! The limits are options of the session, because the host resets everything else when it hands a
//! connection out. They bound every statement in the same way, so no
//! `client_connection_check_interval` is needed: not every server has it.

use std::time::Duration;

/// The URL, with limits for each statement: as long as the guest waits, and two fifths of that for
/// a lock, so that the server's refusal comes while the guest still waits for it. The operator's
/// own options come last and win.
pub fn with_limits(database_url: &str, timeout: Duration) -> String {
    let (address, query) = database_url.split_once('?').unwrap_or((database_url, ""));
    let (mut options, mut others) = (Vec::new(), Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.strip_prefix("options=") {
            Some(own) => options.push(own),
            None => others.push(pair),
        }
    }
    let (statement_ms, lock_ms) = (timeout.as_millis(), (timeout * 2 / 5).as_millis());
    let limits = format!("options=-c%20statement_timeout%3D{statement_ms}%20-c%20lock_timeout%3D{lock_ms}");
    options.insert(0, &limits);
    let options = options.join("%20");
    others.push(&options);
    format!("{address}?{}", others.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "options=-c%20statement_timeout%3D5000%20-c%20lock_timeout%3D2000";

    #[test]
    fn limits_are_added_to_the_operators_own_options() {
        let url = "postgres://u:p@h:5432/d";
        for (given, expected) in [
            (url.to_owned(), format!("{url}?{LIMITS}")),
            (format!("{url}?"), format!("{url}?{LIMITS}")),
            (format!("{url}?sslmode=disable"), format!("{url}?sslmode=disable&{LIMITS}")),
            (
                format!("{url}?options=-c%20work_mem%3D8MB&sslmode=disable"),
                format!("{url}?sslmode=disable&{LIMITS}%20-c%20work_mem%3D8MB"),
            ),
        ] {
            assert_eq!(with_limits(&given, Duration::from_secs(5)), expected);
        }
    }
}
