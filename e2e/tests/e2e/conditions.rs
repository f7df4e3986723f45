use anyhow::Result;
use e2e::{Answer, Deployment, answer};
use reqwest::StatusCode;
use serde_json::{Value, json};

async fn ask(deployment: &Deployment, method: &str, id: &str, header: (&str, &str)) -> Result<Answer> {
    let request = deployment.api.request(method, &format!("/api/tasks/{id}"))?.header(header.0, header.1);
    let request = match method {
        "PATCH" | "PUT" => request.json(&json!({ "title": format!("{} {}", header.0, header.1) })),
        _ => request,
    };
    answer(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_meant_for_another_version_is_refused() -> Result<()> {
    let deployment = Deployment::start().await?;
    let task = deployment.api.create(&json!({ "title": "a" })).await?;
    let id = task["id"].as_str().unwrap();
    for (method, header, expected) in [
        ("PATCH", ("if-match", "\"2\""), StatusCode::PRECONDITION_FAILED),
        ("PATCH", ("if-match", "W/\"1\""), StatusCode::PRECONDITION_FAILED),
        ("PUT", ("if-match", "\"x\""), StatusCode::PRECONDITION_FAILED),
        ("DELETE", ("if-match", "\"7\""), StatusCode::PRECONDITION_FAILED),
        ("PATCH", ("if-none-match", "*"), StatusCode::PRECONDITION_FAILED),
        ("PATCH", ("if-none-match", "\"1\""), StatusCode::PRECONDITION_FAILED),
        ("PUT", ("if-match", "\"a,*,b\""), StatusCode::PRECONDITION_FAILED),
        ("PATCH", ("if-match", "\"9\", \"1\""), StatusCode::OK),
        ("PUT", ("if-match", "*"), StatusCode::OK),
        ("PATCH", ("if-none-match", "\"1\""), StatusCode::OK),
        ("DELETE", ("if-match", "\"4\""), StatusCode::NO_CONTENT),
        ("PATCH", ("if-match", "\"4\""), StatusCode::NOT_FOUND),
    ] {
        let answered = ask(&deployment, method, id, header).await?;
        assert_eq!(answered.status, expected, "{method} {header:?}: {answered:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_the_version_is_told_so() -> Result<()> {
    let deployment = Deployment::start().await?;
    let task = deployment.api.create(&json!({ "title": "a" })).await?;
    let id = task["id"].as_str().unwrap();
    // The first from the database, the others from the cache.
    for (tag, expected) in [
        ("\"1\"", StatusCode::NOT_MODIFIED),
        ("W/\"1\"", StatusCode::NOT_MODIFIED),
        ("*", StatusCode::NOT_MODIFIED),
        ("\"2\"", StatusCode::OK),
        ("\"x,*,y\"", StatusCode::OK),
    ] {
        let read = ask(&deployment, "GET", id, ("if-none-match", tag)).await?;
        assert_eq!((read.status, read.header("etag")), (expected, Some("\"1\"")), "{tag}");
    }
    deployment.api.patch(id, &json!({ "title": "b" })).await?;
    let read = ask(&deployment, "GET", id, ("if-none-match", "\"1\"")).await?;
    assert_eq!((read.status, read.header("etag")), (StatusCode::OK, Some("\"2\"")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_can_ask_for_a_version() -> Result<()> {
    let deployment = Deployment::start().await?;
    let task = deployment.api.create(&json!({ "title": "a" })).await?;
    let id = task["id"].as_str().unwrap();
    for (tag, expected) in [
        ("\"99\"", StatusCode::PRECONDITION_FAILED),
        ("W/\"1\"", StatusCode::PRECONDITION_FAILED),
        ("\"1\"", StatusCode::OK),
        ("*", StatusCode::OK),
    ] {
        for method in ["GET", "HEAD"] {
            let read = ask(&deployment, method, id, ("if-match", tag)).await?;
            assert_eq!(read.status, expected, "{method} {tag}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_is_no_list_of_tags_is_422() -> Result<()> {
    let deployment = Deployment::start().await?;
    let task = deployment.api.create(&json!({ "title": "a" })).await?;
    let id = task["id"].as_str().unwrap();
    for (name, shown) in [("if-match", "If-Match"), ("if-none-match", "If-None-Match")] {
        for method in ["GET", "PUT", "PATCH", "DELETE"] {
            for value in ["1", "*, \"1\"", "W/1"] {
                let refused = ask(&deployment, method, id, (name, value)).await?;
                assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{method} {name}: {value}");
                assert_eq!(refused.json()?["errors"][0]["header"], shown);
            }
        }
    }
    assert_eq!(deployment.api.read(id).await?, task);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_412_says_why() -> Result<()> {
    let deployment = Deployment::start().await?;
    let task = deployment.api.create(&json!({ "title": "a" })).await?;
    let id = task["id"].as_str().unwrap();
    for (header, words) in [
        (("if-match", "\"2\""), "another version"),
        (("if-match", "W/\"1\""), "weak entity tag never matches"),
        (("if-none-match", "\"1\""), "If-None-Match excludes"),
    ] {
        for method in ["PUT", "PATCH", "DELETE"] {
            let refused = ask(&deployment, method, id, header).await?;
            assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED, "{method} {header:?}");
            assert!(refused.json()?["detail"].as_str().unwrap().contains(words), "{refused:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_get_shows_can_be_put() -> Result<()> {
    let deployment = Deployment::start().await?;
    let shown = deployment.api.create(&json!({ "title": "a", "tags": ["x"] })).await?;
    let path = format!("/api/tasks/{}", shown["id"].as_str().unwrap());
    let put = async |body: &Value, if_match: Option<&str>| {
        let request = deployment.api.request("PUT", &path)?.json(body);
        answer(if_match.into_iter().fold(request, |request, tag| request.header("if-match", tag))).await
    };
    let same = put(&shown, None).await?;
    assert_eq!((same.status, same.json()?), (StatusCode::OK, shown.clone()), "nothing to change");

    let mut changed = shown.clone();
    changed["status"] = json!("done");
    let done = put(&changed, Some("\"1\"")).await?;
    assert_eq!(done.status, StatusCode::OK, "{done:?}");
    let task = done.json()?;
    assert_eq!((&task["status"], &task["version"]), (&json!("done"), &json!(2)));

    let outdated = put(&shown, None).await?;
    assert_eq!(outdated.status, StatusCode::UNPROCESSABLE_ENTITY, "{outdated:?}");
    let errors = outdated.json()?["errors"].clone();
    let named: Vec<_> = errors.as_array().unwrap().iter().map(|error| &error["pointer"]).collect();
    assert_eq!(named, ["/version", "/updated_at"]);
    assert_eq!(put(&shown, Some("\"1\"")).await?.status, StatusCode::PRECONDITION_FAILED);

    for (name, value) in [
        ("id", json!("00000000-0000-7000-8000-000000000000")),
        ("version", json!(3)),
        ("created_at", json!("2026-01-01T00:00:00Z")),
        ("updated_at", json!("2026-01-01T00:00:00Z")),
    ] {
        let mut other = task.clone();
        other[name] = value;
        let refused = put(&other, None).await?;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{name}: {refused:?}");
        assert_eq!(refused.json()?["errors"][0]["pointer"], format!("/{name}"));
    }
    assert_eq!(deployment.api.read(shown["id"].as_str().unwrap()).await?, task);
    let missing = "/api/tasks/00000000-0000-7000-8000-000000000000";
    let body = json!({ "title": "a", "version": 1 });
    let missing = answer(deployment.api.request("PUT", missing)?.json(&body)).await?;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_demanded_a_write_needs_its_version() -> Result<()> {
    let deployment = Deployment::start_with(&[("require_if_match", "true")]).await?;
    let task = deployment.api.create(&json!({ "title": "a" })).await?;
    let id = task["id"].as_str().unwrap();
    for method in ["PATCH", "PUT", "DELETE"] {
        let refused = ask(&deployment, method, id, ("x-nothing", "to see")).await?;
        assert_eq!(refused.status, StatusCode::PRECONDITION_REQUIRED, "{method}");
    }
    let allowed = ask(&deployment, "DELETE", id, ("if-match", "\"1\"")).await?;
    assert_eq!(allowed.status, StatusCode::NO_CONTENT);
    Ok(())
}
