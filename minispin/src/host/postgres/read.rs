//! Rows on their way to the guest. A type that Spin has no kind for arrives as its raw bytes; one that only
//! Spin converts is refused by name, so that nothing is read differently there.

use anyhow::{Result, bail};
use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use tokio_postgres::{
    Row,
    types::{FromSql, Type},
};
use uuid::Uuid;

use super::Column;
use crate::host::bindings::spin::postgres::postgres::{DbDataType, DbValue};

pub(super) fn columns(row: &Row) -> Vec<Column> {
    let column = |column: &tokio_postgres::Column| Column {
        name: column.name().to_owned(),
        data_type: data_type(column.type_()),
    };
    row.columns().iter().map(column).collect()
}

pub(super) fn values(row: &Row) -> Result<Vec<DbValue>> {
    (0..row.len()).map(|index| value(row, index)).collect()
}

/// About what a value takes in memory, in bytes, for the limit on buffered results.
pub(super) fn size(value: &DbValue) -> usize {
    size_of::<DbValue>()
        + match value {
            DbValue::Str(text) | DbValue::Uuid(text) | DbValue::Decimal(text) => text.len(),
            DbValue::Binary(bytes) | DbValue::Jsonb(bytes) | DbValue::Unsupported(bytes) => bytes.len(),
            DbValue::ArrayInt32(values) => size_of_val(values.as_slice()),
            DbValue::ArrayInt64(values) => size_of_val(values.as_slice()),
            DbValue::ArrayStr(values) => {
                size_of_val(values.as_slice()) + values.iter().flatten().map(String::len).sum::<usize>()
            }
            _ => 0,
        }
}

fn data_type(ty: &Type) -> DbDataType {
    match *ty {
        Type::BOOL => DbDataType::Boolean,
        Type::INT2 => DbDataType::Int16,
        Type::INT4 => DbDataType::Int32,
        Type::INT8 => DbDataType::Int64,
        Type::FLOAT4 => DbDataType::Floating32,
        Type::FLOAT8 => DbDataType::Floating64,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR => DbDataType::Str,
        Type::BYTEA => DbDataType::Binary,
        Type::DATE => DbDataType::Date,
        Type::TIME => DbDataType::Time,
        Type::TIMESTAMP | Type::TIMESTAMPTZ => DbDataType::Datetime,
        Type::UUID => DbDataType::Uuid,
        Type::JSONB => DbDataType::Jsonb,
        Type::INT4_ARRAY => DbDataType::ArrayInt32,
        Type::INT8_ARRAY => DbDataType::ArrayInt64,
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY | Type::BPCHAR_ARRAY => DbDataType::ArrayStr,
        _ => DbDataType::Other(ty.name().to_owned()),
    }
}

fn value(row: &Row, index: usize) -> Result<DbValue> {
    let ty = row.columns()[index].type_();
    match *ty {
        Type::BOOL => read(row, index, DbValue::Boolean),
        Type::INT2 => read(row, index, DbValue::Int16),
        Type::INT4 => read(row, index, DbValue::Int32),
        Type::INT8 => read(row, index, DbValue::Int64),
        Type::FLOAT4 => read(row, index, DbValue::Floating32),
        Type::FLOAT8 => read(row, index, DbValue::Floating64),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR => read(row, index, DbValue::Str),
        Type::BYTEA => read(row, index, DbValue::Binary),
        Type::DATE => read(row, index, |value| DbValue::Date(date(value))),
        Type::TIME => read(row, index, |value| DbValue::Time(time(value))),
        // As on Spin, reading a timestamptz fails here, in the driver: it does not convert to a naive time.
        Type::TIMESTAMP | Type::TIMESTAMPTZ => read(row, index, |value| DbValue::Datetime(datetime(value))),
        Type::UUID => read(row, index, |value: Uuid| DbValue::Uuid(value.to_string())),
        Type::JSONB => {
            read(row, index, |value: serde_json::Value| DbValue::Jsonb(value.to_string().into_bytes()))
        }
        Type::INT4_ARRAY => read(row, index, DbValue::ArrayInt32),
        Type::INT8_ARRAY => read(row, index, DbValue::ArrayInt64),
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY | Type::BPCHAR_ARRAY => read(row, index, DbValue::ArrayStr),
        Type::NUMERIC
        | Type::NUMERIC_ARRAY
        | Type::INTERVAL
        | Type::INT4_RANGE
        | Type::INT8_RANGE
        | Type::NUM_RANGE => {
            bail!("minispin does not read {ty}, Spin does; cast it in the statement, to text for example")
        }
        _ => read(row, index, |Raw(bytes)| DbValue::Unsupported(bytes)),
    }
}

fn read<'r, T: FromSql<'r>>(row: &'r Row, index: usize, convert: impl Fn(T) -> DbValue) -> Result<DbValue> {
    Ok(row.try_get::<_, Option<T>>(index)?.map_or(DbValue::DbNull, convert))
}

#[expect(clippy::cast_possible_truncation, reason = "a month, day, hour, minute or second is below 61")]
fn date(value: NaiveDate) -> (i32, u8, u8) {
    (value.year(), value.month() as u8, value.day() as u8)
}

#[expect(clippy::cast_possible_truncation, reason = "a month, day, hour, minute or second is below 61")]
fn time(value: NaiveTime) -> (u8, u8, u8, u32) {
    (value.hour() as u8, value.minute() as u8, value.second() as u8, value.nanosecond())
}

fn datetime(value: NaiveDateTime) -> (i32, u8, u8, u8, u8, u8, u32) {
    let (year, month, day) = date(value.date());
    let (hour, minute, second, nanosecond) = time(value.time());
    (year, month, day, hour, minute, second, nanosecond)
}

/// A value of any type as the server sent it.
struct Raw(Vec<u8>);

impl FromSql<'_> for Raw {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.to_owned()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_every_part() {
        let value = NaiveDate::from_ymd_opt(2024, 2, 29).and_then(|d| d.and_hms_nano_opt(23, 59, 58, 7_000));
        assert_eq!(datetime(value.expect("valid")), (2024, 2, 29, 23, 59, 58, 7_000));
    }

    #[test]
    fn a_type_without_a_kind_is_named() {
        assert!(matches!(data_type(&Type::JSON), DbDataType::Other(name) if name == "json"));
        assert!(matches!(data_type(&Type::TIMESTAMPTZ), DbDataType::Datetime));
    }

    #[test]
    fn sizes_count_what_is_on_the_heap() {
        let plain = size(&DbValue::DbNull);
        assert_eq!(size(&DbValue::Str("four".into())), plain + 4);
        assert!(size(&DbValue::ArrayStr(vec![Some("four".into()), None])) > plain + 4);
    }
}
