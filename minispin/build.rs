//! Finds the WIT of Spin's interfaces in the spin-sdk package and writes the `bindgen!` call over it.
//! No WIT text is kept in this repository: what the guest was compiled against is what the host implements.

use std::{env, fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use cargo_metadata::MetadataCommand;

/// The interfaces that minispin implements; none of these packages depends on another one.
const WIT_PACKAGES: [&str; 3] = ["spin-postgres@4.2.0", "spin-redis@3.0.0", "spin-variables@3.0.0"];

/// Everything of the `bindgen!` call but the paths.
const BINDGEN_OPTIONS: &str = r#"
    inline: "
        package minispin:host;

        world host {
            import spin:postgres/postgres@4.2.0;
            import spin:redis/redis@3.0.0;
            import spin:variables/variables@3.0.0;
        }
    ",
    world: "minispin:host/host",
    imports: {
        "spin:postgres/postgres.[constructor]connection-builder": async | trappable,
        default: async,
    },
    with: {
        "spin:postgres/postgres.connection": crate::host::postgres::Connection,
        "spin:postgres/postgres.connection-builder": crate::host::postgres::ConnectionBuilder,
        "spin:redis/redis.connection": crate::host::redis::Connection,
    },
"#;

fn main() -> Result<()> {
    let manifest_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let lock = manifest_dir.join("../Cargo.lock");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", lock.display());

    // Without the filter Cargo would want every platform's packages on disk. It goes online only for a package
    // that is missing there, and never changes the lock file.
    let host = env::var("HOST")?;
    let metadata = MetadataCommand::new()
        .manifest_path(manifest_dir.join("Cargo.toml"))
        .other_options(["--locked".into(), "--filter-platform".into(), host])
        .exec()
        .context(
            "asking cargo where the spin-sdk package is; `cargo fetch --locked` brings what is missing",
        )?;
    let sdk = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == "spin-sdk")
        .context("spin-sdk is no dependency of this workspace, so its WIT cannot be found")?;
    let deps = sdk.manifest_path.with_file_name("wit").join("deps");

    let mut call = String::from("wasmtime::component::bindgen!({\n    path: [\n");
    for package in WIT_PACKAGES {
        let folder = deps.join(package);
        ensure!(
            folder.is_dir(),
            "{folder} is missing: spin-sdk {} ships other versions, adapt WIT_PACKAGES",
            sdk.version
        );
        writeln!(call, "        {:?},", folder.as_str())?;
    }
    writeln!(call, "    ],{BINDGEN_OPTIONS}}});")?;

    let out = PathBuf::from(env::var("OUT_DIR")?).join("bindings.rs");
    fs::write(&out, call).with_context(|| format!("writing {}", out.display()))?;
    Ok(())
}
