//! The instance's connection to PostgreSQL, shared by its requests.
//!
//! Spin has 64 for all instances, and resets one each time it hands it out, which costs more than most statements: so
//! an instance holds the one that it has opened for a moment. No longer, or instances with nothing to do would starve
//! the others.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use spin_sdk::pg;
use spin_sdk::{time, wit_bindgen};

use crate::batcher::Batcher;

/// How long a connection is held, in use or not, from the moment on when it was asked for. As long as requests follow each
/// other on it, it is used for longer. Who had to wait so long for one that others wait as well gives it back at once.
const HOLD: Duration = Duration::from_millis(20);

pub struct Connection {
    database_url: String,
    open: RefCell<Weak<pg::Connection>>,
    opening: Batcher<(), Result<Rc<pg::Connection>, String>>,
}

impl Connection {
    pub fn new(database_url: String) -> Connection {
        Connection { database_url, open: RefCell::default(), opening: Batcher::new() }
    }

    /// The one that is there, or else a new one.
    ///
    /// # Errors
    /// Why none can be opened.
    pub async fn get(&self) -> Result<Rc<pg::Connection>, String> {
        let present = self.open.borrow().upgrade();
        match present {
            Some(present) => Ok(present),
            None => {
                let open = async || self.open().await;
                self.opening.submit((), open, async |opened, items| vec![opened; items.len()]).await
            }
        }
    }

    /// Nobody gets this one any more.
    pub fn forget(&self, broken: &Rc<pg::Connection>) {
        let mut open = self.open.borrow_mut();
        if Weak::ptr_eq(&open, &Rc::downgrade(broken)) {
            *open = Weak::new();
        }
    }

    /// Nobody gets the present one any more, whichever it is.
    pub fn forget_present(&self) {
        self.open.take();
    }

    async fn open(&self) -> Result<Rc<pg::Connection>, String> {
        let asked = Instant::now();
        let opened = pg::Connection::open(&self.database_url).await.map_err(|error| error.to_string())?;
        let opened = Rc::new(opened);
        self.open.replace(Rc::downgrade(&opened));
        let left = HOLD.saturating_sub(asked.elapsed());
        if !left.is_zero() {
            let held = Rc::clone(&opened);
            wit_bindgen::spawn(async move {
                time::sleep(left).await;
                drop(held);
            });
        }
        Ok(opened)
    }
}
