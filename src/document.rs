//! What the API promises, as documents: `docs/openapi.json`, its rendition in OpenAPI 3.0 for tools
//! that read only that, and `docs/asyncapi.json`.
//!
//! Their schemas are derived from the types that serve the requests, their limits are the constants
//! that refuse them, and a test fails while a file says anything else. The files are in the repository
//! so that a change of the API is seen in its diff, and so that serving them costs the API nothing.

mod schemas; // what bodies look like
mod operations; // OpenAPI: what can be asked
mod responses; // and what is answered
mod openapi_3_0; // the same for older tools
mod messages; // AsyncAPI: what is published

use std::path::Path;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

/// Set to write the files instead of comparing them.
const UPDATE: &str = "UPDATE_DOCUMENTS";

const PROBLEM_JSON: &str = "application/problem+json";

/// For documents that cannot name a licence by its SPDX identifier.
const LICENSE_URL: &str = "https://www.apache.org/licenses/LICENSE-2.0";

/// Linters ask for an address, and the project has none: a domain that is reserved for examples.
fn contact() -> Value {
    json!({
        "name": "The maintainers of task-api",
        "url": "https://task-api.example",
        "email": "maintainers@task-api.example",
    })
}

/// A document as it is written, for a `Value` sorts its members by name.
///
/// Generators take the type of an error from the first media type of its response.
/// openapi-generator's clients accept only the first media type of all responses, and the API
/// chooses the form of an error by that.
struct ErrorsFirst<'a>(&'a Value);

impl Serialize for ErrorsFirst<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(members) => {
                let is_of_an_error = |name: &str| name == PROBLEM_JSON || name.starts_with(['4', '5']);
                let (errors, others): (Vec<_>, Vec<_>) =
                    members.iter().partition(|(name, _)| is_of_an_error(name));
                let members = errors.into_iter().chain(others);
                serializer.collect_map(members.map(|(name, member)| (name, ErrorsFirst(member))))
            }
            Value::Array(items) => serializer.collect_seq(items.iter().map(ErrorsFirst)),
            scalar => scalar.serialize(serializer),
        }
    }
}

fn compare(name: &str, document: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    let generated = serde_json::to_string_pretty(&ErrorsFirst(document)).unwrap() + "\n";
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        file == generated,
        "docs/{name} is not what the types say: run `{UPDATE}=1 cargo test --release -p task-api document`"
    );
}

/// Every `$ref` in the document, which must all lead somewhere.
fn dangling<'a>(value: &'a Value, document: &Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(target)) = members.get("$ref")
                && target.strip_prefix('#').is_none_or(|pointer| document.pointer(pointer).is_none())
            {
                found.push(target);
            }
            members.values().for_each(|member| dangling(member, document, found));
        }
        Value::Array(items) => items.iter().for_each(|item| dangling(item, document, found)),
        _ => {}
    }
}

/// Schemas that name values and not their type. Generators then guess, or give up.
fn untyped<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(members) => {
            let named = ["enum", "const"].iter().any(|keyword| members.contains_key(*keyword));
            if named && !members.get("type").is_some_and(Value::is_string) {
                found.push(value);
            }
            members.values().for_each(|member| untyped(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| untyped(item, found)),
        _ => {}
    }
}

#[test]
fn the_openapi_file_says_what_the_types_say() {
    compare("openapi.json", &operations::openapi());
}

#[test]
fn the_openapi_3_0_file_says_what_the_types_say() {
    compare("openapi-3.0.json", &openapi_3_0::rendition(&operations::openapi()));
}

#[test]
fn the_asyncapi_file_says_what_the_types_say() {
    compare("asyncapi.json", &messages::asyncapi());
}

#[test]
fn every_reference_leads_somewhere() {
    for document in [operations::openapi(), messages::asyncapi()] {
        let mut found = Vec::new();
        dangling(&document, &document, &mut found);
        assert_eq!(found, [""; 0]);
    }
}

#[test]
fn every_enum_and_const_has_a_type() {
    for document in [operations::openapi(), messages::asyncapi()] {
        let mut found = Vec::new();
        untyped(&document, &mut found);
        assert_eq!(found, Vec::<&Value>::new());
    }
}

#[test]
fn errors_and_their_problem_details_are_written_first() {
    let written = |value: Value| serde_json::to_string(&ErrorsFirst(&value)).unwrap();
    assert_eq!(written(json!({ "200": [], "304": [], "422": [] })), r#"{"422":[],"200":[],"304":[]}"#);
    assert_eq!(
        written(json!([{ "application/json": 1, PROBLEM_JSON: 2 }])),
        r#"[{"application/problem+json":2,"application/json":1}]"#
    );
}
