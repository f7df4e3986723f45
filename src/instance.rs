//! What the requests of an instance share.
//!
//! Spin serves up to 16 requests at once and 128 in all with one instance, interleaved on one thread.
//! So no borrow of a cell is held across an await.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use axum::Router;

use crate::api;
use crate::cache::Cache;
use crate::config::{Config, ConfigError};
use crate::forward::Forwarder;
use crate::group_commit::GroupCommit;
use crate::store::Store;

pub struct Instance {
    pub router: RefCell<Router>,
    pub config: Config,
    pub store: Store,
    pub cache: Cache,
    pub group_commit: GroupCommit,
    pub forwarder: Rc<Forwarder>,
}

thread_local! {
    static INSTANCE: OnceCell<Rc<Instance>> = const { OnceCell::new() };
}

/// The instance, configured at its first request. After a failure the next request tries again.
pub async fn get() -> Result<Rc<Instance>, ConfigError> {
    if let Some(instance) = INSTANCE.with(|cell| cell.get().cloned()) {
        return Ok(instance);
    }
    let loaded = Rc::new(Instance::new(Config::load().await?));
    // Several first requests may get here at once. All of them use the first one's instance.
    Ok(INSTANCE.with(|cell| Rc::clone(cell.get_or_init(|| loaded))))
}

impl Instance {
    fn new(config: Config) -> Instance {
        let store = Store::new(config.database_url.expose(), config.postgres_timeout);
        let cache = Cache::new(&config);
        let group_commit = GroupCommit::new(config.postgres_timeout);
        let token = config.sidecar_token.expose();
        let forwarder = Rc::new(Forwarder::new(&config.sidecar_url, token, config.sidecar_timeout));
        let router = RefCell::new(api::router(&config));
        Instance { router, config, store, cache, group_commit, forwarder }
    }
}
