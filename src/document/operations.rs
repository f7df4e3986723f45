//! OpenAPI: the operations of `api.rs`, with what each takes and answers.

use serde_json::{Map, Value, json};

use super::contact;
use super::responses::{self, answer, errors};
use super::schemas::{self, reference, task};
use crate::fields::{TAG_CHARS_MAX, TAGS_MAX};
use crate::headers::IDEMPOTENCY_KEY_CHARS_MAX;
use crate::problem::PATCH_MEDIA_TYPES;
use crate::query::{CURSOR_CHARS_MAX, LIMIT_DEFAULT, LIMIT_MAX, OFFSET_MAX, SortKey, WORDS_CHARS_MAX};

const MINIMAL: &str = "Done, and with Prefer: return=minimal not shown.";

pub(super) fn openapi() -> Value {
    let mut document = schemas::openapi();
    document["info"]["title"] = json!("Task API");
    document["info"]["description"] = json!(
        "Tasks, whose every change is committed together with its event for the topic `task_events`; \
         /asyncapi.json describes those. A list refuses query parameters that are not listed here, and all but `tag` \
         if they are there twice. HEAD is \
         answered wherever GET is, and OPTIONS everywhere."
    );
    document["info"]["contact"] = contact();
    document["tags"] =
        json!([{ "name": "tasks", "description": "Tasks, and their events that wait for the topic." }]);
    document["servers"] = json!([{ "url": "/" }]);
    // Without configured tokens the API is open; nothing in a document can say which it is.
    document["security"] = json!([{}, { "bearer": [] }]);
    document["paths"] = json!({
        "/api/tasks": { "get": list(), "post": create() },
        "/api/tasks:batch": { "post": create_many() },
        "/api/tasks/{id}": {
            "parameters": [parameter("TaskId")],
            "get": read(),
            "put": replace(),
            "patch": patch(),
            "delete": delete(),
        },
        "/api/tasks/{id}/events": { "parameters": [parameter("TaskId")], "get": events() },
    });
    let components = document["components"].as_object_mut().unwrap();
    components.insert("parameters".to_owned(), parameters());
    components.insert("headers".to_owned(), responses::headers());
    components.insert("responses".to_owned(), responses::components());
    let scheme =
        json!({ "type": "http", "scheme": "bearer", "description": "If any tokens are configured." });
    components.insert("securitySchemes".to_owned(), json!({ "bearer": scheme }));
    document
}

fn list() -> Value {
    let filters = ["Status", "Priority", "Tag", "DueBefore", "Words", "Sort", "Cursor", "Limit", "Offset"];
    let page = json!({ "type": "array", "maxItems": LIMIT_MAX, "items": reference("Task") });
    json!({
        "tags": ["tasks"],
        "operationId": "listTasks",
        "summary": "A page of tasks, the newest first if nothing else is asked for",
        "description": "Filters narrow the list together. The Link header of a page leads to the next one.",
        "parameters": asked(&filters),
        "responses": with("200", answer("A page; Link leads to the next one.", &["Link"], Some(page)), &["422"]),
    })
}

fn create() -> Value {
    let headers = &["Location", "ETag", "Preference-Applied", "Event-Receipt"];
    let mut created = answer("The task.", headers, Some(reference("Task")));
    created["links"] = links();
    let mut responses = with("201", created, &["400", "408", "409", "413", "415", "422"]);
    responses["204"] = answer(MINIMAL, headers, None);
    json!({
        "tags": ["tasks"],
        "operationId": "createTask",
        "summary": "Create a task",
        "description": "The task and its event are committed together. With an Idempotency-Key the request is safe to repeat.",
        "parameters": asked(&["IdempotencyKey", "Prefer", "Traceparent", "Tracestate"]),
        "requestBody": body("NewTask", &["application/json"], &json!({ "title": "buy milk" })),
        "responses": responses,
    })
}

fn create_many() -> Value {
    let tasks = json!({ "type": "array", "items": reference("Task") });
    let headers = &["Preference-Applied", "Event-Receipt"];
    let created = answer("The tasks in the order of the request.", headers, Some(tasks));
    let mut responses = with("201", created, &["400", "408", "409", "413", "415", "422"]);
    responses["204"] = answer(MINIMAL, headers, None);
    json!({
        "tags": ["tasks"],
        "operationId": "createTasks",
        "summary": "Create up to 500 tasks, all or none",
        "description": "One invalid task refuses the batch. With an Idempotency-Key the request is safe to repeat.",
        "parameters": asked(&["IdempotencyKey", "Prefer", "Traceparent", "Tracestate"]),
        "requestBody": body("NewTasks", &["application/json"], &json!([{ "title": "a" }, { "title": "b" }])),
        "responses": responses,
    })
}

