//! The program itself: what it prints, what it refuses, and how it stops.

use std::process::{Output, Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::harness::{PATIENCE, manifest};

fn minispin(manifest: &str) -> (tempfile::TempDir, Command) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("spin.toml");
    std::fs::write(&path, manifest).expect("writing the manifest");
    let mut command = Command::new(env!("CARGO_BIN_EXE_minispin"));
    command.arg("up").arg("--from").arg(path).args(["--listen", "127.0.0.1:0"]).kill_on_drop(true);
    (folder, command)
}

async fn refusal(manifest: &str, args: &[&str]) -> String {
    let (_folder, mut command) = minispin(manifest);
    let output: Output =
        timeout(PATIENCE, command.args(args).output()).await.expect("ends").expect("started");
    assert!(!output.status.success());
    String::from_utf8(output.stderr).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_where_it_serves_and_ends_well_on_sigterm() {
    let (_folder, mut command) = minispin(&manifest());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let address = loop {
        let line = timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("read");
        if let Some(address) = line.expect("a line").strip_prefix("Serving http://127.0.0.1:") {
            break format!("127.0.0.1:{address}");
        }
    };
    tokio::net::TcpStream::connect(&address).await.expect("it listens where it says");
    assert_eq!(lines.next_line().await.expect("read").as_deref(), Some("Available Routes:"));
    let route = format!("  guest: http://{address}/guest (wildcard)");
    assert_eq!(lines.next_line().await.expect("read"), Some(route));

    let pid = child.id().expect("running").to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status().await.expect("sent");
    assert!(sent.success());
    let status = timeout(PATIENCE, child.wait()).await.expect("ends").expect("waited");
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_refuses_by_name_what_it_cannot_run() {
    let unknown = refusal(&manifest(), &["--variable", "greting=x"]).await;
    assert!(unknown.contains("--variable greting"), "{unknown}");

    let required = manifest().replace("greeting = { default = \"hello\" }", "greeting = { required = true }");
    let missing = refusal(&required, &[]).await;
    assert!(missing.contains("`greeting`") && missing.contains("SPIN_VARIABLE_GREETING"), "{missing}");

    let unsupported = refusal(&manifest().replace("variables = {", "files = []\nvariables = {"), &[]).await;
    assert!(unsupported.contains("`files` in [component.guest]"), "{unsupported}");

    let absent = refusal(&manifest().replace("minispin_guest.wasm", "absent.wasm"), &[]).await;
    assert!(absent.contains("absent.wasm") && absent.contains("build it first"), "{absent}");
}
