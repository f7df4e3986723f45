//! Whatever a client sends is understood or refused by name, and never more than that: no panic, and what
//! was understood once is understood the same way again.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::entity_tags::{Conditions, etag};
use crate::fields::{Changes, Errors, Invalid, NewTask, Place, parse_time};
use crate::headers::{self, Preferences};
use crate::problem::Accept;
use crate::query::{Cursor, LIMIT_MAX, OFFSET_MAX, Query};
use crate::task;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        let pairs = prop::collection::vec((name(), inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Value::from),
            pairs.prop_map(|pairs| Value::from(Map::from_iter(pairs))),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    const KNOWN: [&str; 6] = ["title", "description", "status", "priority", "due_at", "tags"];
    prop_oneof![prop::sample::select(&KNOWN[..]).prop_map(str::to_owned), any::<String>()]
}

/// RFC 3339, with offsets and digits of a second.
fn time() -> impl Strategy<Value = String> {
    let date = "(000[2-9]|[1-9][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])";
    let time = "([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\\.[0-9]{1,9})?";
    // 9999-12-31 with an offset would be in the year 10000, which is refused.
    let pattern = format!("{date}T{time}(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])");
    let times = prop::string::string_regex(&pattern).expect("a pattern");
    times.prop_filter("a year from 0002 to 9998", |text| !text.starts_with("9999"))
}

