//! A new file among the migrations is no change that Cargo sees by itself, and the sidecar would be built without it.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
