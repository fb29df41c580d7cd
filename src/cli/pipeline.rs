//! The way of the lines of one run: from the input, through the store, to the collector.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::collecting::Collection;
use crate::feed::Feed;
use crate::given_up_lines::GivenUpLines;
use crate::input::Input;
use crate::new_lines::NewLines;
use crate::opening::Files;
use crate::output::Output;
use crate::reading::Reading;
use crate::storing::Lines;

/// Lines whose outcome waits to be recorded. A refused line is kept with its text, so they are few.
const OUTCOMES: usize = 16;

/// Both ends of that way.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) reading: Reading,
    /// Ends when the reading has been dropped and every ticket is answered.
    pub(crate) collector: JoinHandle<Collection>,
    /// Why every later event would fail, once that is known.
    pub(crate) refused: watch::Receiver<Option<String>>,
}

impl Pipeline {
    /// Begins to read.
    pub(crate) fn begin(
        files: Files,
        lines: Lines,
        as_json: bool,
        position: Arc<AtomicU64>,
        output: &Output,
    ) -> io::Result<Self> {
        let (outcomes, collected) = mpsc::channel(OUTCOMES);
        let (refuse, refused) = watch::channel(None);
        let collection = Collection::new(files.failures, as_json, output.clone());
        let collector = tokio::spawn(collection.collect(collected, refuse));
        let reading = match lines {
            Lines::New { first_line, .. } => {
                let feed = Feed::new(Input::read(files.input, first_line)?, outcomes, position);
                Reading::New(NewLines::new(feed, output.clone()))
            }
            Lines::GivenUp { .. } => {
                let feed = Feed::new(Input::read(files.input, 1)?, outcomes, position);
                Reading::GivenUp(GivenUpLines::new(feed))
            }
        };
        Ok(Self { reading, collector, refused })
    }
}
