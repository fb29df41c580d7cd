//! The setting that keeps the keys of two stores apart.

use crate::store::builder::EventStoreBuilder;
use crate::store::writer_ids::WriterIds;

/// # Distinct keys
impl EventStoreBuilder {
    /// The five digits that keep this store's keys apart from those of other writers to the table, 0 to 99,999.
    /// Default: [drawn](WriterIds::drawn) at random; [`WriterId`](crate::WriterId) lists the odds of a collision. With
    /// [`WriterIds::leased`] no other store has the id at the same time.
    pub fn writer_id(mut self, writer_id: impl Into<WriterIds>) -> Self {
        self.config.writer_ids = writer_id.into();
        self
    }
}
