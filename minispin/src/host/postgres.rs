//! spin:postgres@4.2.0. An open connection is one of the pool's, held until the guest drops it: instances
//! that hoard connections starve the others here just as they do on Spin.

mod bind;
mod error;
mod pool;
mod read;
mod rows;

use std::sync::Arc;

use deadpool_postgres::Object;
use wasmtime::component::{Accessor, FutureReader, HasSelf, Resource, StreamReader};

pub use self::pool::Pools;
use super::{
    Component, State,
    bindings::spin::postgres::postgres::{
        Column, Error, Host, HostConnection, HostConnectionBuilder, HostConnectionBuilderWithStore,
        HostConnectionWithStore, ParameterValue, Row, RowSet,
    },
};

/// The resource behind a guest's connection. Clones share it, so that calls may overlap as on Spin.
#[derive(Clone)]
pub struct Connection(Arc<Object>);

/// The resource behind a guest's connection builder: without TLS, an address is all there is to it.
pub struct ConnectionBuilder {
    address: String,
}

impl Connection {
    async fn open(component: &Component, address: &str) -> Result<Self, Error> {
        let config = pool::check(component, address)?;
        let object = component.postgres.take(address, config).await?;
        Ok(Self(Arc::new(object)))
    }

    async fn execute(&self, statement: &str, parameters: &[ParameterValue]) -> Result<u64, Error> {
        // Spin calls the same mistake by another name here than in `query`.
        let parameters = bind::parameters(parameters).map_err(Error::ValueConversionFailed)?;
        let parameters: Vec<_> = parameters.iter().map(bind::as_dyn).collect();
        self.0.execute(statement, &parameters).await.map_err(|error| error::query_failed(&error))
    }

    async fn query(
        &self,
        statement: &str,
        parameters: &[ParameterValue],
    ) -> Result<tokio_postgres::RowStream, Error> {
        let parameters = bind::parameters(parameters).map_err(Error::BadParameter)?;
        // A statement's text, not a prepared statement: Spin prepares each anew, and so it is prepared here.
        self.0.query_raw(statement, parameters).await.map_err(|error| error::query_failed(&error))
    }
}

impl State {
    fn keep(&mut self, connection: Connection) -> Result<Resource<Connection>, Error> {
        self.table.push(connection).map_err(|full| Error::ConnectionFailed(full.to_string()))
    }

    fn connection(&self, resource: &Resource<Connection>) -> Result<Connection, Error> {
        self.table.get(resource).cloned().map_err(|error| Error::ConnectionFailed(error.to_string()))
    }

    fn address(&self, builder: &Resource<ConnectionBuilder>) -> Result<String, Error> {
        let builder = self.table.get(builder).map_err(|error| Error::ConnectionFailed(error.to_string()))?;
        Ok(builder.address.clone())
    }
}

impl Host for State {}

impl HostConnectionBuilder for State {
    async fn new(&mut self, address: String) -> wasmtime::Result<Resource<ConnectionBuilder>> {
        Ok(self.table.push(ConnectionBuilder { address })?)
    }

    async fn set_ca_root(
        &mut self,
        _: Resource<ConnectionBuilder>,
        _certificate: String,
    ) -> Result<(), Error> {
        Err(Error::Other("set-ca-root: minispin has no TLS; run the component with Spin".into()))
    }

    async fn build(&mut self, builder: Resource<ConnectionBuilder>) -> Result<Resource<Connection>, Error> {
        let address = self.address(&builder)?;
        HostConnection::open(self, address).await
    }

    async fn drop(&mut self, builder: Resource<ConnectionBuilder>) -> wasmtime::Result<()> {
        self.table.delete(builder)?;
        Ok(())
    }
}

impl<T: Send> HostConnectionBuilderWithStore<T> for HasSelf<State> {
    async fn build_async(
        accessor: &Accessor<T, Self>,
        builder: Resource<ConnectionBuilder>,
    ) -> Result<Resource<Connection>, Error> {
        let address = accessor.with(|mut access| access.get().address(&builder))?;
        Self::open_async(accessor, address).await
    }
}

impl HostConnection for State {
    async fn open(&mut self, address: String) -> Result<Resource<Connection>, Error> {
        let connection = Connection::open(&self.component, &address).await?;
        self.keep(connection)
    }

    async fn query(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<RowSet, Error> {
        let rows = self.connection(&connection)?.query(&statement, &parameters).await?;
        rows::collect(rows).await
    }

    async fn execute(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<u64, Error> {
        self.connection(&connection)?.execute(&statement, &parameters).await
    }

    async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

impl<T: Send> HostConnectionWithStore<T> for HasSelf<State> {
    async fn open_async(
        accessor: &Accessor<T, Self>,
        address: String,
    ) -> Result<Resource<Connection>, Error> {
        let component = accessor.with(|mut access| access.get().component.clone());
        let connection = Connection::open(&component, &address).await?;
        accessor.with(|mut access| access.get().keep(connection))
    }

    async fn query_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<(Vec<Column>, StreamReader<Row>, FutureReader<Result<(), Error>>), Error> {
        let connection = accessor.with(|mut access| access.get().connection(&connection))?;
        let rows = connection.query(&statement, &parameters).await?;
        let answer = rows::stream(rows).await;
        accessor
            .with(|mut access| {
                let rows = StreamReader::new(&mut access, answer.rows)?;
                let end = FutureReader::new(&mut access, answer.end)?;
                wasmtime::error::Ok((answer.columns, rows, end))
            })
            .map_err(|error| Error::Other(error.to_string()))
    }

    async fn execute_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<u64, Error> {
        let connection = accessor.with(|mut access| access.get().connection(&connection))?;
        connection.execute(&statement, &parameters).await
    }
}
