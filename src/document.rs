//! What the API promises, as documents: `docs/openapi.json` and `docs/asyncapi.json`.
//!
//! Their schemas are derived from the types that serve the requests, their limits are the constants
//! that refuse them, and a test fails while a file says anything else. The files are in the repository
//! so that a change of the API is seen in its diff, and so that serving them costs the API nothing.

mod schemas; // what bodies look like
mod operations; // OpenAPI: what can be asked
mod responses; // and what is answered
mod messages; // AsyncAPI: what is published

use std::path::Path;

use serde_json::Value;

/// Set to write the files instead of comparing them.
const UPDATE: &str = "UPDATE_DOCUMENTS";

fn compare(name: &str, document: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    let generated = serde_json::to_string_pretty(document).unwrap() + "\n";
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        file == generated,
        "docs/{name} is not what the types say: run `{UPDATE}=1 cargo test -p task-api document`"
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

#[test]
fn the_openapi_file_says_what_the_types_say() {
    compare("openapi.json", &operations::openapi());
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
