//! Schemas of bodies, from the types: utoipa derives their form, the constants of `fields.rs` give
//! their limits.

use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::fields::{
    BATCH_TASKS_MAX, Changes, DESCRIPTION_CHARS_MAX, ERRORS_LISTED_MAX, NewTask, TAG_CHARS_MAX, TAGS_MAX,
    TITLE_CHARS_MAX,
};
use crate::headers::TraceContext;
use crate::problem::Details;
use crate::task::{Task, create};

#[derive(OpenApi)]
#[openapi(components(schemas(Task, NewTask, Changes, Details)))]
struct Derived;

/// Everything but the character that PostgreSQL cannot store.
const NO_NUL: &str = r"^[^\u0000]*$";

/// The same with something in it that `str::trim` leaves. `\s` is not quite the same characters, and
/// not the same ones in every dialect of regular expressions.
const NOT_BLANK: &str = r"^[^\u0000]*[^\u0000\u0009-\u000d\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\u0000]*$";

/// The document as utoipa begins it: version of OpenAPI, title, and the derived schemas.
pub(super) fn openapi() -> Value {
    let mut document = serde_json::to_value(Derived::openapi()).unwrap();
    let schemas = document["components"]["schemas"].as_object_mut().unwrap();
    merge_places(schemas);
    limit(schemas);
    describe_defaults(schemas);
    refuse_the_unknown(schemas);
    let replacement = replacement(schemas);
    schemas.insert("TaskReplacement".to_owned(), replacement);
    schemas.extend(undeclared());
    document
}

/// The schemas of `names`, for a document of another kind.
pub(super) fn only(names: &[&str]) -> Value {
    let mut document = openapi();
    let schemas = document["components"]["schemas"].as_object_mut().unwrap();
    names.iter().map(|name| ((*name).to_owned(), schemas.remove(*name).unwrap())).collect()
}

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

pub(super) fn task() -> Value {
    json!({
        "id": "01938a4e-9acc-77c8-b90a-92a109b260cb",
        "title": "buy milk",
        "description": null,
        "status": "todo",
        "priority": "normal",
        "due_at": "2026-12-24T18:00:00.000000Z",
        "tags": ["home", "errands"],
        "version": 1,
        "created_at": "2026-11-23T00:52:12.108849Z",
        "updated_at": "2026-11-23T00:52:12.108849Z",
    })
}

fn limit(schemas: &mut Map<String, Value>) {
    let limits = json!({
        "title": { "minLength": 1, "maxLength": TITLE_CHARS_MAX, "pattern": NOT_BLANK },
        "description": { "maxLength": DESCRIPTION_CHARS_MAX, "pattern": NO_NUL },
        "tags": {
            "maxItems": TAGS_MAX,
            "uniqueItems": true,
            "items": { "type": "string", "minLength": 1, "maxLength": TAG_CHARS_MAX, "pattern": NO_NUL },
        },
    });
    for name in ["Task", "NewTask", "TaskPatch"] {
        for (field, limits) in limits.as_object().unwrap() {
            let field = schemas[name]["properties"][field].as_object_mut().unwrap();
            field.extend(limits.as_object().unwrap().clone());
        }
    }
    schemas["Task"]["examples"] = json!([task()]);
    schemas["Problem"]["properties"]["errors"]["maxItems"] = json!(ERRORS_LISTED_MAX);
    schemas["Invalid"]["properties"]["code"]["enum"] =
        json!(["required", "type", "length", "value", "unknown"]);
}

/// Makes one object of `Invalid` and the place that it flattens. Generators drop an `allOf` with a
/// `oneOf` in it, so only the description says that the places exclude each other.
fn merge_places(schemas: &mut Map<String, Value>) {
    let place = schemas.remove("Place").unwrap();
    let mut invalid = schemas["Invalid"]["allOf"][1].take();
    for variant in place["oneOf"].as_array().unwrap() {
        let members = variant["properties"].as_object().unwrap().clone();
        invalid["properties"].as_object_mut().unwrap().extend(members);
    }
    invalid["description"] = json!(
        "One thing that is wrong with a request, and where: exactly one of pointer, parameter and header."
    );
    schemas.insert("Invalid".to_owned(), invalid);
}

