use anyhow::Result;
use e2e::{Answer, Deployment, Services, answer};
use reqwest::StatusCode;
use serde_json::{Value, json};

/// The ids of a list, in its order.
fn ids(list: &[Value]) -> Vec<&str> {
    list.iter().map(|task| task["id"].as_str().unwrap()).collect()
}

fn next(page: &Answer) -> Option<String> {
    let link = page.header("link")?;
    let (path, rel) = link.strip_prefix('<')?.split_once(">; ")?;
    assert_eq!(rel, "rel=\"next\"");
    Some(path.to_owned())
}

/// Follows the links from the first page on.
async fn pages(deployment: &Deployment, first: &str) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    let mut path = Some(first.to_owned());
    while let Some(page_path) = path {
        let page = answer(deployment.api.get(&page_path)).await?;
        assert_eq!(page.status, StatusCode::OK, "{page_path}: {page:?}");
        all.extend(page.json()?.as_array().unwrap().iter().cloned());
        path = next(&page);
        assert!(all.len() <= 1_000, "the pages have an end");
    }
    Ok(all)
}

/// 23 tasks, some alike in each order's key.
async fn fill(deployment: &Deployment) -> Result<Vec<Value>> {
    let mut tasks = Vec::new();
    for number in 0..23 {
        let priority = ["low", "normal", "high"][number % 3];
        let status = ["todo", "done"][number % 2];
        let due_at = (number % 4 != 0).then(|| format!("2027-01-{:02}T00:00:00Z", 1 + number % 5));
        let tags: Vec<_> = (0..number % 3).map(|tag| format!("tag {tag}")).collect();
        let task = json!({
            "title": format!("Task number {number}"), "description": (number % 7 == 0).then_some("Weekly, über"),
            "priority": priority, "status": status, "due_at": due_at, "tags": tags,
        });
        tasks.push(deployment.api.create(&task).await?);
    }
    // The order of the last change is not that of creation.
    for number in [3, 17, 5] {
        let changed = deployment
            .api
            .patch(tasks[number]["id"].as_str().unwrap(), &json!({ "title": format!("Changed {number}") }))
            .await?;
        tasks[number] = changed.json()?;
    }
    Ok(tasks)
}

