use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use e2e::{Deployment, answer};
use reqwest::StatusCode;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use xtask::repository;
use xtask::tools::Tools;

/// Enough to come upon every rule of the schemas, and few enough for every run of the tests.
const EXAMPLES_MAX: &str = "40";

/// The same cases in every run, so that a failure is one of the change that is tested.
const SEED: &str = "1";

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing_that_the_openapi_document_does_not_say() -> Result<()> {
    let deployment = Deployment::start().await?;
    for title in ["one", "two", "three"] {
        // So that there are pages to go on from.
        deployment.api.create(&json!({ "title": title })).await?;
    }
    let tools = Tools::fetch().await?;
    for accept in ["*/*", "application/json"] {
        let mut command = tools.python();
        command.args(["-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run"]);
        command.arg(deployment.api.url("/openapi.json"));
        command.args(["--max-examples", EXAMPLES_MAX, "--seed", SEED]);
        command.args(["-H", &format!("Accept: {accept}")]);
        command.env("PYTHONPATH", ".").env("NO_COLOR", "1");
        run(command, "").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_are_valid_for_the_validators_of_their_formats() -> Result<()> {
    let deployment = Deployment::start().await?;
    let tools = Tools::fetch().await?;
    for path in ["/openapi.json", "/openapi-3.0.json", "/asyncapi.json"] {
        let document = answer(deployment.api.get(path)).await?;
        assert_eq!(document.status, StatusCode::OK, "{document:?}");
        let mut schemas = tools.python();
        schemas.arg("schemas.py");
        run(schemas, &document.body).await?;
    }
    let document = answer(deployment.api.get("/asyncapi.json")).await?;
    let mut parser = tools.node();
    parser.arg("asyncapi.cjs");
    run(parser, &document.body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_for_people_needs_no_other_host() -> Result<()> {
    let deployment = Deployment::start().await?;
    let page = answer(deployment.api.get("/docs")).await?;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{page:?}");
    let policy = page.header("content-security-policy").context("a policy")?;
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; connect-src 'self';"), "{policy}");
    let links = page.body.split('"').filter(|text| text.starts_with('/'));
    for path in links.chain(["/openapi.json", "/openapi-3.0.json", "/asyncapi.json"]) {
        let file = answer(deployment.api.get(path)).await?;
        assert_eq!(file.status, StatusCode::OK, "{path}");
        let etag = file.header("etag").context("an entity tag")?;
        let again = answer(deployment.api.get(path).header("If-None-Match", etag)).await?;
        assert_eq!(again.status, StatusCode::NOT_MODIFIED, "{path}");
        for (name, tags, expected) in [
            ("If-None-Match", "\"x,*,y\"".to_owned(), StatusCode::OK),
            ("If-None-Match", format!("\"a,b\", W/{etag}"), StatusCode::NOT_MODIFIED),
            ("If-Match", "\"x,*,y\"".to_owned(), StatusCode::PRECONDITION_FAILED),
            ("If-Match", etag.to_owned(), StatusCode::OK),
        ] {
            let read = answer(deployment.api.get(path).header(name, &tags)).await?;
            assert_eq!(read.status, expected, "{path} {name}: {tags}");
        }
    }
    assert!(!page.body.contains("://"), "{}", page.body);
    assert_eq!(answer(deployment.api.get("/docs/nothing")).await?.status, StatusCode::NOT_FOUND);
    assert_eq!(answer(deployment.api.post("/docs")).await?.status, StatusCode::METHOD_NOT_ALLOWED);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_example_does_what_it_says() -> Result<()> {
    let deployment = Deployment::start().await?;
    let mut example = Tools::fetch().await?.python();
    example.arg("../../examples/python/walkthrough.py").arg(deployment.api.url(""));
    run(example, "").await
}

/// Runs one of the tools in their folder; what it says is told if it fails.
async fn run(mut command: Command, input: &str) -> Result<()> {
    command.current_dir(repository::root().join("e2e/tools"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let shown = format!("{command:?}");
    let mut child =
        tokio::process::Command::from(command).kill_on_drop(true).spawn().context("starting it")?;
    child.stdin.take().context("an input")?.write_all(input.as_bytes()).await?;
    let Output { status, stdout, stderr } = child.wait_with_output().await?;
    let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    ensure!(status.success(), "{shown} ended with {status}\n{said}");
    Ok(())
}
