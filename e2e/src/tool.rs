use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use tokio::io::AsyncWriteExt as _;

/// Runs a tool to its end, which must be a success. The error of a failure has what the tool said.
pub async fn run_tool(mut command: Command, input: &str) -> Result<()> {
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