/// Says what absent fields become. Generators make a field with a `default` one that always has a
/// value, and so ask for it in every request.
fn describe_defaults(schemas: &mut Map<String, Value>) {
    let defaults = json!(create(NewTask::parse(json!({ "title": "a" })).unwrap(), TraceContext::default()).0);
    let fields = schemas["NewTask"]["properties"].as_object().unwrap().keys().filter(|name| *name != "title");
    let defaults: Vec<_> = fields.map(|name| format!("{name} {}", defaults[name])).collect();
    let defaults = format!("Absent fields get their defaults: {}.", defaults.join(", "));
    schemas["NewTask"]["description"] = json!(format!("A task to be. {defaults}"));
}

/// The parser of `fields.rs` refuses unknown fields, which utoipa cannot know.
fn refuse_the_unknown(schemas: &mut Map<String, Value>) {
    for name in ["NewTask", "TaskPatch"] {
        schemas[name]["additionalProperties"] = json!(false);
    }
}

/// What PUT takes: a new task, and what a GET shows beyond that.
fn replacement(schemas: &Map<String, Value>) -> Value {
    let mut replacement = schemas["NewTask"].clone();
    replacement["description"] = json!(
        "A task as it is to be. Absent fields get the defaults of NewTask. If id, version and times are there, they \
         have to fit the task."
    );
    for name in ["id", "version", "created_at", "updated_at"] {
        replacement["properties"][name] = schemas["Task"]["properties"][name].clone();
    }
    replacement
}

/// Of JSON that no type of ours stands for: PostgreSQL makes it, or `serde_json::json!` does.
fn undeclared() -> Map<String, Value> {
    let request_id = json!({ "type": "string", "description": "Stands in the service's log as well." });
    // One type each, for generators read no list of types.
    let step = json!({ "oneOf": [{ "type": "string" }, { "type": "integer" }] });
    let schemas = json!({
        "NewTasks": {
            "type": "array",
            "description": "Tasks to be, created all or none.",
            "minItems": 1,
            "maxItems": BATCH_TASKS_MAX,
            "items": reference("NewTask"),
        },
        "PendingEvent": {
            "type": "object",
            "description": "An event that is committed and not on the topic yet.",
            "required": ["id", "event_type", "version", "time"],
            "properties": {
                "id": { "type": "string", "format": "uuid", "description": "The record's ce_id." },
                "event_type": { "type": "string", "enum": super::messages::EVENT_TYPES },
                "version": { "type": "integer", "format": "int64", "minimum": 1 },
                "time": { "type": "string", "format": "date-time" },
            },
        },
        "FastApiError": {
            "type": "object",
            "description": "The error as FastAPI would answer it, for clients that accept application/json by name \
                            and not application/problem+json.",
            "required": ["detail", "request_id"],
            "properties": { "detail": { "type": "string" }, "request_id": request_id },
        },
        "FastApiValidationError": {
            "type": "object",
            "description": "The same of a 422: its detail lists what is wrong with the request.",
            "required": ["detail", "request_id"],
            "properties": {
                "detail": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": ERRORS_LISTED_MAX,
                    "items": reference("FastApiErrorItem"),
                },
                "request_id": request_id,
                "errors_omitted": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "How many reasons there are beyond those in detail.",
                },
            },
        },
        "FastApiErrorItem": {
            "type": "object",
            "required": ["loc", "msg", "type"],
            "properties": {
                "loc": { "type": "array", "minItems": 1, "items": step },
                "msg": { "type": "string" },
                "type": { "type": "string" },
            },
        },
    });
    match schemas {
        Value::Object(schemas) => schemas,
        _ => unreachable!("written as an object"),
    }
}

#[test]
fn not_blank_means_what_trim_leaves() {
    let blank = |character: &char| {
        matches!(*character, '\t'..='\r' | ' ' | '\u{85}' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}'
            | '\u{2028}' | '\u{2029}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
    };
    assert!(('\0'..=char::MAX).all(|character| character.is_whitespace() == blank(&character)));
}
