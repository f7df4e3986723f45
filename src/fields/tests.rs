use serde_json::json;

use super::*;

fn named(errors: &Errors) -> Vec<(String, &'static str)> {
    let name = |invalid: &Invalid| match &invalid.place {
        Place::Pointer(place) | Place::Parameter(place) | Place::Header(place) => {
            (place.clone(), invalid.code)
        }
    };
    errors.listed().iter().map(name).collect()
}

fn refused(body: Value) -> Vec<(String, &'static str)> {
    named(&NewTask::parse(body).expect_err("refused"))
}

#[test]
fn a_title_is_enough() {
    let task = NewTask::parse(json!({ "title": "  buy milk " })).unwrap();
    assert_eq!((task.title.as_str(), task.description, task.status), ("buy milk", None, Status::Todo));
    assert_eq!((task.priority, task.due_at, task.tags), (Priority::Normal, None, vec![]));
}

#[test]
fn lengths_are_counted_in_characters_and_up_to_the_limit() {
    let tags: Vec<_> = (10..30).map(|number| format!("{number}{}", "ü".repeat(48))).collect();
    NewTask::parse(json!({ "title": "ä".repeat(200), "description": "😀".repeat(10_000), "tags": tags }))
        .unwrap();
    let above =
        json!({ "title": "ä".repeat(201), "description": "😀".repeat(10_001), "tags": ["x".repeat(51)] });
    assert_eq!(
        refused(above),
        [("/title".into(), "length"), ("/description".into(), "length"), ("/tags/0".into(), "length")]
    );
    let too_many: Vec<_> = (0..21).map(|number| number.to_string()).collect();
    assert_eq!(refused(json!({ "title": "a", "tags": too_many })), [("/tags".into(), "length")]);
}

#[test]
fn every_bad_field_is_named_at_once() {
    let body = json!({
        "title": " ", "description": 7, "status": "eaten", "priority": 1, "due_at": "tomorrow",
        "tags": ["a", "", "a", 1], "prio/rity": 1
    });
    assert_eq!(
        refused(body),
        [
            ("/title".into(), "length"),
            ("/description".into(), "type"),
            ("/status".into(), "value"),
            ("/priority".into(), "type"),
            ("/due_at".into(), "value"),
            ("/tags/1".into(), "length"),
            ("/tags/2".into(), "value"),
            ("/tags/3".into(), "type"),
            ("/prio~1rity".into(), "unknown"),
        ]
    );
}

#[test]
fn what_is_not_a_task_is_refused() {
    assert_eq!(refused(json!([])), [(String::new(), "type")]);
    assert_eq!(refused(json!({})), [("/title".into(), "required")]);
    assert_eq!(refused(json!({ "title": null })), [("/title".into(), "type")]);
    assert_eq!(refused(json!({ "title": "a\0b" })), [("/title".into(), "value")]);
    assert_eq!(refused(json!({ "title": "a", "status": null })), [("/status".into(), "type")]);
}

#[test]
fn absent_and_null_are_different_in_a_patch() {
    let changes =
        Changes::parse_patch(json!({ "description": null, "due_at": "2026-12-24T18:00:00+01:00" })).unwrap();
    assert_eq!((changes.title, changes.description), (None, Some(None)));
    assert_eq!(changes.due_at, Some(parse_time("2026-12-24T17:00:00Z")));
    assert!(changes.tags.is_none() && changes.status.is_none());
    for name in ["title", "status", "priority", "tags"] {
        let invalid = Changes::parse_patch(json!({ (name): null })).expect_err("refused");
        assert_eq!(named(&invalid), [(format!("/{name}"), "type")]);
    }
}

#[test]
fn a_batch_names_the_place_of_what_is_wrong() {
    let tasks = NewTask::parse_batch(json!([{ "title": "a" }, { "title": "b" }])).unwrap();
    assert_eq!(tasks.len(), 2);
    let body = json!([{ "title": "a" }, {}, 7, { "title": "b", "x": 1 }]);
    assert_eq!(
        named(&NewTask::parse_batch(body).expect_err("refused")),
        [("/1/title".into(), "required"), ("/2".into(), "type"), ("/3/x".into(), "unknown")]
    );
    assert_eq!(named(&NewTask::parse_batch(json!([])).expect_err("refused")), [(String::new(), "length")]);
}

#[test]
fn times_need_an_offset_and_a_year_that_text_can_hold() {
    for bad in ["2026-12-24", "2026-12-24T18:00:00", "0000-01-01T00:00:00Z", "9999-12-31T23:00:00-02:00", ""]
    {
        assert_eq!(parse_time(bad), None, "{bad}");
    }
}

#[test]
fn fifty_errors_are_listed_and_the_rest_counted() {
    let fields: Map<_, _> = (0..290).map(|number| (number.to_string(), Value::Null)).collect();
    let errors = NewTask::parse_batch(json!(vec![fields; 500])).expect_err("refused");
    assert_eq!((errors.listed().len(), errors.omitted()), (50, 500 * 291 - 50));
}

#[test]
fn a_name_that_is_long_is_not_repeated() {
    let body = json!({ "title": "a", ("x".repeat(100)): 1, ("y".repeat(101)): 1 });
    assert_eq!(refused(body), [(format!("/{}", "x".repeat(100)), "unknown"), (String::new(), "unknown")]);
    let parameter = Invalid::parameter(&"ü".repeat(101), "unknown", "");
    assert_eq!(parameter.place, Place::Parameter("ü".repeat(100)));
}

#[test]
fn a_put_takes_what_a_get_shows() {
    let (task, _) = crate::task::create(NewTask::parse(json!({ "title": "a" })).unwrap(), Default::default());
    let (new, shown) = NewTask::parse_put(json!(task)).unwrap();
    assert_eq!(new.title, "a");
    let expected = Shown {
        id: Some(task.id),
        version: Some(1),
        created_at: Some(task.created_at),
        updated_at: Some(task.updated_at),
    };
    assert_eq!(shown, expected);
    assert_eq!(NewTask::parse_put(json!({ "title": "a" })).unwrap().1, Shown::default());
    let bad = json!({ "id": 7, "version": 1.5, "created_at": null, "updated_at": "now", "x": 1 });
    let places: Vec<_> = named(&NewTask::parse_put(bad).expect_err("refused"));
    let names = ["/id", "/version", "/created_at", "/updated_at", "/title", "/x"];
    assert_eq!(places.iter().map(|(place, _)| place.as_str()).collect::<Vec<_>>(), names);
    let before_the_first = NewTask::parse_put(json!({ "title": "a", "version": 0 }));
    assert_eq!(named(&before_the_first.expect_err("refused")), [("/version".into(), "value")]);
    assert!(NewTask::parse_put(json!([])).is_err());
}
