//! Times as text: RFC 3339 in UTC with six digits of a second, the precision that PostgreSQL keeps.
//! Use as `#[serde(with = "contract::timestamp")]`.

use chrono::{DateTime, SecondsFormat, SubsecRound as _, Utc};
use serde::{Deserialize as _, Deserializer, Serializer};

/// The present, cut to what can be stored, so that what was answered once is what is read later.
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// For example `2026-11-22T23:52:32.000100Z`.
pub fn to_text(time: &DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

pub fn serialize<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&to_text(time))
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    DateTime::<Utc>::deserialize(deserializer)
}

/// The same for a time that may be absent, as null.
pub mod option {
    use super::{DateTime, Serializer, Utc, to_text};

    pub fn serialize<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.serialize_some(&to_text(time)),
            None => serializer.serialize_none(),
        }
    }
}
