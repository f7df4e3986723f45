//! OpenAPI 3.0, for tools that read nothing newer: the same document in older words.
//!
//! Only what the document uses is rewritten. The tests validate the result against OpenAPI 3.0,
//! whose schema refuses any other keyword of 3.1.

use serde_json::{Value, json};

use super::LICENSE_URL;

pub(super) fn rendition(openapi: &Value) -> Value {
    let mut older = openapi.clone();
    older["openapi"] = json!("3.0.4");
    older["info"]["license"] = json!({ "name": openapi["info"]["license"]["name"], "url": LICENSE_URL });
    rewrite(&mut older);
    older
}

fn rewrite(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::Array(types)) = members.get("type") {
                let [only, null] = types.as_slice() else { panic!("3.0 has no {types:?}") };
                assert_eq!(null, "null");
                let only = only.clone();
                members.insert("type".to_owned(), only);
                members.insert("nullable".to_owned(), json!(true));
            }
            // Those of a media type are an object, in 3.0 too.
            if members.get("examples").is_some_and(Value::is_array) {
                let examples = members.remove("examples").unwrap();
                members.insert("example".to_owned(), examples[0].clone());
            }
            members.values_mut().for_each(rewrite);
        }
        Value::Array(items) => items.iter_mut().for_each(rewrite),
        _ => {}
    }
}

#[test]
fn null_and_examples_are_said_in_the_words_of_3_0() {
    let schema = json!({ "type": ["string", "null"], "examples": ["a", "b"] });
    let openapi = json!({
        "openapi": "3.1.0",
        "info": { "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" } },
        "components": { "schemas": { "Text": schema } },
    });
    assert_eq!(
        rendition(&openapi),
        json!({
            "openapi": "3.0.4",
            "info": { "license": { "name": "Apache-2.0", "url": LICENSE_URL } },
            "components": { "schemas": {
                "Text": { "type": "string", "nullable": true, "example": "a" },
            } },
        })
    );
}
