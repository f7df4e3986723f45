use std::process::Command;

use anyhow::{Context as _, Result};
use e2e::{Deployment, answer, directory, run_tool};
use reqwest::StatusCode;
use serde_json::json;
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
async fn linters_have_nothing_to_warn_of() -> Result<()> {
    let deployment = Deployment::start().await?;
    let tools = Tools::fetch().await?;
    let directory = directory("linters")?;
    for name in ["openapi.json", "openapi-3.0.json", "asyncapi.json"] {
        let document = answer(deployment.api.get(&format!("/{name}"))).await?;
        let file = directory.join(name);
        std::fs::write(&file, document.body)?;
        let mut spectral = tools.node();
        spectral.arg(tools.node_modules().join("@stoplight/spectral-cli/dist/index.js"));
        spectral.args(["lint", "--ruleset", "spectral.yaml", "--fail-severity", "warn"]).arg(&file);
        run(spectral, "").await?;
        let mut redocly = tools.node();
        redocly.arg(tools.node_modules().join("@redocly/cli/bin/cli.js"));
        redocly.args(["lint", "--config", "redocly.yaml"]).arg(&file);
        // It would tell its maker that it ran, and ask whether there is a newer one.
        redocly.env("REDOCLY_TELEMETRY", "off").env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true");
        run(redocly, "").await?;
    }
    Ok(())
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

/// Runs one of the tools in their folder.
async fn run(mut command: Command, input: &str) -> Result<()> {
    command.current_dir(repository::root().join("e2e/tools"));
    run_tool(command, input).await
}
