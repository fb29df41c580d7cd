//! Ways to put that are made of [`put`](crate::EventStore::put): for streams, for threads, for collections.

mod blocking;
pub(crate) mod put_all;
pub(crate) mod sink;
mod unsettled;
