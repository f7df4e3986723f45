//! Whether the checker has teeth: a history in which all is well passes, and each thing that can be wrong with it is found.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::services::TopicRecord;

use super::super::history::{Answer, Found, Kind, Read, Write};
use super::{Checker, Delayed, Evidence, Restored, StaleCache, Violation};

const ID: &str = "01938a4e-9acc-77c8-b90a-92a109b260cb";
const OTHER: &str = "01938a4e-9acc-77c8-b90a-92a109b260cc";

/// A task as the write with this title left it.
fn state(id: &str, version: i64, title: &str) -> Value {
    json!({
        "id": id, "title": title, "description": null, "status": "todo", "priority": "normal", "due_at": null,
        "tags": [], "version": version, "created_at": "2031-01-01T00:00:00.000000Z",
        "updated_at": format!("2031-01-01T00:00:0{version}.000000Z"),
    })
}

/// The event of version `version`; a deletion's data is that of the version before.
fn record(offset: i64, event_type: &str, version: i64, data: &Value) -> TopicRecord {
    let id = data["id"].as_str().unwrap();
    let headers = [
        ("ce_id", format!("event {id} {version}")),
        ("ce_type", event_type.to_owned()),
        ("ce_subject", id.to_owned()),
        ("ce_sequence", format!("{version:010}")),
    ];
    TopicRecord {
        timestamp_ms: 0,
        partition: 0,
        offset,
        headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        key: id.to_owned(),
        value: json!({ "event_type": event_type, "data": data }).to_string(),
    }
}

