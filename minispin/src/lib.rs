//! A test double of Spin on wasmtime's published crates: for tests, and for machines without the Spin CLI. It
//! schedules requests as Spin does. What minispin cannot do as Spin does, it refuses by name.
//!
//! ```text
//! spin.toml ─▶ manifest ─▶ variables ─▶ allowed_hosts ┐
//!                                        engine ──────┴▶ Application
//! client ─▶ connections ─▶ server ─▶ routes ─▶ instances ─▶ host::{http, postgres, redis, variables}
//! ```

mod manifest;
mod variables;
mod allowed_hosts;
mod routes;
mod engine;
mod application;
mod connections;
mod server;
mod instances;
mod host;
#[cfg(test)]
mod properties; // of everything that parses

pub use self::{
    application::{Application, Config},
    connections::listen,
    engine::CodeCache,
};
