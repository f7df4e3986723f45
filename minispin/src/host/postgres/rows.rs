//! A query's answer: columns with the first row, then a stream of rows, then how it ended. A row that cannot
//! be converted ends the stream, and only the end says why: exactly when Spin says it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::{StreamExt, TryStreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::RowStream;
use wasmtime::{
    StoreContextMut,
    component::{Destination, StreamProducer, StreamResult, VecBuffer},
};

use super::{
    Column, Error, Row, RowSet,
    error::{conversion_failed, query_failed},
    read,
};
use crate::host::{RESULT_BYTES_MAX, bindings::spin::postgres::postgres::QueryError};

/// Rows that are converted before the guest asks for them, as in Spin. A guest that asks for the end without
/// reading the rows gets it for up to so many, and waits for ever with more.
const ROWS_AHEAD_MAX: usize = 4;

pub(super) struct Answer<F> {
    /// Empty when there are no rows, as in Spin.
    pub columns: Vec<Column>,
    pub rows: Rows,
    /// The outer result is `Ok`: an `Err` there would trap the guest.
    pub end: F,
}

/// All rows at once, for the calls that block their instance.
pub(super) async fn collect(stream: RowStream) -> Result<RowSet, Error> {
    let mut stream = std::pin::pin!(stream);
    let mut set = RowSet { columns: Vec::new(), rows: Vec::new() };
    let mut bytes = 0;
    while let Some(row) = stream.try_next().await.map_err(|error| query_failed(&error))? {
        if set.rows.is_empty() {
            set.columns = read::columns(&row);
        }
        let (row, row_bytes) = convert(&row)?;
        bytes += row_bytes;
        check_size(bytes)?;
        set.rows.push(row);
    }
    Ok(set)
}

/// Waits for the first row, or for the end if there is none.
pub(super) async fn stream(
    stream: RowStream,
) -> Answer<impl Future<Output = wasmtime::Result<Result<(), Error>>> + Send + 'static> {
    let mut stream = Box::pin(stream);
    let first = stream.next().await;
    let columns = match &first {
        Some(Ok(row)) => read::columns(row),
        _ => Vec::new(),
    };

    let (rows_out, rows) = mpsc::channel(ROWS_AHEAD_MAX);
    let (end_out, end) = oneshot::channel();
    // A task, because the guest may wait for the end without reading the rows. It leaves when the rows' reader
    // is gone, which is also how an instance that ends takes it along.
    tokio::spawn(async move {
        let mut next = first;
        let end = loop {
            let row = match next {
                None => break Ok(()),
                Some(Err(error)) => break Err(query_failed(&error)),
                Some(Ok(row)) => row,
            };
            match convert(&row).and_then(|(row, bytes)| check_size(bytes).map(|()| row)) {
                Err(error) => break Err(error),
                Ok(row) => {
                    if rows_out.send(row).await.is_err() {
                        break Ok(());
                    }
                }
            }
            next = tokio::select! {
                biased;
                () = rows_out.closed() => break Ok(()),
                next = stream.next() => next,
            };
        };
        // Nobody waits for the end when the guest has dropped it.
        _ = end_out.send(end);
    });
    Answer { columns, rows: Rows(rows), end: async { wasmtime::error::Ok(end.await.unwrap_or(Ok(()))) } }
}

fn convert(row: &tokio_postgres::Row) -> Result<(Row, usize), Error> {
    let values = read::values(row).map_err(|error| conversion_failed(&error))?;
    let bytes = values.iter().map(read::size).sum();
    Ok((values, bytes))
}

fn check_size(bytes: usize) -> Result<(), Error> {
    match bytes > RESULT_BYTES_MAX {
        true => Err(Error::QueryFailed(QueryError::Text(format!(
            "query result exceeds limit of {RESULT_BYTES_MAX} bytes"
        )))),
        false => Ok(()),
    }
}

/// The host's end of the stream of rows.
pub(super) struct Rows(mpsc::Receiver<Row>);

impl<D> StreamProducer<D> for Rows {
    type Item = Row;
    type Buffer = VecBuffer<Row>;

    fn poll_produce<'a>(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, Row, VecBuffer<Row>>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        // A read of nothing asks whether there is something to read; rows must not be lost in answering it.
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let mut rows = Vec::new();
        match self.get_mut().0.poll_recv_many(context, &mut rows, ROWS_AHEAD_MAX) {
            Poll::Ready(0) => Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Ready(_) => {
                destination.set_buffer(rows.into());
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => Poll::Pending,
        }
    }
}
