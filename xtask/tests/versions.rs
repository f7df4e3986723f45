//! A version that several files name is the same in each.

use std::fs;

use xtask::repository;

#[test]
fn every_file_names_the_rust_version_of_rust_toolchain_toml() {
    let version = between("rust-toolchain.toml", "channel = \"", "\"");
    let (major_and_minor, _patch) = version.rsplit_once('.').unwrap();
    assert_eq!(between("Cargo.toml", "\nrust-version = \"", "\""), major_and_minor);
    assert_eq!(between("sidecar/Dockerfile", "\nARG RUST_VERSION=", "\n"), version);
}

#[test]
fn docker_compose_starts_the_kafka_that_the_tests_run_with() {
    let artifact = "<artifactId>kafka_2.13</artifactId>\n      <version>";
    let tested = between("xtask/services/kafka-4.4/pom.xml", artifact, "</version>");
    assert_eq!(between("docker-compose.yml", "\n    image: apache/kafka:", "\n"), tested);
}

/// What stands in a file of the repository between the first `before` and the `after` that follows.
fn between(path: &str, before: &str, after: &str) -> String {
    let text = fs::read_to_string(repository::root().join(path)).unwrap();
    let found = text.split_once(before).and_then(|(_, rest)| rest.split_once(after));
    let (found, _) = found.unwrap_or_else(|| panic!("{path} has no {before:?}"));
    found.to_owned()
}