fn sort_key(task: &Value, key: &str) -> (String, String) {
    let id = task["id"].as_str().unwrap().to_owned();
    let value = match (key, &task[key]) {
        ("priority", priority) => {
            ["low", "normal", "high"].iter().position(|name| priority == name).unwrap().to_string()
        }
        (_, Value::Null) => "infinity".to_owned(),
        (_, value) => value.as_str().unwrap().to_owned(),
    };
    (value, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_in_every_order_hold_every_task_once() -> Result<()> {
    let deployment = Deployment::start().await?;
    let tasks = fill(&deployment).await?;
    for key in ["created_at", "updated_at", "due_at", "priority"] {
        let mut expected = tasks.clone();
        expected.sort_by_key(|task| sort_key(task, key));
        for (sort, expected) in
            [(key.to_owned(), expected.clone()), (format!("-{key}"), expected.into_iter().rev().collect())]
        {
            for limit in [5, 23, 100] {
                let listed = pages(&deployment, &format!("/api/tasks?sort={sort}&limit={limit}")).await?;
                assert_eq!(ids(&listed), ids(&expected), "{sort} by {limit}");
            }
            let offset = deployment.api.list(&format!("?sort={sort}&limit=5&offset=7")).await?;
            assert_eq!(ids(&offset), ids(&expected[7..12]), "{sort}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_let_through_what_they_say() -> Result<()> {
    let deployment = Deployment::start().await?;
    let tasks = fill(&deployment).await?;
    type LetsThrough = fn(&Value) -> bool;
    let filters: [(&str, LetsThrough); 9] = [
        ("status=done", |task| task["status"] == "done"),
        ("priority=high", |task| task["priority"] == "high"),
        ("tag=tag%201", |task| task["tags"].as_array().unwrap().contains(&json!("tag 1"))),
        ("tag=tag%201&tag=tag%200", |task| task["tags"] == json!(["tag 0", "tag 1"])),
        ("due_before=2027-01-03T00:00:00Z", |task| {
            task["due_at"].as_str().is_some_and(|due| due < "2027-01-03")
        }),
        ("q=WEEKLY", |task| task["description"] == "Weekly, über"),
        ("q=%C3%BCber+number", |task| {
            task["description"] == "Weekly, über" && task["title"].as_str().unwrap().contains("number")
        }),
        ("q=nowhere", |_| false),
        ("status=todo&priority=low", |task| task["status"] == "todo" && task["priority"] == "low"),
    ];
    for (filter, lets_through) in filters {
        let expected: Vec<_> = tasks.iter().rev().filter(|task| lets_through(task)).cloned().collect();
        let listed = pages(&deployment, &format!("/api/tasks?{filter}&limit=2")).await?;
        assert_eq!(ids(&listed), ids(&expected), "{filter}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_come_meanwhile_neither_repeat_nor_hide_others() -> Result<()> {
    let deployment = Deployment::start().await?;
    let tasks = fill(&deployment).await?;
    let mut seen = Vec::new();
    let mut path = Some("/api/tasks?limit=4".to_owned());
    while let Some(page_path) = path {
        let page = answer(deployment.api.get(&page_path)).await?;
        seen.extend(page.json()?.as_array().unwrap().iter().cloned());
        deployment.api.create(&json!({ "title": "newer" })).await?;
        path = next(&page);
    }
    let expected: Vec<_> = tasks.iter().rev().cloned().collect();
    assert_eq!(ids(&seen), ids(&expected));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_list_can_be_asked_for_is_refused_by_name() -> Result<()> {
    let deployment = Deployment::start().await?;
    for (query, name) in [
        ("status=eaten", "status"),
        ("priority=1", "priority"),
        ("sort=title", "sort"),
        ("due_before=tomorrow", "due_before"),
        ("tag=", "tag"),
        ("q=%00", "q"),
        ("q=%21%21", "q"),
        ("q=%F0%9F%8E%89", "q"),
        ("cursor=AAAA", "cursor"),
        ("offset=10001", "offset"),
        ("page=2", "page"),
        ("status=todo&status=done", "status"),
        ("limit=1&limit=100", "limit"),
        ("q=a&q=a", "q"),
    ] {
        let refused = answer(deployment.api.get(&format!("/api/tasks?{query}"))).await?;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
        assert_eq!(refused.json()?["errors"][0]["parameter"], name, "{query}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_creation_is_that_of_the_field() -> Result<()> {
    let deployment = Deployment::start().await?;
    let mut tasks = fill(&deployment).await?;
    // As of clocks that disagree: times in the reverse order of the ids, three tasks at a time
    // alike.
    let age = "update tasks set created_at = '2026-01-01'::timestamptz - ordered.place / 3 * interval '1 ms'
               from (select id, row_number() over (order by id) as place from tasks) as ordered
               where tasks.id = ordered.id
               returning tasks.id::text, task_document(tasks)::json ->> 'created_at'";
    for row in deployment.database().await?.query(age, &[]).await? {
        let (id, created_at): (String, String) = (row.get(0), row.get(1));
        tasks.iter_mut().find(|task| task["id"] == id).unwrap()["created_at"] = created_at.into();
    }
    tasks.sort_by_key(|task| sort_key(task, "created_at"));
    for limit in [1, 7, 100] {
        let listed = pages(&deployment, &format!("/api/tasks?sort=created_at&limit={limit}")).await?;
        assert_eq!(ids(&listed), ids(&tasks), "by {limit}");
        let mut descending = pages(&deployment, &format!("/api/tasks?limit={limit}")).await?;
        descending.reverse();
        assert_eq!(ids(&descending), ids(&tasks), "by {limit}");
    }
    Ok(())
}

/// A text, and what it is found by.
const FOUND: [(&str, &[&str]); 16] = [
    ("invoice-2024", &["2024", "invoice", "invoice-2024", "INVOICE 2024"]),
    ("milk/bread", &["bread", "milk", "milk/bread", "bread,milk"]),
    ("fix v1.2.3", &["v1", "v1.2", "v1.2.3", "fix", "3"]),
    ("mail jane.doe@example.com", &["example", "jane", "doe", "example.com", "jane.doe@example.com"]),
    (
        "see https://host.example/a/b_c?d=e#f",
        &["host", "host.example", "b", "c", "d", "f", "https://host.example"],
    ),
    ("from -17 to +4.5e3", &["17", "-17", "4", "5e3"]),
    ("/var/log/app.log", &["log", "var", "app.log", "/var/log"]),
    ("Größe—ÄRGER", &["größe", "ärger", "GRÖßE", "ÄRGER"]),
    ("don't", &["don't", "don", "don’t"]),
    ("«Война и мир»", &["война", "МИР"]),
    ("a&lt;b <i>c</i>", &["lt", "b", "i", "c"]),
    ("٢٠٢٤ हिन्दी cafe\u{301}", &["٢٠٢٤", "हिन्दी", "cafe\u{301}", "café", "cafe"]),
    ("a naïve emoji 🎉", &["naive", "NAÏVE", "naïv", "emo", "emoji 🎉"]),
    ("東京日本語カメラ", &["日本語", "東京", "カメラ", "京日 ラ"]),
    ("ｶﾞﾗｽの第２章", &["ガラス", "の第2章", "2章"]),
    ("한국어 공부", &["한국", "공부"]),
];

/// Searches that find none of these titles.
const NOT_FOUND: [&str; 6] = ["nowhere", "oji", "本日", "カラス", "국어", "vi"];

#[tokio::test(flavor = "multi_thread")]
async fn words_are_found_as_people_see_them() -> Result<()> {
    are_found(&Deployment::start().await?).await
}

/// The database's locale decides neither what separates words nor how they fold.
#[tokio::test(flavor = "multi_thread")]
async fn words_are_found_with_the_locale_c() -> Result<()> {
    let services = Services::shared()?;
    let mut deployment = Deployment::prepare(&services).await?;
    let (admin, connection) = tokio_postgres::connect(&services.database_url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let name = &deployment.topic;
    admin.batch_execute(&format!("drop database {name}")).await?;
    let create = format!("create database {name} template template0 locale_provider libc locale 'C'");
    admin.batch_execute(&create).await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    deployment.start_application().await?;
    are_found(&deployment).await
}

async fn are_found(deployment: &Deployment) -> Result<()> {
    for (title, _) in FOUND {
        deployment.api.create(&json!({ "title": title })).await?;
    }
    for (title, queries) in FOUND {
        for query in queries {
            let found = deployment.api.list(&format!("?q={}", encoded(query))).await?;
            assert!(found.iter().any(|task| task["title"] == title), "{query} in {title}: {found:?}");
            assert!(found.len() < FOUND.len(), "{query} is in every title");
        }
    }
    for query in NOT_FOUND {
        let found = deployment.api.list(&format!("?q={}", encoded(query))).await?;
        assert_eq!(found, [Value::Null; 0], "{query}");
    }
    Ok(())
}

fn encoded(query: &str) -> String {
    query.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
