//! What the writer does about a failed write: it doubts, opens the database anew, checks it and shows what it found.

use std::time::Instant;

use rusqlite::Connection;

use super::{Opened, Writer};
use crate::store::commit::Last;
use crate::store::error::Error;
use crate::store::limits::{INDEX_WAIT, RETRY_PAUSE};
use crate::store::rows::{AuditRow, Batch};
use crate::store::schema;

/// The writer's connection, if there is one it may use.
pub(super) enum Connected {
    /// Nothing has failed since it was checked.
    Yes(Box<Connection>),
    /// No batch is taken until a new connection has been checked.
    No { why: Error, retry_at: Instant },
}

impl Writer {
    /// Marks what may or may not be stored until the database has been opened anew.
    pub(in crate::store) fn doubt(&mut self, batches: &[Batch], riding: Vec<AuditRow>) {
        let mut tail = self.shared.tail_mut();
        for batch in batches {
            tail.doubt(batch);
        }
        drop(tail);
        self.in_doubt = Some((self.last.audit, riding));
    }

    /// Lazy rows that are certainly not written wait on.
    pub(super) fn keep(&mut self, rows: Vec<AuditRow>) {
        if !rows.is_empty() {
            self.shared.lazy.put_back(rows);
            self.flush_at = Some(Instant::now() + RETRY_PAUSE);
        }
    }

    /// A write that certainly did not happen: the connection goes on, or is opened anew.
    pub(super) fn failed_before(&mut self, error: Error) -> Error {
        if error.spares_the_connection() {
            tracing::warn!(%error, "a write to the store was refused");
        } else {
            self.disconnect(error.clone());
        }
        error
    }

    /// Gives the connection up, at once and for good.
    pub(in crate::store) fn disconnect(&mut self, why: Error) {
        tracing::error!(error = %why, "a write to the store failed, the database is opened anew");
        if let Connected::Yes(connection) = &self.connection
            && let Err(error) = schema::checkpoint_on_close(connection, false)
        {
            tracing::error!(%error, "the database cannot be closed without a checkpoint");
        }
        self.connection = Connected::No { why, retry_at: Instant::now() };
    }

    /// A connection that may be written to, opened anew and checked if the last one failed, and what it holds.
    ///
    /// # Errors
    /// Why the database cannot be written; nothing was.
    pub(in crate::store) fn connected(&mut self) -> Result<(&mut Connection, Last), Error> {
        if let Connected::No { why, retry_at } = &self.connection {
            if *retry_at > Instant::now() {
                return Err(why.clone());
            }
            if let Err(why) = self.reconnect() {
                tracing::error!(error = %why, "the database cannot be opened anew yet");
                self.connection = Connected::No { why: why.clone(), retry_at: Instant::now() + RETRY_PAUSE };
                return Err(why);
            }
        }
        match &mut self.connection {
            Connected::Yes(connection) => Ok((connection, self.last)),
            Connected::No { why, .. } => Err(why.clone()),
        }
    }

    /// Finds out what the failed commit left behind and shows that.
    fn reconnect(&mut self) -> Result<(), Error> {
        let (Opened { connection, last, reached }, tail) = Opened::open(&self.path, self.terms)?;
        self.connection = Connected::Yes(Box::new(connection));
        *self.shared.tail_mut() = tail;
        self.shared.announce(last);
        (self.last, self.reached) = (last, reached);
        self.index_at = Some(Instant::now() + INDEX_WAIT);
        if let Some((before, rows)) = self.in_doubt.take()
            && last.audit == before
        {
            self.keep(rows);
        }
        tracing::info!("the database is open again");
        Ok(())
    }
}