fn read() -> Value {
    let task = answer("The task.", &["ETag"], Some(reference("Task")));
    let mut responses = with("200", task, &["404", "412", "422"]);
    responses["304"] = answer("The task has the version that If-None-Match names.", &["ETag"], None);
    json!({
        "tags": ["tasks"],
        "operationId": "getTask",
        "summary": "Read a task",
        "description": "With If-None-Match, a task that is still of that version is not sent again.",
        "parameters": asked(&["IfMatch", "IfNoneMatch"]),
        "responses": responses,
    })
}

fn replace() -> Value {
    json!({
        "tags": ["tasks"],
        "operationId": "replaceTask",
        "summary": "Set every field of a task, absent ones to their defaults",
        "description": "What a GET shows can be sent back: id, version, created_at and updated_at have to be the task's, \
                        or absent.",
        "parameters": asked(&["IfMatch", "IfNoneMatch", "Prefer", "Traceparent", "Tracestate"]),
        "requestBody": body("TaskReplacement", &["application/json"], &json!({ "title": "buy milk", "status": "done" })),
        "responses": changed(),
    })
}

fn patch() -> Value {
    json!({
        "tags": ["tasks"],
        "operationId": "patchTask",
        "summary": "Change some fields of a task (RFC 7396)",
        "description": "Absent fields stay as they are. Null removes description and due_at.",
        "parameters": asked(&["IfMatch", "IfNoneMatch", "Prefer", "Traceparent", "Tracestate"]),
        "requestBody": body("TaskPatch", PATCH_MEDIA_TYPES, &json!({ "status": "done", "due_at": null })),
        "responses": changed(),
    })
}

fn delete() -> Value {
    let headers = &["Preference-Applied", "Event-Receipt"];
    json!({
        "tags": ["tasks"],
        "operationId": "deleteTask",
        "summary": "Delete a task",
        "description": "The event of the deletion carries the task's last state.",
        "parameters": asked(&["IfMatch", "IfNoneMatch", "Prefer", "Traceparent", "Tracestate"]),
        "responses": with(
            "204",
            answer("There is no such task any more.", headers, None),
            &["400", "404", "412", "422", "428"],
        ),
    })
}

fn events() -> Value {
    let events = json!({ "type": "array", "maxItems": 100, "items": reference("PendingEvent") });
    let found = answer("The oldest 100, in the order of versions; none if all are.", &[], Some(events));
    json!({
        "tags": ["tasks"],
        "operationId": "listPendingEvents",
        "summary": "What happened to a task and is not on the topic yet",
        "description": "The events of a deleted task are shown too, until they are on the topic.",
        "responses": with("200", found, &["404", "422"]),
    })
}

/// Answers to PUT and PATCH.
fn changed() -> Value {
    let headers = &["ETag", "Preference-Applied", "Event-Receipt"];
    let told = "The task. If there was nothing to change it has its old version, and there is no event.";
    let mut responses = with(
        "200",
        answer(told, headers, Some(reference("Task"))),
        &["400", "404", "408", "412", "413", "415", "422", "428"],
    );
    responses["204"] = answer(MINIMAL, headers, None);
    responses
}

/// What a created task's id is good for.
fn links() -> Value {
    let operations = ["getTask", "replaceTask", "patchTask", "deleteTask", "listPendingEvents"];
    let link =
        |operation: &str| json!({ "operationId": operation, "parameters": { "id": "$response.body#/id" } });
    operations.map(|operation| (operation.to_owned(), link(operation))).into_iter().collect()
}

fn with(status: &str, answer: Value, statuses: &[&str]) -> Value {
    let mut responses = errors(statuses);
    responses.insert(status.to_owned(), answer);
    Value::Object(responses)
}

fn body(schema: &str, media_types: &[&str], example: &Value) -> Value {
    let content: Map<_, _> = media_types
        .iter()
        .map(|name| ((*name).to_owned(), json!({ "schema": reference(schema), "example": example })))
        .collect();
    json!({ "required": true, "content": content })
}

fn parameter(name: &str) -> Value {
    json!({ "$ref": format!("#/components/parameters/{name}") })
}