/// A moment of the round.
fn at(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

/// Over within a millisecond.
fn write(start: Instant, ms: u64, kind: Kind, title: &str, answer: Answer) -> Write {
    Write {
        tag: title.to_owned(),
        kind,
        task: (kind != Kind::Create).then(|| ID.to_owned()),
        fields: json!({ "title": title }),
        if_match: None,
        batch: None,
        sent: at(start, ms),
        told: at(start, ms + 1),
        answer,
    }
}

/// A task is created, changed and read; another one stays as it was created. All is well.
fn round(start: Instant) -> Evidence {
    let (one, two, other) = (state(ID, 1, "one"), state(ID, 2, "two"), state(OTHER, 1, "other"));
    let created =
        |ms, title, task: &Value| write(start, ms, Kind::Create, title, Answer::Done(Some(task.clone())));
    let read = |ms, found| Read { sent: at(start, ms), told: at(start, ms + 1), found };
    Evidence {
        writes: vec![
            created(0, "one", &one),
            write(start, 10, Kind::Patch, "two", Answer::Done(Some(two.clone()))),
            created(20, "other", &other),
            write(start, 30, Kind::Create, "nonsense", Answer::Refused(422)),
            write(start, 40, Kind::Patch, "unknown", Answer::Unknown("503".to_owned())),
        ],
        reads: vec![
            read(5, Found::Task(one.clone())),
            read(15, Found::Task(two.clone())),
            read(
                25,
                Found::List { tasks: vec![other.clone(), two.clone()], limit: 2, is_newest_first: true },
            ),
        ],
        records: vec![
            record(0, "TASK_CREATED", 1, &one),
            record(1, "TASK_UPDATED", 2, &two),
            record(2, "TASK_CREATED", 1, &other),
        ],
        tasks: vec![two, other],
        ..Evidence::default()
    }
}

/// What is found in that round after something was done to it.
fn found(spoil: impl FnOnce(&mut Evidence, Instant)) -> Vec<Violation> {
    let start = Instant::now();
    let mut evidence = round(start);
    spoil(&mut evidence, start);
    let mut found: Vec<_> = Checker::default().check(evidence).into_iter().map(|(what, _)| what).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// One request, to any partition.
fn late() -> Delayed {
    Delayed { why: "late", requests_max: 1, partitions: None }
}

/// A record for each of the last round's writes has come, at its new offset.
fn renumber(records: &mut [TopicRecord]) {
    for (offset, record) in (0..).zip(records) {
        record.offset = offset;
    }
}

#[test]
fn a_round_in_which_all_is_well_passes() {
    assert_eq!(found(|_, _| {}), []);
}

#[test]
fn a_lost_event_is_found() {
    // The last one of the topic: nothing but what was told, and the database, knows of it.
    assert!(found(|evidence, _| drop(evidence.records.pop())).contains(&Violation::Lost));
    let told_only = |evidence: &mut Evidence, _| {
        evidence.records.pop();
        evidence.tasks.pop();
        evidence.reads.clear();
    };
    assert_eq!(found(told_only), [Violation::Lost]);
}

#[test]
fn a_task_that_only_the_database_has_is_found() {
    let more = |evidence: &mut Evidence, _| {
        evidence.tasks.push(state("01938a4e-9acc-77c8-b90a-92a109b260cd", 1, "x"));
    };
    assert_eq!(found(more), [Violation::Lost]);
}

#[test]
fn a_record_that_the_broker_lost_is_found() {
    assert_eq!(found(|evidence, _| evidence.records[2].offset = 3), [Violation::Lost]);
}

#[test]
fn an_event_that_nobody_wrote_is_found() {
    let phantom = |evidence: &mut Evidence, _| {
        evidence.tasks[0] = state(ID, 3, "who?");
        evidence.records.push(record(3, "TASK_UPDATED", 3, &state(ID, 3, "who?")));
    };
    assert_eq!(found(phantom), [Violation::Phantom]);
}

#[test]
fn an_event_of_a_refused_write_is_found() {
    let happened = |evidence: &mut Evidence, _| {
        let nonsense = state("01938a4e-9acc-77c8-b90a-92a109b260cd", 1, "nonsense");
        evidence.records.push(record(3, "TASK_CREATED", 1, &nonsense));
        evidence.tasks.push(nonsense);
    };
    assert_eq!(found(happened), [Violation::Phantom]);
}

#[test]
fn an_event_of_a_write_of_unknown_fate_is_none_of_these_but_happens_once() {
    let happened = |evidence: &mut Evidence, _| {
        evidence.tasks[0] = state(ID, 3, "unknown");
        evidence.records.push(record(3, "TASK_UPDATED", 3, &state(ID, 3, "unknown")));
    };
    assert_eq!(found(happened), []);
    let twice = |evidence: &mut Evidence, start| {
        happened(evidence, start);
        evidence.tasks[0] = state(ID, 4, "unknown");
        evidence.records.push(record(4, "TASK_UPDATED", 4, &state(ID, 4, "unknown")));
    };
    assert_eq!(found(twice), [Violation::Phantom]);
}

#[test]
fn a_deletion_that_nobody_asked_for_is_found_and_one_that_is_lost() {
    let deleted = |evidence: &mut Evidence| {
        evidence.tasks.remove(0);
        evidence.records.push(record(3, "TASK_DELETED", 3, &state(ID, 2, "two")));
    };
    let asked = |evidence: &mut Evidence, start| {
        evidence.writes.push(write(start, 50, Kind::Delete, "end", Answer::Done(None)));
    };
    assert_eq!(found(|evidence, _| deleted(evidence)), [Violation::Phantom]);
    assert_eq!(found(asked), [Violation::Lost]);
    let both = |evidence: &mut Evidence, start| {
        deleted(evidence);
        asked(evidence, start);
    };
    assert_eq!(found(both), []);
}

#[test]
fn versions_out_of_order_are_found() {
    let swapped = |evidence: &mut Evidence, _| {
        evidence.records.swap(0, 1);
        renumber(&mut evidence.records);
    };
    assert!(found(swapped).contains(&Violation::Disordered));
}

#[test]
fn a_task_in_two_partitions_is_found() {
    let moved = |evidence: &mut Evidence, _| {
        evidence.records[1].partition = 1;
        evidence.records[1].offset = 0;
        evidence.records[2].offset = 1;
    };
    assert_eq!(found(moved), [Violation::Disordered]);
    let excused = |evidence: &mut Evidence, start| {
        moved(evidence, start);
        evidence.excuses.partition_changes = 1;
    };
    assert_eq!(found(excused), []);
    // One change, and there and back again.
    let back = |evidence: &mut Evidence, start| {
        excused(evidence, start);
        let three = state(ID, 3, "three");
        let changed = write(start, 50, Kind::Patch, "three", Answer::Done(Some(three.clone())));
        evidence.writes.push(changed);
        evidence.records.push(record(2, "TASK_UPDATED", 3, &three));
        evidence.tasks[0] = three;
    };
    assert!(found(back).contains(&Violation::Disordered));
}

#[test]
fn versions_out_of_order_across_a_change_of_partitions_are_found() {
    let overtaken = |evidence: &mut Evidence, start| {
        evidence.excuses.partition_changes = 1;
        let three = state(ID, 3, "three");
        let changed = write(start, 50, Kind::Patch, "three", Answer::Done(Some(three.clone())));
        evidence.writes.push(changed);
        // Version 2 goes to the new partition, version 3 to the old one.
        evidence.records[1].partition = 1;
        evidence.records[1].offset = 0;
        evidence.records[2].offset = 1;
        evidence.records.push(record(2, "TASK_UPDATED", 3, &three));
        evidence.tasks[0] = three;
    };
    assert!(found(overtaken).contains(&Violation::Disordered));
}

#[test]
fn other_producers_records_are_passed_over_and_so_are_ends_of_their_transactions() {
    let foreign = |evidence: &mut Evidence, _| {
        let mut foreign = record(3, "TASK_CREATED", 1, &state(ID, 1, "one"));
        foreign.key = "foreign".to_owned();
        evidence.records.push(foreign.clone());
        evidence.records.push(TopicRecord { offset: 5, ..foreign });
    };
    assert_eq!(found(foreign), [Violation::Lost], "an offset without a record");
    let excused = |evidence: &mut Evidence, start| {
        foreign(evidence, start);
        evidence.excuses.markers_max = 1;
    };
    assert_eq!(found(excused), []);
}

/// The database loses what was written from 5 ms to 35 ms: the change of one task, and the other's creation.
fn restored(evidence: &mut Evidence, start: Instant) {
    evidence.excuses.restored = Some(Restored { copied: at(start, 5), lost: at(start, 35) });
    evidence.tasks = vec![state(ID, 1, "one")];
}

/// A change after that, with the version of the lost one and an id of its own.
fn changed_again(evidence: &mut Evidence, start: Instant) {
    let again = state(ID, 2, "again");
    let changed = write(start, 50, Kind::Patch, "again", Answer::Done(Some(again.clone())));
    evidence.writes.push(changed);
    let mut record = record(3, "TASK_UPDATED", 2, &again);
    record.headers[0].1 = "another id".to_owned();
    evidence.records.push(record);
    evidence.tasks = vec![again];
}

#[test]
fn what_a_restored_database_lost_may_be_on_the_topic_or_not() {
    assert_eq!(found(restored), []);
    let unpublished = |evidence: &mut Evidence, start| {
        restored(evidence, start);
        evidence.records.truncate(1);
    };
    assert_eq!(found(unpublished), []);
    let continued = |evidence: &mut Evidence, start| {
        restored(evidence, start);
        changed_again(evidence, start);
    };
    assert_eq!(found(continued), []);
    let late = |evidence: &mut Evidence, start| {
        continued(evidence, start);
        evidence.records.swap(1, 3);
        renumber(&mut evidence.records);
    };
    assert_eq!(found(late), []);
}

#[test]
fn what_a_restored_database_had_or_got_must_be_on_the_topic() {
    let gone = |evidence: &mut Evidence, start| {
        restored(evidence, start);
        evidence.tasks.clear();
    };
    assert_eq!(found(gone), [Violation::Phantom], "what was written before the copy");
    let deleted_unpublished = |evidence: &mut Evidence, start| {
        restored(evidence, start);
        changed_again(evidence, start);
        evidence.records.pop();
    };
    assert!(found(deleted_unpublished).contains(&Violation::Lost), "a version alone is no event");
    let twice = |evidence: &mut Evidence, start| {
        restored(evidence, start);
        changed_again(evidence, start);
        evidence.records.push(TopicRecord { offset: 4, ..evidence.records[3].clone() });
    };
    assert_eq!(found(twice), [Violation::Duplicated]);
    let swapped = |evidence: &mut Evidence, start| {
        restored(evidence, start);
        changed_again(evidence, start);
        let three = state(ID, 3, "three");
        let changed = write(start, 60, Kind::Patch, "three", Answer::Done(Some(three.clone())));
        evidence.writes.push(changed);
        evidence.records.insert(3, record(3, "TASK_UPDATED", 3, &three));
        renumber(&mut evidence.records);
        evidence.tasks = vec![three];
    };
    assert!(found(swapped).contains(&Violation::Disordered));
}

#[test]
fn after_a_restored_database_the_topic_goes_on_as_the_database_does() {
    let start = Instant::now();
    let mut checker = Checker::default();
    let mut first = round(start);
    restored(&mut first, start);
    assert_eq!(checker.check(first), []);
    let mut second = Evidence::default();
    changed_again(&mut second, start);
    assert_eq!(checker.check(second), []);
}

#[test]
fn a_duplicate_is_found_unless_a_delayed_request_accounts_for_it() {
    let again = |evidence: &mut Evidence| {
        let again = TopicRecord { offset: 3, ..evidence.records[1].clone() };
        evidence.records.push(again);
    };
    assert_eq!(found(|evidence, _| again(evidence)), [Violation::Duplicated]);
    let excused = |evidence: &mut Evidence, _| {
        again(evidence);
        evidence.excuses.delayed_requests.push(late());
    };
    assert_eq!(found(excused), []);
    let elsewhere = |evidence: &mut Evidence, _| {
        again(evidence);
        evidence.excuses.delayed_requests.push(Delayed { partitions: Some(vec![1, 2]), ..late() });
    };
    assert_eq!(found(elsewhere), [Violation::Duplicated]);
    // One request, but two runs of second occurrences: the other one has no reason.
    let more = |evidence: &mut Evidence, start| {
        excused(evidence, start);
        let between = state("01938a4e-9acc-77c8-b90a-92a109b260cd", 1, "between");
        let created = write(start, 60, Kind::Create, "between", Answer::Done(Some(between.clone())));
        evidence.writes.push(created);
        evidence.records.push(record(4, "TASK_CREATED", 1, &between));
        evidence.tasks.push(between);
        evidence.records.push(TopicRecord { offset: 5, ..evidence.records[2].clone() });
    };
    assert_eq!(found(more), [Violation::Duplicated]);
}

#[test]
fn a_duplicate_of_an_earlier_round_is_found_whatever_was_delayed() {
    let start = Instant::now();
    let mut checker = Checker::default();
    let first = round(start);
    let (again, tasks) = (first.records[2].clone(), first.tasks.clone());
    assert_eq!(checker.check(first), []);
    let mut second =
        Evidence { records: vec![TopicRecord { offset: 3, ..again }], tasks, ..Evidence::default() };
    second.excuses.delayed_requests.push(late());
    let found = checker.check(second);
    assert_eq!(found.iter().map(|(what, _)| *what).collect::<Vec<_>>(), [Violation::Duplicated]);
}

#[test]
fn a_second_occurrence_that_differs_is_found() {
    let differs = |evidence: &mut Evidence, _| {
        let mut again = TopicRecord { offset: 3, ..evidence.records[1].clone() };
        again.value = again.value.replace(",\"tags\":[]", ",\"tags\": []");
        evidence.records.push(again);
        evidence.excuses.delayed_requests.push(late());
    };
    assert_eq!(found(differs), [Violation::Altered]);
}

#[test]
fn a_version_with_another_id_is_another_event() {
    let twice = |evidence: &mut Evidence, _| {
        let mut again = TopicRecord { offset: 3, ..evidence.records[1].clone() };
        again.headers[0].1 = "another id".to_owned();
        evidence.records.push(again);
        evidence.excuses.delayed_requests.push(late());
    };
    assert_eq!(found(twice), [Violation::Phantom, Violation::Disordered]);
}

#[test]
fn one_id_for_two_versions_is_found() {
    let reused = |evidence: &mut Evidence, _| {
        let id = evidence.records[0].headers[0].clone();
        evidence.records[1].headers[0] = id;
    };
    assert_eq!(found(reused), [Violation::Altered]);
}

#[test]
fn a_payload_that_is_not_what_was_written_is_found() {
    let spoiled = |evidence: &mut Evidence, _| {
        evidence.records[2].value = evidence.records[2].value.replace("normal", "high");
    };
    assert!(found(spoiled).contains(&Violation::Altered));
    // And where nobody was told, and the database agrees with the topic, the request itself tells.
    let unknown = |evidence: &mut Evidence, _| {
        let mut changed = state(ID, 3, "unknown");
        changed["status"] = json!("done");
        evidence.records.push(record(3, "TASK_UPDATED", 3, &changed));
        evidence.tasks[0] = changed;
    };
    assert_eq!(found(unknown), [Violation::Altered]);
}

#[test]
fn a_database_that_differs_from_the_topic_is_found() {
    let differs = |evidence: &mut Evidence, _| evidence.tasks[1]["status"] = json!("done");
    assert_eq!(found(differs), [Violation::Altered]);
    assert_eq!(found(|evidence, _| drop(evidence.tasks.pop())), [Violation::Phantom]);
}

#[test]
fn a_condition_that_was_not_heeded_is_found() {
    assert_eq!(found(|evidence, _| evidence.writes[1].if_match = Some(7)), [Violation::Altered]);
}

#[test]
fn half_a_batch_is_found() {
    let half = |evidence: &mut Evidence, start| {
        for (title, task) in [("a", Some(state("01938a4e-9acc-77c8-b90a-92a109b260cd", 1, "a"))), ("b", None)]
        {
            let created = write(start, 60, Kind::Create, title, Answer::Unknown("reset".to_owned()));
            evidence.writes.push(Write { batch: Some(1), ..created });
            if let Some(task) = task {
                evidence.records.push(record(3, "TASK_CREATED", 1, &task));
                evidence.tasks.push(task);
            }
        }
    };
    assert_eq!(found(half), [Violation::Lost]);
}

fn stale_from(writes_from: Instant, reads_from: Instant) -> StaleCache {
    StaleCache { writes_from, reads_from }
}

#[test]
fn a_stale_read_is_found_unless_the_cache_could_not_be_told() {
    let stale = |evidence: &mut Evidence, _| evidence.reads[1].found = Found::Task(state(ID, 1, "one"));
    assert_eq!(found(stale), [Violation::Stale]);
    let excused = |evidence: &mut Evidence, start| {
        stale(evidence, start);
        evidence.excuses.cache.push(stale_from(at(start, 5), at(start, 12)));
    };
    assert_eq!(found(excused), []);
    let later = |evidence: &mut Evidence, start| {
        stale(evidence, start);
        evidence.excuses.cache.push(stale_from(at(start, 5), at(start, 18)));
    };
    assert_eq!(found(later), [Violation::Stale]);
    // Redis took the invalidation, and lost it later.
    let told = |evidence: &mut Evidence, start| {
        stale(evidence, start);
        evidence.excuses.cache.push(stale_from(at(start, 12), at(start, 12)));
    };
    assert_eq!(found(told), [Violation::Stale]);
}

#[test]
fn a_read_that_began_before_the_write_was_over_may_show_what_was_before() {
    let before = |evidence: &mut Evidence, start| {
        evidence.reads[1] =
            Read { sent: at(start, 10), told: at(start, 30), found: Found::Task(state(ID, 1, "one")) };
    };
    assert_eq!(found(before), []);
}

#[test]
fn a_task_that_is_missing_where_it_should_be_read_is_found() {
    let missing = |evidence: &mut Evidence, _| evidence.reads[1].found = Found::Missing(ID.to_owned());
    assert_eq!(found(missing), [Violation::Stale]);
    let unlisted = |evidence: &mut Evidence, _| {
        let Found::List { tasks, .. } = &mut evidence.reads[2].found else { unreachable!("it is a list") };
        tasks.remove(0);
    };
    assert_eq!(found(unlisted), [Violation::Stale]);
}

#[test]
fn a_state_that_was_read_and_never_committed_is_found() {
    let invented = |evidence: &mut Evidence, _| evidence.reads[1].found = Found::Task(state(ID, 9, "nine"));
    assert_eq!(found(invented), [Violation::Lost]);
    let altered = |evidence: &mut Evidence, _| evidence.reads[1].found = Found::Task(state(ID, 2, "2"));
    assert_eq!(found(altered), [Violation::Altered]);
}

#[test]
fn a_topic_that_reads_differently_a_second_time_is_found() {
    let start = Instant::now();
    let mut checker = Checker::default();
    let records = round(start).records;
    assert_eq!(checker.check(round(start)), []);
    assert_eq!(checker.check_again(&records), []);
    assert_eq!(checker.check_again(&records[..2]).len(), 1);
    let mut changed = records;
    changed[0].value = changed[0].value.replace("one", "ONE");
    assert_eq!(checker.check_again(&changed)[0].0, Violation::Altered);
}
