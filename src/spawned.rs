//! Tasks that a request spawns, such as the one that writes its response's body.

use spin_sdk::wit_bindgen;

/// Lets every task start that was spawned until now.
///
/// The guest's executor takes in spawned tasks only when it stops. A single yield does not stop it
/// while other tasks wait for something, so this yields twice.
pub async fn yield_to_spawned_tasks() {
    wit_bindgen::yield_async().await;
    wit_bindgen::yield_async().await;
}
