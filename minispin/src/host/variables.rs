//! spin:variables@3.0.0. All values are known since the start, so a lookup cannot fail for want of a provider.

use wasmtime::component::{Accessor, HasSelf};

use super::{
    State,
    bindings::spin::variables::variables::{Error, Host, HostWithStore},
};
use crate::variables::check_name;

impl Host for State {}

impl<T: Send> HostWithStore<T> for HasSelf<State> {
    async fn get(accessor: &Accessor<T, Self>, name: String) -> Result<String, Error> {
        check_name(&name).map_err(Error::InvalidName)?;
        let component = accessor.with(|mut access| access.get().component.clone());
        component
            .variables
            .get(&name)
            .cloned()
            .ok_or_else(|| Error::Undefined(format!("no variable for {:?}.{name:?}", component.id)))
    }
}
