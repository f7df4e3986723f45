//! A client's JSON as plain data.
//!
//! `serde_json::Value` obeys objects whose first name is one of serde_json's private tokens: with
//! its feature `raw_value` it parses the text in such an object as JSON, past every check of names.
//! Here they are names like any other. A name that an object has twice is refused, because readers
//! differ in which value they take (RFC 8259, section 4).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Value};
use thiserror::Error;

const NAME_TWICE: &str = "an object has the same name twice";

/// Why a body is not taken as JSON. Lines and columns count from 1.
#[derive(Debug, Eq, Error, PartialEq)]
pub enum NotJson {
    #[error("the body is empty; send JSON")]
    Empty,
    #[error("the body begins with a byte order mark; send JSON without one (RFC 8259, section 8.1)")]
    ByteOrderMark,
    #[error("the body is not UTF-8 from byte {0} on; send JSON in UTF-8 (RFC 8259, section 8.1)")]
    NotUtf8(usize),
    #[error("the body ends before its JSON is complete")]
    Truncated,
    #[error("an object in the body has the same name twice, at line {line}, column {column}")]
    NameTwice { line: usize, column: usize },
    #[error("the body is nested too deeply; 127 levels are the limit")]
    TooDeep,
    #[error("the body has a number that is too large, at line {line}, column {column}")]
    NumberTooLarge { line: usize, column: usize },
    #[error("the body cannot be read as JSON from line {line}, column {column} on")]
    Syntax { line: usize, column: usize },
}

/// # Errors
/// Why it is not JSON.
pub fn parse(text: &[u8]) -> Result<Value, NotJson> {
    match serde_json::from_slice(text) {
        Ok(Plain(value)) => Ok(value),
        Err(error) => Err(NotJson::of(text, &error)),
    }
}

impl NotJson {
    fn of(text: &[u8], error: &serde_json::Error) -> NotJson {
        if text.trim_ascii().is_empty() {
            return NotJson::Empty;
        }
        if text.starts_with("\u{feff}".as_bytes()) {
            return NotJson::ByteOrderMark;
        }
        if let Err(error) = str::from_utf8(text) {
            return NotJson::NotUtf8(error.valid_up_to());
        }
        let (line, column) = (error.line(), error.column());
        // serde_json tells these apart in its words alone.
        let said = error.to_string();
        match error.classify() {
            Category::Eof => NotJson::Truncated,
            _ if said.starts_with(NAME_TWICE) => NotJson::NameTwice { line, column },
            _ if said.starts_with("recursion limit exceeded") => NotJson::TooDeep,
            _ if said.starts_with("number out of range") => NotJson::NumberTooLarge { line, column },
            Category::Syntax | Category::Data | Category::Io => NotJson::Syntax { line, column },
        }
    }
}

struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlainVisitor).map(Plain)
    }
}

struct PlainVisitor;

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Plain(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Plain(value))) = members.next_entry::<String, _>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom(NAME_TWICE));
            }
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn private_tokens_of_serde_json_are_names() {
        for token in ["$serde_json::private::RawValue", "$serde_json::private::Number"] {
            for body in [json!({ (token): "{}" }), json!([{ "a": { (token): "1" } }])] {
                assert_eq!(parse(body.to_string().as_bytes()).unwrap(), body);
            }
        }
    }

    #[test]
    fn values_are_those_of_serde_json() {
        let text = br#" {"a": [1, -1, 1.5, 18446744073709551615, "\u00fc", true, null, {}], "b": []} "#;
        assert_eq!(parse(text).unwrap(), serde_json::from_slice::<Value>(text).unwrap());
    }

    #[test]
    fn what_is_not_json_is_explained_in_our_words() {
        let deep = "[".repeat(128) + &"]".repeat(128);
        for (text, expected) in [
            (&b""[..], NotJson::Empty),
            (b" \r\n", NotJson::Empty),
            (b"\xef\xbb\xbf{}", NotJson::ByteOrderMark),
            (b"{\"a\": \"\xff\"}", NotJson::NotUtf8(7)),
            (b"{\"a\": ", NotJson::Truncated),
            (b"{\"a\": [1\n, x]}", NotJson::Syntax { line: 2, column: 3 }),
            (b"{} {}", NotJson::Syntax { line: 1, column: 4 }),
            (br#"[{"a": {"b": 1, "b": 3}}]"#, NotJson::NameTwice { line: 1, column: 23 }),
            (b"1e999", NotJson::NumberTooLarge { line: 1, column: 5 }),
            (deep.as_bytes(), NotJson::TooDeep),
        ] {
            assert_eq!(parse(text), Err(expected), "{}", String::from_utf8_lossy(text));
        }
        assert!(parse(&deep.as_bytes()[1..255]).is_ok());
    }
}
