//! Lets a request wait for another one of its instance.
//!
//! Each request is a component-model task of its own, and the guest's runtime cannot wake one from
//! another. A stream of the component model can: the host wakes its reader when the writer is dropped.

#[cfg(target_arch = "wasm32")]
mod ends {
    use spin_sdk::wasip3::wit_stream;
    use spin_sdk::wit_bindgen::{StreamReader, StreamWriter};

    pub type Wake = StreamWriter<u8>;
    pub struct Wait(StreamReader<u8>);

    pub fn pair() -> (Wake, Wait) {
        let (wake, wait) = wit_stream::new();
        (wake, Wait(wait))
    }

    impl Wait {
        pub async fn woken(mut self) {
            // Nothing is ever written.
            self.0.read(Vec::with_capacity(1)).await;
        }
    }
}

/// For unit tests, which have no host.
#[cfg(not(target_arch = "wasm32"))]
mod ends {
    use futures::channel::oneshot;

    pub type Wake = oneshot::Sender<()>;
    pub struct Wait(oneshot::Receiver<()>);

    pub fn pair() -> (Wake, Wait) {
        let (wake, wait) = oneshot::channel();
        (wake, Wait(wait))
    }

    impl Wait {
        pub async fn woken(self) {
            let _: Result<(), oneshot::Canceled> = self.0.await;
        }
    }
}

/// Dropping it wakes the other end.
pub use ends::Wake;

pub use ends::pair;
