//! The span in which an event was put. The spans of the calls with the event are linked to it.

use std::sync::atomic::Ordering;

use tracing::Span;

use super::{Extra, PendingEvent};
use crate::accounting::Accounting;

impl Extra {
    /// Keeps the current span, if there is one, and if somebody wants the spans of calls. Else nothing is allocated.
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
    /// It is kept, and not just its id: the caller may have dropped it, and a subscriber may forget, or give to another
    /// span, the id of one that is closed.
    pub(crate) fn caller(&self) -> Option<&Span> {
        self.extra.as_ref()?.caller.as_ref()
    }
}
