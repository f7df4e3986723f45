//! The WebAssembly engine: compiles components, once and then from the cache on disk, and hands out their
//! memory from a pool of fixed size.

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use wasmtime::{
    Cache, CacheConfig, Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result,
    component::{Component, Linker},
    error::Context,
};
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::{
    application,
    host::{self, State},
};

/// Instances alive at once, of all components together, as in Spin. A request that needs one more is
/// answered 503.
pub const INSTANCES_MAX: u32 = 1_000;
/// Stacks at once: one for each instance, and one for each request in flight. Each takes two of the
/// mappings that the kernel lets a process have (vm.max_map_count, 65,530).
const STACKS_MAX: u32 = INSTANCES_MAX + application::Config::REQUESTS_MAX as u32;
/// Core modules that one instance may consist of: the guest itself and the adapters around it.
const CORE_INSTANCES_PER_INSTANCE: u32 = 16;
/// Linear memory of an instance. Past it the guest's allocations fail, and a Rust guest traps.
const INSTANCE_MEMORY_BYTES_MAX: usize = 256 << 20;
/// Function table entries of an instance.
const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Wasmtime's own bookkeeping for an instance.
const INSTANCE_METADATA_BYTES_MAX: usize = 10 << 20;
/// What stays mapped of a memory and a table that are given back, as in Spin: cheaper to clear than to map.
const MEMORY_KEEP_RESIDENT_BYTES: usize = 2 << 20;
const TABLE_KEEP_RESIDENT_BYTES: usize = 512 << 10;
/// A guest that computes gives way to the other tasks of its thread this often, as in Spin.
const YIELD_INTERVAL: Duration = Duration::from_millis(10);

/// Where compiled components are kept.
#[derive(Clone, Debug, Default)]
pub enum CodeCache {
    /// Wasmtime's own folder in the user's cache directory.
    #[default]
    Default,
    Folder(PathBuf),
    Off,
}

/// An engine with everything that a component may import.
pub struct Compiler {
    engine: Engine,
    linker: Linker<State>,
}

impl Compiler {
    pub fn new(cache: CodeCache) -> Result<Self> {
        let mut config = Config::new();
        config.wasm_component_model_async(true);
        config.epoch_interruption(true);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
        config.cache(open_cache(cache)?);
        let engine = Engine::new(&config).context("starting the WebAssembly engine")?;
        tick(engine.clone());
        let mut linker = Linker::new(&engine);
        host::add_to_linker(&mut linker).context("linking the host's interfaces")?;
        Ok(Self { engine, linker })
    }

    /// Compiles a component and checks that minispin has all that it imports.
    pub fn compile(&self, id: &str, source: &Path) -> Result<ServicePre<State>> {
        let component = Component::from_file(&self.engine, source).with_context(|| {
            format!("loading {} for component {id}; build it first, `source` says where", source.display())
        })?;
        let linked = self.linker.instantiate_pre(&component).with_context(|| {
            format!("component {id} imports what minispin does not have; Spin may: run it with `spin up`")
        })?;
        ServicePre::new(linked).with_context(|| {
            format!(
                "component {id} does not export wasi:http/handler@0.3.0: build it with spin-sdk 7 or later"
            )
        })
    }
}

fn pool() -> PoolingAllocationConfig {
    let core_instances_max = INSTANCES_MAX * CORE_INSTANCES_PER_INSTANCE;
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(INSTANCES_MAX)
        .total_stacks(STACKS_MAX)
        .total_memories(INSTANCES_MAX)
        .total_tables(2 * INSTANCES_MAX)
        .total_core_instances(core_instances_max)
        .max_core_instances_per_component(CORE_INSTANCES_PER_INSTANCE)
        .max_memory_size(INSTANCE_MEMORY_BYTES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_component_instance_size(INSTANCE_METADATA_BYTES_MAX)
        .max_core_instance_size(INSTANCE_METADATA_BYTES_MAX)
        .linear_memory_keep_resident(MEMORY_KEEP_RESIDENT_BYTES)
        .table_keep_resident(TABLE_KEEP_RESIDENT_BYTES);
    pool
}

fn open_cache(cache: CodeCache) -> Result<Option<Cache>> {
    let mut config = CacheConfig::new();
    match cache {
        CodeCache::Off => return Ok(None),
        CodeCache::Default => {}
        CodeCache::Folder(folder) => {
            // Wasmtime wants an absolute path to a folder that exists.
            std::fs::create_dir_all(&folder)
                .and_then(|()| folder.canonicalize())
                .map(|folder| config.with_directory(folder))
                .with_context(|| format!("opening the code cache in {}", folder.display()))?;
        }
    }
    let cache = Cache::new(config).context("opening the code cache; `--disable-cache` does without one")?;
    Ok(Some(cache))
}

/// Advances the engine's epoch until the last clone of the engine outside this thread is gone.
fn tick(engine: Engine) {
    let weak = engine.weak();
    drop(engine);
    // The channel is never written to: waiting on it is this thread's clock.
    let (keep, clock) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _keep = keep;
        while clock.recv_timeout(YIELD_INTERVAL).is_err() {
            match weak.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    });
}
