//! The span in which an event was put. The spans of the calls with the event are linked to it.

use std::sync::atomic::Ordering;

use tracing::Span;

use super::{Extra, PendingEvent};
use crate::accounting::Accounting;

impl Extra {
    /// Keeps the current span. `None`, without an allocation, if there is none or if calls are not linked to it.
    pub(super) fn of_caller(accounting: &Accounting) -> Option<Box<Self>> {
        if !accounting.links_calls.load(Ordering::Relaxed) {
            return None;
        }
        let caller = Span::current();
        (!caller.is_none()).then(|| Box::new(Self { caller: Some(caller), ..Self::default() }))
    }
}

impl PendingEvent {
    /// The span in which the event was put, if calls are linked to it.
    ///
    /// The span is kept, not only its id: once the caller has dropped its own handle, a subscriber may reuse the id for
    /// another span.
    pub(crate) fn caller(&self) -> Option<&Span> {
        self.extra.as_ref()?.caller.as_ref()
    }
}