/// These parameters, and the one that every operation takes.
fn asked(names: &[&str]) -> Vec<Value> {
    names.iter().chain(&["RequestId"]).map(|name| parameter(name)).collect()
}

fn parameters() -> Value {
    let query = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "query", "description": description, "schema": schema });
    let header = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "header", "description": description, "schema": schema });
    let text = |examples: &[&str]| json!({ "type": "string", "examples": examples });
    let words = |chars_max: usize| json!({ "type": "string", "minLength": 1, "maxLength": chars_max, "pattern": r"^[^\u0000]*$" });
    let sorts: Vec<_> =
        SortKey::ALL.iter().flat_map(|key| [key.name().to_owned(), format!("-{}", key.name())]).collect();
    // In quotes as the draft has it, or bare as many clients send it; no quote within.
    let key = format!(
        "^(\"[ !#-~]{{1,{IDEMPOTENCY_KEY_CHARS_MAX}}}\"|[!#-~]([ !#-~]{{0,{}}}[!#-~])?)$",
        IDEMPOTENCY_KEY_CHARS_MAX - 2
    );
    json!({
        "TaskId": {
            "name": "id", "in": "path", "required": true,
            "schema": { "type": "string", "format": "uuid", "examples": [task()["id"]] },
        },
        "Status": query("status", "Only tasks in this status.", reference("Status")),
        "Priority": query("priority", "Only tasks of this priority.", reference("Priority")),
        "Tag": query(
            "tag",
            "Only tasks that have all these tags: `tag=a&tag=b`.",
            json!({ "type": "array", "maxItems": TAGS_MAX, "items": words(TAG_CHARS_MAX) }),
        ),
        "DueBefore": query(
            "due_before",
            "Only tasks that are due before this time.",
            json!({ "type": "string", "format": "date-time" }),
        ),
        "Words": query(
            "q",
            "Only tasks whose title and description have all these words. A word is found by its beginning, \
             without regard to case and accents; each Chinese or Japanese character is a word. White space, \
             punctuation and symbols separate words. At least one letter or digit is needed.",
            words(WORDS_CHARS_MAX),
        ),
        "Sort": query("sort", "A minus is for descending.", json!({ "type": "string", "enum": sorts, "default": "-created_at" })),
        "Cursor": query(
            "cursor",
            "Where the page begins: from the Link header of the page before, with the same sort. Not with \
             an offset.",
            json!({ "type": "string", "format": "task-cursor", "maxLength": CURSOR_CHARS_MAX }),
        ),
        "Limit": query(
            "limit",
            "Tasks on the page.",
            json!({ "type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT }),
        ),
        "Offset": query(
            "offset",
            "Tasks to leave out before the page; the cursor is stable under changes and goes further.",
            json!({ "type": "integer", "minimum": 0, "maximum": OFFSET_MAX, "default": 0 }),
        ),
        "IfMatch": header(
            "If-Match",
            "Entity tags of the versions that the request is meant for, or `*`. Anything else is 422. A weak tag never \
             matches. A setting makes the header mandatory for changes.",
            text(&["\"1\""]),
        ),
        "IfNoneMatch": header("If-None-Match", "Entity tags of versions that are not wanted.", text(&["\"7\"", "*"])),
        "IdempotencyKey": header(
            "Idempotency-Key",
            "Makes the request safe to repeat for 24 hours: the same key and body give the first answer again. A key \
             belongs to the path and the bearer token that it is sent with. PUT, PATCH and DELETE refuse it.",
            json!({ "type": "string", "pattern": key, "examples": ["\"8e03978e-40d5-43e8-bc93-6894a57f9324\""] }),
        ),
        "Prefer": header(
            "Prefer",
            "`wait=N` waits up to N seconds, 30 at most, for the broker to have the event; `return=minimal` \
             leaves the task out of the answer. Others are ignored (RFC 7240).",
            text(&["wait=1", "return=minimal"]),
        ),
        "Traceparent": header(
            "traceparent",
            "W3C Trace Context, passed on with the event; ignored if it is not valid, as that says.",
            text(&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]),
        ),
        "Tracestate": header(
            "tracestate",
            "W3C Trace Context, passed on with a valid traceparent.",
            text(&["vendor=value"]),
        ),
        "RequestId": header(
            "X-Request-Id",
            "An id of the client's own: 1 to 128 letters, digits, `-`, `_` or `.`; ignored if it is anything else.",
            text(&["checkout-7"]),
        ),
    })
}
