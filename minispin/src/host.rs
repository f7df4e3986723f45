//! What an instance of a component sees of the world: the WASI and Spin interfaces, each in its own module.
//! Nothing here sets a deadline that Spin does not set: a call that hangs on Spin hangs here too.

pub mod bindings;
pub mod http;
#[expect(
    clippy::result_large_err,
    reason = "the WIT's error holds a server error's fields, and bindgen! takes it as it is"
)]
pub mod postgres;
pub mod redis;
pub mod variables;

use std::{collections::BTreeMap, sync::Arc};

use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView, cli::OutputFile};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::allowed_hosts::{AllowedHosts, Destination};

/// Spin's limit on what the host buffers of one result, in bytes.
const RESULT_BYTES_MAX: usize = 128 << 20;

/// What all instances of a component share.
pub struct Component {
    pub id: String,
    pub allowed_hosts: AllowedHosts,
    /// Component variables with their values.
    pub variables: BTreeMap<String, String>,
    pub postgres: postgres::Pools,
    pub http: http::Client,
    pub stdout: OutputFile,
    pub stderr: OutputFile,
}

impl Component {
    /// Whether the component may connect there; a refusal is logged with the line that would allow it.
    fn permits(&self, destination: &Destination) -> bool {
        let permitted = self.allowed_hosts.allow(destination);
        if !permitted {
            tracing::warn!(
                component = self.id,
                "refused a connection to {destination}; to allow it, add \"{destination}\" to \
                 allowed_outbound_hosts in [component.{}]",
                self.id
            );
        }
        permitted
    }
}

/// The data of one instance's store.
pub struct State {
    component: Arc<Component>,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    http_hooks: http::Outbound,
    table: ResourceTable,
    redis_connections: usize,
}

impl State {
    pub fn new(component: Arc<Component>) -> Self {
        let wasi =
            WasiCtxBuilder::new().stdout(component.stdout.clone()).stderr(component.stderr.clone()).build();
        Self {
            wasi,
            http: WasiHttpCtx::new(),
            http_hooks: http::Outbound::new(component.clone()),
            table: ResourceTable::new(),
            redis_connections: 0,
            component,
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.http_hooks, table: &mut self.table, ctx: &mut self.http }
    }
}

/// Everything that a component may import.
pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    // A component built for wasm32-wasip2 imports WASI 0.2 for its standard library besides 0.3.
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi::p3::add_to_linker(linker)?;
    wasmtime_wasi_http::p3::add_to_linker(linker)?;
    bindings::Host_::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}
