//! From configuration to an application that is ready to serve. Everything that can be wrong with it is found
//! here, before the first request.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use wasmtime_wasi::cli::OutputFile;

use crate::{
    allowed_hosts::AllowedHosts,
    connections::{self, Limits},
    engine::{CodeCache, Compiler, INSTANCES_MAX},
    host::{self, http, postgres},
    instances::{Instances, Lifetime, REQUESTS_AT_ONCE_MAX, Starter},
    manifest::{self, Manifest},
    routes::Router,
    server::{Served, Server},
    variables::Values,
};

/// What to run and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The manifest; paths in it are relative to its folder.
    pub manifest: PathBuf,
    /// Values of application variables, as `--variable` gives them.
    pub variables: Vec<(String, String)>,
    /// Where `SPIN_VARIABLE_…` are looked up.
    pub environment: fn(&str) -> Option<String>,
    /// Where the components' output goes. Default: `.spin/logs` beside the manifest.
    pub log_dir: Option<PathBuf>,
    pub cache: CodeCache,
    /// Requests in flight; past it, 503.
    pub requests_max: usize,
    /// Connections at once, if the limit on open files allows so many; others wait until one of
    /// these has ended.
    pub connections_max: usize,
    /// For the head of a request to arrive, from the connection's begin or the last response on.
    pub head_timeout: Duration,
    /// For a client to take some of its response.
    pub write_timeout: Duration,
    /// How long a stop waits for requests in flight and for what guests do after their responses.
    pub shutdown_max: Duration,
}

impl Config {
    /// The most that `requests_max` can be, and its default: there is a stack for each.
    pub const REQUESTS_MAX: usize = 2048;
    /// Default of `connections_max`.
    pub const CONNECTIONS_MAX: usize = 4096;
    /// Default of `head_timeout`: longer than proxies keep an idle connection (60 s as a rule), for
    /// one that sends a request just as it is closed has to answer with 502.
    const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
    /// Default of `write_timeout`.
    const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
    /// Default of `shutdown_max`, in seconds.
    pub const SHUTDOWN_MAX_S: u64 = 10;

    /// The defaults of the command line.
    pub fn new(manifest: impl Into<PathBuf>) -> Self {
        Self {
            manifest: manifest.into(),
            variables: Vec::new(),
            environment: |name| std::env::var(name).ok(),
            log_dir: None,
            cache: CodeCache::Default,
            requests_max: Self::REQUESTS_MAX,
            connections_max: Self::CONNECTIONS_MAX,
            head_timeout: Self::HEAD_TIMEOUT,
            write_timeout: Self::WRITE_TIMEOUT,
            shutdown_max: Duration::from_secs(Self::SHUTDOWN_MAX_S),
        }
    }
}

// Requests that wait, as most do, must find room in the instances; only guests that compute need more.
const _: () = assert!(Config::REQUESTS_MAX <= INSTANCES_MAX as usize * REQUESTS_AT_ONCE_MAX);

/// An application, compiled and ready to serve.
pub struct Application {
    server: Arc<Server>,
    lifetime: Lifetime,
    limits: Limits,
}

impl Application {
    pub fn load(config: &Config) -> Result<Self> {
        let manifest = Manifest::load(&config.manifest)
            .with_context(|| format!("the manifest {} cannot be run", config.manifest.display()))?;
        let values = Values::resolve(&manifest.variables, &config.variables, config.environment)?;
        let log_dir = open_log_dir(config)?;
        let compiler = Compiler::new(config.cache.clone())?;
        let lifetime = Lifetime::default();

        let mut components = BTreeMap::new();
        for (id, component) in &manifest.components {
            let service = compiler.compile(id, &component.source)?;
            let component_state = Arc::new(component_state(id, component, &values, &log_dir)?);
            let starter = Starter { component: component_state, service, lifetime: lifetime.clone() };
            let served = Served {
                id: id.clone(),
                description: component.description.clone(),
                instances: Instances::new(starter),
            };
            components.insert(id.as_str(), Arc::new(served));
        }
        let routes = manifest
            .triggers
            .iter()
            .map(|trigger| (trigger.route.clone(), components[trigger.component.as_str()].clone()));
        let server = Arc::new(Server::new(Router::new(routes), config.requests_max));
        tracing::info!(application = manifest.application, log_dir = %log_dir.display(), "ready to serve");
        let limits = Limits {
            connections_max: config.connections_max,
            head_timeout: config.head_timeout,
            write_timeout: config.write_timeout,
            shutdown_max: config.shutdown_max,
        };
        Ok(Self { server, lifetime, limits })
    }

    /// What Spin prints at start. Programs wait for the line `Serving http://…`.
    pub fn announcement(&self, address: SocketAddr) -> String {
        let mut text = format!("\nServing http://{address}\nAvailable Routes:\n");
        for (route, served) in self.server.router.iter() {
            // Writing to a string does not fail.
            _ = writeln!(text, "  {}: http://{address}{}", served.id, route.listing());
            if let Some(description) = &served.description {
                _ = writeln!(text, "    {description}");
            }
        }
        text
    }

    /// Serves until `shutdown` is ready, then finishes what was begun, within the configured time.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<()> {
        connections::serve(listener, self.server, self.lifetime, self.limits, shutdown).await
    }
}

fn component_state(
    id: &str,
    component: &manifest::Component,
    values: &Values,
    log_dir: &Path,
) -> Result<host::Component> {
    let fill = |template: &String| values.fill(template);
    let hosts = component
        .allowed_outbound_hosts
        .iter()
        .map(fill)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("allowed_outbound_hosts of component {id}"))?;
    let variables = component
        .variables
        .iter()
        .map(|(name, template)| Ok((name.clone(), values.fill(template)?)))
        .collect::<Result<BTreeMap<_, _>>>()
        .with_context(|| format!("[component.{id}.variables]"))?;
    Ok(host::Component {
        id: id.to_owned(),
        allowed_hosts: AllowedHosts::parse(&hosts)
            .map_err(|problem| anyhow::anyhow!("allowed_outbound_hosts of component {id}: {problem}"))?,
        variables,
        postgres: postgres::Pools::default(),
        http: http::Client::new(),
        stdout: open_log(log_dir, id, "stdout")?,
        stderr: open_log(log_dir, id, "stderr")?,
    })
}

fn open_log_dir(config: &Config) -> Result<PathBuf> {
    let beside = || config.manifest.parent().unwrap_or(Path::new("")).join(".spin/logs");
    let log_dir = config.log_dir.clone().unwrap_or_else(beside);
    fs::create_dir_all(&log_dir)
        .with_context(|| format!("creating {}; `--log-dir` names another folder", log_dir.display()))?;
    Ok(log_dir)
}

fn open_log(log_dir: &Path, id: &str, stream: &str) -> Result<OutputFile> {
    let path = log_dir.join(format!("{id}_{stream}.txt"));
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    Ok(OutputFile::new(file))
}
