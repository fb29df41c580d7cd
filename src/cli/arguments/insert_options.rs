//! The options that keep events from overwriting others.

use clap::ValueEnum;
use dynamodb_eventstore::{EventStoreBuilder, OnDuplicate, WriteMode};

/// Whether an event may replace an item.
#[derive(Debug, clap::Args)]
pub(crate) struct InsertOptions {
    /// Store an event only if no item has its key, so that nothing is overwritten. The role needs
    /// dynamodb:PartiQLInsert instead of dynamodb:BatchWriteItem.
    #[arg(long)]
    pub(crate) insert: bool,

    /// What happens to an event if an item of another writer has its key.
    #[arg(long, value_enum, value_name = "ACTION", requires = "insert")]
    on_duplicate: Option<DuplicateAction>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DuplicateAction {
    /// It gets a new key
    NewKey,
    /// It fails
    Fail,
}

impl InsertOptions {
    pub(crate) fn apply(&self, store: EventStoreBuilder) -> EventStoreBuilder {
        if !self.insert {
            return store;
        }
        let store = store.write_mode(WriteMode::Insert);
        match self.on_duplicate {
            Some(DuplicateAction::Fail) => store.on_duplicate(OnDuplicate::Fail),
            Some(DuplicateAction::NewKey) | None => store,
        }
    }
}
