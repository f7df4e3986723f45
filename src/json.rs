//! A client's JSON as plain data.
//!
//! `serde_json::Value` obeys objects whose first name is one of serde_json's private tokens: with
//! its feature `raw_value` it parses the text in such an object as JSON, past every check of names.
//! Here they are names like any other. A name that an object has twice is refused, because readers
//! differ in which value they take (RFC 8259, section 4).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// # Errors
/// Why it is not JSON.
pub fn parse(text: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(text).map(|Plain(value)| value)
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
                return Err(A::Error::custom("an object has the same name twice"));
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
    fn a_name_that_occurs_twice_is_refused() {
        let error = parse(br#"[{"a": {"b": 1, "c": 2, "b": 3}}]"#).unwrap_err().to_string();
        assert!(error.starts_with("an object has the same name twice"), "{error}");
    }
}
