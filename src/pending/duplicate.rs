//! A [`PendingEvent`] whose key another item has.

use super::PendingEvent;
use crate::error::Uncertainty;
use crate::event::EventTooLarge;
use crate::event::key::EventKey;

impl PendingEvent {
    /// Gives the event a new key, because another item has its own. No earlier call of this put has stored it: that call
    /// found the key taken, or will. This assumes that nobody deletes the other item.
    ///
    /// Fails if the item would be too large with the new key, and then changes nothing.
    pub(crate) fn replace_key(&mut self, key: EventKey) -> Result<(), EventTooLarge> {
        self.event = self.event.with_key(key)?;
        if let Some(extra) = &mut self.extra {
            extra.history.uncertainty = Uncertainty::None;
            extra.read_back = None;
        }
        Ok(())
    }

    /// Whether an earlier put may have stored the event.
    pub(crate) fn was_put_before(&self) -> bool {
        self.uncertainty_before != Uncertainty::None
    }

    /// How many of the attempts found the event's key taken.
    pub(crate) fn duplicates(&self) -> u32 {
        self.history().map_or(0, |history| history.duplicates)
    }
}
