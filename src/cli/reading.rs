//! The way of the lines from the input into the store.

use dynamodb_eventstore::EventStore;

use crate::collecting::Outcome;
use crate::ending::End;
use crate::feed::Feed;
use crate::given_up_lines::GivenUpLines;
use crate::new_lines::NewLines;
use crate::resume_check::ResumeCheck;

/// Lines of either kind.
#[derive(Debug)]
pub(crate) enum Reading {
    New(NewLines),
    GivenUp(GivenUpLines),
}

impl Reading {
    /// Puts lines until there are no more. Cancel safe: a line whose put is interrupted was not
    /// accepted, and is the next to be put or to be left.
    pub(crate) async fn put_all(&mut self, store: &EventStore, check: &mut ResumeCheck) -> End {
        loop {
            let step = match self {
                Self::New(lines) => lines.put_next(store).await,
                Self::GivenUp(lines) => lines.put_some(store, check).await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Reports every line that is left as one that was not put. Cancel safe.
    pub(crate) async fn leave_rest(&mut self) {
        while let Ok(place) = self.feed().place().await {
            let untried = match self {
                Self::New(lines) => lines.next_untried().await,
                Self::GivenUp(lines) => lines.next_untried().await,
            };
            let Ok(untried) = untried else { return };
            place.send(Outcome::Failed(untried));
        }
    }

    /// Has nothing more read from the source: what was read of it is all that is left.
    pub(crate) fn stop_reading(&mut self) {
        match self {
            Self::New(lines) => lines.feed.stop_reading(),
            Self::GivenUp(lines) => lines.feed.stop_reading(),
        }
    }

    pub(crate) fn feed(&self) -> &Feed {
        match self {
            Self::New(lines) => &lines.feed,
            Self::GivenUp(lines) => &lines.feed,
        }
    }
}
