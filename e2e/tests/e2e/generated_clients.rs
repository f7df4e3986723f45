use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use e2e::{Deployment, LIMIT, answer, directory, run_tool};
use serde_json::json;
use xtask::repository;
use xtask::tools::Tools;

/// A directory for what one generator makes, with the programs of `e2e/tools/clients/<name>` beside
/// it.
struct Workshop {
    directory: PathBuf,
    tools: Tools,
}

impl Workshop {
    /// With the deployment's own document `document` in it.
    async fn open(name: &str, deployment: &Deployment, document: &str) -> Result<Workshop> {
        let tools = Tools::fetch().await?;
        let directory = directory(name)?;
        for file in fs::read_dir(repository::root().join("e2e/tools/clients").join(name))? {
            let file = file?;
            fs::copy(file.path(), directory.join(file.file_name()))?;
        }
        let served = answer(deployment.api.get(&format!("/{document}"))).await?;
        fs::write(directory.join(document), served.body)?;
        // Programs that are ECMAScript modules find packages nowhere else.
        symlink(tools.node_modules(), directory.join("node_modules"))?;
        Ok(Workshop { directory, tools })
    }

    async fn run(&self, mut command: Command, arguments: &[&str], input: &str) -> Result<()> {
        command.args(arguments).current_dir(&self.directory);
        run_tool(command, input).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_of_openapi_python_client_works() -> Result<()> {
    let deployment = Deployment::start().await?;
    let workshop = Workshop::open("openapi-python-client", &deployment, "openapi.json").await?;
    let generate = "-m openapi_python_client generate --path openapi.json --output-path task_api_client \
                    --meta none --config config.yaml --fail-on-warning";
    let generate: Vec<_> = generate.split_whitespace().collect();
    workshop.run(workshop.tools.python(), &generate, "").await?;
    workshop.run(workshop.tools.python(), &["walk.py", &deployment.api.url("")], "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_types_of_openapi_typescript_work() -> Result<()> {
    let deployment = Deployment::start().await?;
    let workshop = Workshop::open("openapi-typescript", &deployment, "openapi.json").await?;
    let generate = ["node_modules/openapi-typescript/bin/cli.js", "openapi.json", "--output", "schema.d.ts"];
    workshop.run(workshop.tools.node(), &generate, "").await?;
    let check = ["node_modules/typescript/bin/tsc", "--project", "."];
    workshop.run(workshop.tools.node(), &check, "").await?;
    workshop.run(workshop.tools.node(), &["walk.ts", &deployment.api.url("")], "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_of_oapi_codegen_work() -> Result<()> {
    for document in ["openapi.json", "openapi-3.0.json"] {
        let deployment = Deployment::start().await?;
        let workshop = Workshop::open("oapi-codegen", &deployment, document).await?;
        fs::create_dir(workshop.directory.join("taskapi"))?;
        let generate = ["tool", "oapi-codegen", "-config", "oapi-codegen.yaml", document];
        workshop.run(workshop.tools.go(), &generate, "").await?;
        workshop.run(workshop.tools.go(), &["run", ".", &deployment.api.url("")], "").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_of_openapi_generator_work() -> Result<()> {
    for document in ["openapi.json", "openapi-3.0.json"] {
        let deployment = Deployment::start().await?;
        let workshop = Workshop::open("openapi-generator", &deployment, document).await?;
        let generate = ["generate", "--generator-name", "python", "--package-name", "task_api_client"];
        let generate = [&generate[..], &["--input-spec", document, "--output", "."]].concat();
        workshop.run(workshop.tools.openapi_generator(), &generate, "").await?;
        workshop.run(workshop.tools.python(), &["walk.py", &deployment.api.url("")], "").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_models_of_modelina_decode_real_records() -> Result<()> {
    let deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let task = json!({ "title": "one", "priority": "high", "tags": ["home"] });
    let task = deployment.api.create(&task).await?;
    let id = task["id"].as_str().unwrap();
    deployment.api.patch(id, &json!({ "status": "done" })).await?;
    answer(deployment.api.request("DELETE", &format!("/api/tasks/{id}"))?).await?;
    let records = topic.wait_for(|records| records.len() >= 3, LIMIT).await?;
    let lines: Vec<_> = records.iter().map(|record| record.value.as_str()).collect();

    let workshop = Workshop::open("modelina", &deployment, "asyncapi.json").await?;
    workshop.run(workshop.tools.node(), &["generate.cjs", "asyncapi.json", "events"], "").await?;
    workshop.run(workshop.tools.python(), &["decode.py"], &lines.join("\n")).await
}
