//! What describes a deployment is valid for the tools that read it.

use anyhow::Result;
use e2e::run_tool;
use xtask::repository;
use xtask::tools::Tools;

#[tokio::test]
async fn every_file_in_deploy_is_valid() -> Result<()> {
    let mut check = Tools::fetch().await?.python();
    check.arg("deploy/check.py").current_dir(repository::root());
    run_tool(check, "").await
}
