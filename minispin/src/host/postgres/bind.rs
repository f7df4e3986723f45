//! Parameters on their way to the server. A value binds to the types that Spin's driver binds it to: a
//! `datetime` not to `timestamptz`, a `timestamp` to nothing else.

use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use tokio_postgres::types::{IsNull, ToSql, Type};
use uuid::Uuid;

use super::ParameterValue;

pub(super) type Parameter = Box<dyn ToSql + Sync + Send>;

/// Converts all, or says which value cannot be converted.
pub(super) fn parameters(values: &[ParameterValue]) -> Result<Vec<Parameter>, String> {
    values
        .iter()
        .enumerate()
        .map(|(index, value)| parameter(value).map_err(|error| format!("${}: {error:#}", index + 1)))
        .collect()
}

pub(super) fn as_dyn(parameter: &Parameter) -> &(dyn ToSql + Sync) {
    parameter.as_ref()
}

fn parameter(value: &ParameterValue) -> Result<Parameter> {
    Ok(match value {
        ParameterValue::Boolean(value) => Box::new(*value),
        ParameterValue::Int8(value) => Box::new(*value),
        ParameterValue::Int16(value) => Box::new(*value),
        ParameterValue::Int32(value) => Box::new(*value),
        ParameterValue::Int64(value) => Box::new(*value),
        ParameterValue::Floating32(value) => Box::new(*value),
        ParameterValue::Floating64(value) => Box::new(*value),
        ParameterValue::Str(value) => Box::new(value.clone()),
        ParameterValue::Binary(value) => Box::new(value.clone()),
        ParameterValue::Date(value) => Box::new(date(value)?),
        ParameterValue::Time(value) => Box::new(time(*value)?),
        &ParameterValue::Datetime((year, month, day, hour, minute, second, nanosecond)) => Box::new(
            NaiveDateTime::new(date(&(year, month, day))?, time((hour, minute, second, nanosecond))?),
        ),
        ParameterValue::Timestamp(seconds) => Box::new(
            DateTime::<Utc>::from_timestamp(*seconds, 0)
                .with_context(|| format!("invalid epoch timestamp {seconds}"))?,
        ),
        ParameterValue::Uuid(value) => {
            Box::new(Uuid::parse_str(value).with_context(|| format!("invalid UUID {value}"))?)
        }
        ParameterValue::Jsonb(value) => {
            Box::new(serde_json::from_slice::<serde_json::Value>(value).context("invalid JSON")?)
        }
        ParameterValue::ArrayInt32(values) => Box::new(values.clone()),
        ParameterValue::ArrayInt64(values) => Box::new(values.clone()),
        ParameterValue::ArrayStr(values) => Box::new(values.clone()),
        ParameterValue::DbNull => Box::new(Null),
        ParameterValue::Decimal(_) => return unsupported("decimal"),
        ParameterValue::RangeInt32(_) => return unsupported("range-int32"),
        ParameterValue::RangeInt64(_) => return unsupported("range-int64"),
        ParameterValue::RangeDecimal(_) => return unsupported("range-decimal"),
        ParameterValue::ArrayDecimal(_) => return unsupported("array-decimal"),
        ParameterValue::Interval(_) => return unsupported("interval"),
    })
}

fn unsupported(kind: &str) -> Result<Parameter> {
    bail!("minispin does not bind {kind} values, Spin does; pass text and cast it in the statement")
}

fn date(&(year, month, day): &(i32, u8, u8)) -> Result<NaiveDate> {
    NaiveDate::from_ymd_opt(year, month.into(), day.into())
        .with_context(|| format!("invalid date y={year}, m={month}, d={day}"))
}

fn time((hour, minute, second, nanosecond): (u8, u8, u8, u32)) -> Result<NaiveTime> {
    NaiveTime::from_hms_nano_opt(hour.into(), minute.into(), second.into(), nanosecond)
        .with_context(|| format!("invalid time {hour}:{minute}:{second}:{nanosecond}"))
}

/// NULL of whichever type the statement wants; an `Option` would insist on its own.
#[derive(Debug)]
struct Null;

impl ToSql for Null {
    fn to_sql(&self, _: &Type, _: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        Ok(IsNull::Yes)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(
        &self,
        _: &Type,
        _: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        Ok(IsNull::Yes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that a value becomes, or the reason why it does not fit the type.
    fn bind(value: &ParameterValue, ty: &Type) -> Result<BytesMut, String> {
        let mut bytes = BytesMut::new();
        let parameter = parameter(value).map_err(|error| error.to_string())?;
        parameter.to_sql_checked(ty, &mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    #[test]
    fn a_datetime_binds_to_timestamp_only_and_a_timestamp_to_timestamptz_only() {
        let datetime = ParameterValue::Datetime((2000, 1, 1, 0, 0, 1, 0));
        assert_eq!(bind(&datetime, &Type::TIMESTAMP).expect("binds")[..], 1_000_000_i64.to_be_bytes());
        assert!(bind(&datetime, &Type::TIMESTAMPTZ).is_err());

        // The epoch of PostgreSQL is 2000-01-01.
        let timestamp = ParameterValue::Timestamp(946_684_801);
        assert_eq!(bind(&timestamp, &Type::TIMESTAMPTZ).expect("binds")[..], 1_000_000_i64.to_be_bytes());
        assert!(bind(&timestamp, &Type::TIMESTAMP).is_err());
    }

    #[test]
    fn jsonb_binds_to_json_and_null_to_anything() {
        let json = ParameterValue::Jsonb(b"{\"a\": 1}".to_vec());
        assert!(bind(&json, &Type::JSON).is_ok());
        assert!(bind(&json, &Type::JSONB).is_ok());
        for ty in [Type::UUID, Type::TIMESTAMPTZ, Type::INT4_ARRAY, Type::POINT] {
            assert!(bind(&ParameterValue::DbNull, &ty).is_ok(), "{ty}");
        }
    }

    #[test]
    fn values_that_mean_nothing_are_refused() {
        for (value, reason) in [
            (ParameterValue::Uuid("x".into()), "invalid UUID x"),
            (ParameterValue::Date((2023, 2, 29)), "invalid date"),
            (ParameterValue::Datetime((2023, 2, 28, 24, 0, 0, 0)), "invalid time"),
            (ParameterValue::Jsonb(b"{".to_vec()), "invalid JSON"),
            (ParameterValue::Decimal("1".into()), "does not bind decimal"),
        ] {
            let error = parameters(&[value]).expect_err("refused");
            assert!(error.starts_with("$1: ") && error.contains(reason), "{error}");
        }
    }
}
