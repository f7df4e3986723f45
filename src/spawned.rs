//! Tasks that a request spawns, such as the one that writes its response's body.

use spin_sdk::wit_bindgen;

/// Lets everything begin that has been spawned until now.
///
/// Twice, because the guest's executor goes on with a request that has given way once if others wait for something, and
/// takes in what was spawned only when it stops.
pub async fn begin() {
    wit_bindgen::yield_async().await;
    wit_bindgen::yield_async().await;
}
