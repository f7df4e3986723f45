//! One JSON object a line on standard error, which Spin writes to a file for each component.
//! A `tracing` subscriber would be a third of the guest's size.

use std::error::Error;

use contract::timestamp;
use serde_json::json;

pub fn info(message: &str) {
    line("INFO", message, None, None);
}

pub fn warn(message: &str, error: &dyn Error) {
    line("WARN", message, None, Some(error));
}

pub fn error(message: &str, request_id: &str, error: &dyn Error) {
    line("ERROR", message, Some(request_id), Some(error));
}

fn line(level: &str, message: &str, request_id: Option<&str>, error: Option<&dyn Error>) {
    let mut line =
        json!({ "timestamp": timestamp::to_text(&timestamp::now()), "level": level, "message": message });
    if let Some(request_id) = request_id {
        line["request_id"] = request_id.into();
    }
    if let Some(error) = error {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        line["error"] = text.into();
    }
    eprintln!("{line}");
}
