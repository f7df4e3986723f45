//! What `bindgen!` makes of the WIT in the spin-sdk package; build.rs writes the call.

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
