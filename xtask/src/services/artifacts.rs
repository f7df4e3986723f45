//! Fetches what the services consist of, once, with the ordinary Maven client and a `pom.xml` for each set.
//!
//! Invariant: the name of a set's directory under `.data/services` holds a hash of its pom, so that a changed pom is
//! another set.

use std::env::consts::{ARCH, OS};
use std::fs::{self, File, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tokio::task::spawn_blocking;

use super::KafkaVersion;
use crate::once::filled;
use crate::repository;

#[derive(Clone, Copy)]
pub(super) struct Set {
    name: &'static str,
    /// As people know it, with its size, for those who wait.
    title: &'static str,
    pom: &'static str,
    content: Content,
}

#[derive(Clone, Copy)]
enum Content {
    /// Jars with their dependencies, for a class path: `jars/`.
    Jars,
    /// One jar per platform, in it a txz: `bin/`, `lib/`, `share/`.
    Postgres,
    /// One jar with a server for each platform: `redis-server`.
    Redis,
}

pub(super) const POSTGRES: Set = Set {
    name: "postgres",
    title: "PostgreSQL 18 (15 MB)",
    pom: include_str!("../../services/postgres/pom.xml"),
    content: Content::Postgres,
};

pub(super) const REDIS: Set = Set {
    name: "redis",
    title: "Redis (20 MB)",
    pom: include_str!("../../services/redis/pom.xml"),
    content: Content::Redis,
};

pub(super) const KAFKA_4_4: Set = Set {
    name: "kafka-4.4",
    title: "Kafka 4.4 (43 MB)",
    pom: include_str!("../../services/kafka-4.4/pom.xml"),
    content: Content::Jars,
};

pub(super) const KAFKA_3_0: Set = Set {
    name: "kafka-3.0",
    title: "Kafka 3.0 and ZooKeeper (37 MB)",
    pom: include_str!("../../services/kafka-3.0/pom.xml"),
    content: Content::Jars,
};

pub(super) const KAFKA_TOOLS: Set = Set {
    name: "kafka-tools",
    title: "Kafka's console consumer (26 MB)",
    pom: include_str!("../../services/kafka-tools/pom.xml"),
    content: Content::Jars,
};

/// Fetches all that PostgreSQL, Redis, a broker of each of these versions and the console consumer need. Says what it
/// fetches on standard error; silent if nothing is missing.
pub async fn fetch_all(kafka: &[KafkaVersion]) -> Result<()> {
    for set in [POSTGRES, REDIS, KAFKA_TOOLS] {
        fetched(set).await?;
    }
    for version in kafka {
        fetched(version.set()).await?;
    }
    Ok(())
}

/// The set's directory, fetched now if it was not before.
pub(super) async fn fetched(set: Set) -> Result<PathBuf> {
    let dir = directory(set)?;
    if !dir.is_dir() {
        let target = dir.clone();
        spawn_blocking(move || fetch(set, &target))
            .await?
            .with_context(|| format!("fetching {}", set.title))?;
    }
    Ok(dir)
}

fn directory(set: Set) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    (set.pom, OS, ARCH).hash(&mut hasher);
    Ok(repository::data_dir()?.join("services").join(format!("{}-{:016x}", set.name, hasher.finish())))
}

fn fetch(set: Set, target: &Path) -> Result<()> {
    filled(target, set.name, &format!("{} through Maven", set.title), |dir| {
        fs::write(dir.join("pom.xml"), set.pom)?;
        match set.content {
            Content::Jars => maven(dir, &["dependency:copy-dependencies", "-DoutputDirectory=jars"]),
            Content::Postgres => unpack_postgres(dir),
            Content::Redis => unpack_redis(dir),
        }
    })
}

fn unpack_postgres(dir: &Path) -> Result<()> {
    let (os, arch) = platform()?;
    let platform = format!("-Dplatform={os}-{}", if arch == "arm64" { "arm64v8" } else { arch });
    let archive = unpack(dir, "*.txz", &[&platform])?;
    let tar = dir.join("postgres.tar");
    lzma_rs::xz_decompress(&mut BufReader::new(File::open(&archive)?), &mut File::create(&tar)?)
        .with_context(|| format!("decompressing {}", archive.display()))?;
    tar::Archive::new(BufReader::new(File::open(&tar)?)).unpack(dir)?;
    fs::remove_file(tar)?;
    fs::remove_file(archive)?;
    Ok(())
}

fn unpack_redis(dir: &Path) -> Result<()> {
    let (os, arch) = platform()?;
    let server = unpack(dir, &format!("redis-server-*-{os}-{arch}"), &[])?;
    let target = dir.join("redis-server");
    fs::rename(server, &target)?;
    fs::set_permissions(target, Permissions::from_mode(0o755))?;
    Ok(())
}

/// The one file in the set's jar that matches `pattern`.
fn unpack(dir: &Path, pattern: &str, arguments: &[&str]) -> Result<PathBuf> {
    let pattern_argument = format!("-Dmdep.unpack.includes={pattern}");
    let mut all = vec![
        "dependency:unpack-dependencies",
        "-DoutputDirectory=unpacked",
        "-DexcludeTransitive=true",
        &pattern_argument,
    ];
    all.extend(arguments);
    maven(dir, &all)?;
    let mut found = fs::read_dir(dir.join("unpacked"))?;
    let file = found.next().with_context(|| format!("the jar has no {pattern}"))??;
    Ok(file.path())
}

/// Operating system and processor as the jars name them.
fn platform() -> Result<(&'static str, &'static str)> {
    let os = if OS == "macos" { "darwin" } else { OS };
    match ARCH {
        "x86_64" => Ok((os, "amd64")),
        "aarch64" => Ok((os, "arm64")),
        other => {
            bail!("no binaries are published for {other}: give the service's URL in the environment instead")
        }
    }
}

fn maven(dir: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new("mvn")
        .args(["--batch-mode", "--no-transfer-progress", "--quiet"])
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .context("starting `mvn`: install Maven, or give the services' URLs in the environment")?;
    ensure!(
        output.status.success(),
        "mvn ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