/// A value that a field takes, or one that it does not.
type Field = (&'static str, BoxedStrategy<Value>, BoxedStrategy<Value>);

fn texts(pattern: &'static str) -> BoxedStrategy<Value> {
    pattern.prop_map(Value::from).boxed()
}

fn fields() -> [Field; 6] {
    let number = any::<i32>().prop_map(Value::from).boxed();
    let or_null = |texts: BoxedStrategy<Value>| prop_oneof![texts, Just(Value::Null)].boxed();
    let tags = prop::collection::btree_set("[^\0]{1,50}", 0..=20);
    let bad_tags = prop_oneof![
        Just(json!(["a", "a"])),
        Just(json!(["a\0"])),
        Just(json!([""])),
        Just(json!([7])),
        Just(json!("a")),
        Just(json!((0..21).map(|number| number.to_string()).collect::<Vec<_>>())),
    ];
    [
        (
            "title",
            texts("[a-zä-ü😀]{1,100}[^\0]{0,99}[a-z]"),
            prop_oneof![texts(" {0,9}"), texts("[a-z]{201,210}"), number.clone()].boxed(),
        ),
        (
            "description",
            or_null(texts("[^\0]{0,200}")),
            prop_oneof![texts("[a-z]{0,3}\0"), number.clone()].boxed(),
        ),
        (
            "status",
            texts("todo|in_progress|done"),
            prop_oneof![texts("[A-Z]{0,9}"), Just(Value::Null)].boxed(),
        ),
        ("priority", texts("low|normal|high"), prop_oneof![texts("[A-Z]{0,9}"), number.clone()].boxed()),
        (
            "due_at",
            or_null(time().prop_map(Value::from).boxed()),
            prop_oneof![texts("[0-9-]{0,10}"), number].boxed(),
        ),
        ("tags", tags.prop_map(|tags| json!(tags)).boxed(), bad_tags.boxed()),
    ]
}

/// A body, and the fields of it that must be refused.
fn body() -> impl Strategy<Value = (Map<String, Value>, BTreeSet<String>)> {
    let field = |(name, good, bad): Field| {
        prop_oneof![
            1 => Just(None),
            4 => good.prop_map(move |value| Some((name, value, true))),
            1 => bad.prop_map(move |value| Some((name, value, false))),
        ]
    };
    let [title, description, status, priority, due_at, tags] = fields().map(field);
    (title, description, status, priority, due_at, tags).prop_map(|fields| {
        let (title, description, status, priority, due_at, tags) = fields;
        let mut body = Map::new();
        let mut refused = BTreeSet::new();
        for (name, value, good) in [title, description, status, priority, due_at, tags].into_iter().flatten()
        {
            body.insert(name.to_owned(), value);
            if !good {
                refused.insert(name.to_owned());
            }
        }
        (body, refused)
    })
}

/// The fields that are named, without what stands within them.
fn named(errors: &Errors) -> BTreeSet<String> {
    let field = |invalid: &Invalid| match &invalid.place {
        Place::Pointer(pointer) => pointer.split('/').nth(1).unwrap_or_default().to_owned(),
        Place::Parameter(name) | Place::Header(name) => name.clone(),
    };
    errors.listed().iter().map(field).collect()
}

/// What of a task was its client's to say.
fn said(new: NewTask) -> Value {
    let (task, event) = task::create(new, headers::TraceContext::default());
    let mut task = serde_json::to_value(task).expect("a task is JSON");
    let payload: Value = serde_json::from_str(event.payload.get()).expect("a payload is JSON");
    assert_eq!(payload["data"], task);
    for name in ["id", "version", "created_at", "updated_at"] {
        task.as_object_mut().expect("an object").remove(name).expect("a field of every task");
    }
    task
}

fn with(name: &'static str, values: &[Vec<u8>]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        // What cannot stand in a header never gets here.
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    headers
}

proptest! {
    #[test]
    fn a_body_is_taken_or_its_bad_fields_are_named((body, mut refused) in body()) {
        let patch = Changes::parse_patch(Value::from(body.clone()));
        prop_assert_eq!(patch.map_err(|invalid| named(&invalid)).err().unwrap_or_default(), refused.clone());
        if !body.contains_key("title") {
            refused.insert("title".to_owned());
        }
        match NewTask::parse(Value::from(body)) {
            Err(invalid) => prop_assert_eq!(named(&invalid), refused),
            Ok(new) => {
                prop_assert!(refused.is_empty(), "{:?}", refused);
                let task = said(new);
                let again = NewTask::parse(task.clone()).expect("what a task shows can be sent");
                prop_assert_eq!(said(again), task);
            }
        }
    }

    #[test]
    fn any_json_is_a_task_or_is_refused_in_places_that_it_has(body in any_json()) {
        let results = [
            NewTask::parse(body.clone()).err(),
            NewTask::parse_batch(body.clone()).err(),
            Changes::parse_patch(body.clone()).err(),
        ];
        for invalid in results.into_iter().flatten() {
            prop_assert!(!invalid.is_empty());
            for Invalid { place, code, .. } in invalid.listed() {
                let Place::Pointer(pointer) = place else { panic!("a body's places are pointers") };
                let is_there = body.pointer(pointer).is_some();
                prop_assert_eq!(is_there, *code != "required", "{}: {}", pointer, body);
            }
        }
    }

    #[test]
    fn a_time_stays_what_it_is(text in time()) {
        let parsed = parse_time(&text).expect("a time");
        prop_assert_eq!(parse_time(&contract::timestamp::to_text(&parsed)), Some(parsed));
    }

    #[test]
    fn any_query_is_a_list_or_its_bad_parameters_are_named(query in "[a-z_=&%+0-9.:-]{0,60}|\\PC{0,40}") {
        match Query::parse(&query) {
            Ok(parsed) => {
                let canonical = parsed.canonical();
                prop_assert_eq!(Query::parse(&canonical).expect("a query").canonical(), canonical);
            }
            Err(invalid) => {
                let sent: BTreeSet<_> =
                    form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name.into_owned()).collect();
                prop_assert!(!invalid.is_empty() && named(&invalid).is_subset(&sent), "{:?}", invalid);
            }
        }
    }

    #[test]
    fn a_good_query_has_one_name_and_one_bad_parameter_is_refused_alone(
        filters in (
            prop::option::of("todo|in_progress|done"), prop::option::of("low|normal|high"),
            prop::option::of("[^\0]{1,50}"), prop::option::of(time()), prop::option::of("[^\0]{0,100}[a-z0-9é本][^\0]{0,99}"),
        ),
        sort in "-?(created_at|updated_at|due_at|priority)",
        limit in 1..=LIMIT_MAX, offset in 0..=OFFSET_MAX, bad in "status|priority|due_before|sort|cursor|limit|offset",
    ) {
        let (status, priority, tag, due_before, q) = filters;
        let names = ["status", "priority", "tag", "due_before", "q"];
        let values = [status, priority, tag, due_before, q];
        let given = names.iter().zip(&values).filter_map(|(name, value)| Some((*name, value.as_deref()?)));
        let (limit, offset) = (limit.to_string(), offset.to_string());
        let mut pairs: Vec<_> = given.chain([("sort", &*sort), ("limit", &*limit), ("offset", &*offset)]).collect();
        let encode = |pairs: &[(&str, &str)]| form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let query = Query::parse(&encode(&pairs)).expect("a query");
        let canonical = query.canonical();
        let again = Query::parse(&canonical).expect("a query");
        prop_assert_eq!((again.canonical(), again.words, again.tags), (canonical.clone(), query.words, query.tags));
        pairs.reverse();
        prop_assert_eq!(Query::parse(&encode(&pairs)).expect("a query").canonical(), canonical);
        pairs.push((&*bad, "no such thing"));
        let invalid = Query::parse(&encode(&pairs)).expect_err("refused");
        prop_assert_eq!(named(&invalid), BTreeSet::from([bad]));
    }

    #[test]
    fn a_cursor_comes_back_as_it_was_given_out(
        sort in "-?(created_at|updated_at|due_at|priority)", id in any::<u128>().prop_map(Uuid::from_u128),
        time in time(), rank in 0..3_u8, endless in any::<bool>(),
    ) {
        let query = Query::parse(&format!("sort={sort}")).expect("a query");
        let key = match sort.trim_start_matches('-') {
            "priority" => rank.to_string(),
            "due_at" if endless => "infinity".to_owned(),
            _ => contract::timestamp::to_text(&parse_time(&time).expect("a time")),
        };
        let cursor = Cursor::new(query.sort, key, id);
        let next = Query::parse(&query.next(cursor.clone())).expect("a query");
        prop_assert_eq!((next.after, next.sort), (Some(cursor), query.sort));
    }

    #[test]
    fn what_is_no_cursor_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), json in any_json()) {
        use base64::Engine as _;
        let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        for cursor in [encode(&bytes), encode(json.to_string().as_bytes())] {
            let invalid = Query::parse(&format!("cursor={cursor}")).expect_err("refused");
            prop_assert_eq!(named(&invalid), BTreeSet::from(["cursor".to_owned()]));
        }
    }

    #[test]
    fn a_list_of_tags_is_the_versions_in_it(versions in prop::collection::vec((any::<i64>(), any::<bool>()), 1..8)) {
        let tag = |(version, weak): &(i64, bool)| format!("{}{}", if *weak { "W/" } else { "" }, etag(*version));
        let list = versions.iter().map(tag).collect::<Vec<_>>().join(" , ").into_bytes();
        let strong = versions.iter().filter(|(_, weak)| !weak).map(|(version, _)| *version).collect::<Vec<_>>();
        let all = versions.iter().map(|(version, _)| *version).collect::<Vec<_>>();
        let conditions = Conditions::parse(&with("if-match", std::slice::from_ref(&list))).expect("a list");
        prop_assert_eq!((conditions.one_of(), conditions.has_if_match()), (Some(strong), true));
        let conditions = Conditions::parse(&with("if-none-match", &[list])).expect("a list");
        prop_assert!(all.iter().all(|version| conditions.has(*version)));
        prop_assert_eq!(conditions.none_of(), Some(all));
    }

    #[test]
    fn preferences_are_applied_as_they_are_told(wait in prop::option::of(0..100_u64), minimal in any::<bool>()) {
        let told = Preferences { wait_s: wait.map(|wait| wait.min(30)), minimal };
        let sent = [wait.map(|wait| format!("wait={wait}")), minimal.then(|| "return=minimal".to_owned())];
        let sent: Vec<_> = sent.into_iter().flatten().map(String::into_bytes).collect();
        let parsed = Preferences::parse(&with("prefer", &sent));
        prop_assert_eq!(parsed, told);
        let applied: Vec<_> = parsed.applied().into_iter().map(String::into_bytes).collect();
        prop_assert_eq!(Preferences::parse(&with("prefer", &applied)), told);
    }

    #[test]
    fn an_idempotency_key_is_the_same_with_and_without_quotes(key in "[!#-~]([ !#-~]{0,253}[!#-~])?") {
        for sent in [key.clone(), format!("\"{key}\"")] {
            let parsed = headers::idempotency_key(&with("idempotency-key", &[sent.into_bytes()]));
            prop_assert_eq!(parsed.expect("a key"), Some(key.clone()));
        }
    }

    #[test]
    fn any_header_is_understood_ignored_or_refused(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..3)) {
        match Conditions::parse(&with("if-match", &values)) {
            Ok(conditions) => prop_assert_eq!(conditions.has_if_match(), !with("if-match", &values).is_empty()),
            Err(invalid) => prop_assert_eq!(invalid.place, Place::Header("If-Match".to_owned())),
        }
        let preferences = Preferences::parse(&with("prefer", &values));
        prop_assert!(preferences.wait_s.is_none_or(|wait_s| wait_s <= 30));
        match headers::idempotency_key(&with("idempotency-key", &values)) {
            Ok(key) => prop_assert!(key.is_none_or(|key| (1..=headers::IDEMPOTENCY_KEY_CHARS_MAX).contains(&key.len()))),
            Err(invalid) => prop_assert_eq!(invalid.place, Place::Header("Idempotency-Key".to_owned())),
        }
        headers::TraceContext::parse(&with("traceparent", &values));
        let mut traced = with("tracestate", &values);
        traced.insert("traceparent", HeaderValue::from_static(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ));
        if let Some(tracestate) = headers::TraceContext::parse(&traced).tracestate {
            prop_assert!(tracestate.len() <= 512, "{}", tracestate);
        }
        let request_id = headers::request_id(&with("x-request-id", &values));
        prop_assert!(HeaderValue::from_str(&request_id).is_ok());
        Accept::of(&with("accept", &values));
    }
}
