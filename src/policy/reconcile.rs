//! What the receipt of a batch means for each of its events.

use std::collections::HashMap;
use std::sync::Arc;

use super::BufferedEvent;
use crate::error::BatchError;

/// The events of a batch, sorted by what its receipt says.
#[derive(Debug)]
pub(crate) struct Reconciled<T> {
    /// Sent, and not listed.
    pub(crate) stored: Vec<T>,
    /// Sent, and listed as unprocessed.
    pub(crate) unprocessed: Vec<T>,
    /// Sent, and listed as failed by themselves.
    pub(crate) failed: Vec<(T, Arc<BatchError>)>,
    /// The number of listed keys that were not sent, or that are listed twice with a failure. If there are any, the
    /// receipt belongs to another batch, and `stored` proves nothing.
    pub(crate) unknown_keys: usize,
}

impl<T> Reconciled<T> {
    /// Every sent event, whatever the receipt says of it.
    pub(crate) fn into_sent(self) -> Vec<T> {
        let failed = self.failed.into_iter().map(|(item, _)| item);
        self.stored.into_iter().chain(self.unprocessed).chain(failed).collect()
    }
}

/// Matches `sent` with the `unprocessed` and `failed` keys of its receipt. Each sent event ends in exactly one of the
/// three lists. Events are matched by key, never by position, because the service promises no order.
pub(crate) fn reconcile<T: BufferedEvent>(
    sent: Vec<T>,
    unprocessed: &[String],
    failed: &[(String, Arc<BatchError>)],
) -> Reconciled<T> {
    let (mut reconciled, mut unknown_keys) = (Reconciled::all_stored(Vec::new()), 0);
    if unprocessed.is_empty() && failed.is_empty() {
        return Reconciled::all_stored(sent);
    }
    let mut listed: HashMap<&str, Option<&Arc<BatchError>>> =
        unprocessed.iter().map(|key| (key.as_str(), None)).collect();
    for (key, failure) in failed {
        if listed.insert(key, Some(failure)).is_some() {
            unknown_keys += 1;
        }
    }
    for item in sent {
        match listed.remove(item.event().key().as_str()) {
            None => reconciled.stored.push(item),
            Some(None) => reconciled.unprocessed.push(item),
            Some(Some(failure)) => reconciled.failed.push((item, Arc::clone(failure))),
        }
    }
    Reconciled { unknown_keys: unknown_keys + listed.len(), ..reconciled }
}

impl<T> Reconciled<T> {
    fn all_stored(stored: Vec<T>) -> Self {
        Self { stored, unprocessed: Vec::new(), failed: Vec::new(), unknown_keys: 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::subsequence;

    use super::super::tests::{Item, Items};
    use super::*;
    use crate::error::{Certainty, FailureClass};

    fn failure() -> Arc<BatchError> {
        let (class, certainty) = (FailureClass::Duplicate, Certainty::NotStored);
        Arc::new(BatchError::new(class, certainty, "as scripted"))
    }

    fn keys(items: &[Item]) -> Vec<String> {
        items.iter().map(|item| item.event.key().to_string()).collect()
    }

    #[test]
    fn empty_unprocessed_list_stores_all_events() {
        let mut items = Items::new();
        let sent = vec![items.item(), items.item()];
        let reconciled = reconcile(sent.clone(), &[], &[]);
        assert_eq!((reconciled.stored, reconciled.unknown_keys), (sent, 0));
    }

    #[test]
    fn unknown_key_is_counted_beside_the_known_ones() {
        let mut items = Items::new();
        let sent = vec![items.item(), items.item()];
        let unknown = items.item().event.key().to_string();
        let listed = vec![unknown.clone(), keys(&sent)[1].clone(), unknown, "no key".to_owned()];
        let reconciled = reconcile(sent.clone(), &listed, &[]);
        assert_eq!(reconciled.stored, sent[..1]);
        assert_eq!(reconciled.unprocessed, sent[1..]);
        assert_eq!(reconciled.unknown_keys, 2);
    }

    #[test]
    fn key_that_is_listed_as_both_makes_the_receipt_invalid() {
        let mut items = Items::new();
        let sent = vec![items.item()];
        let failed = [(keys(&sent)[0].clone(), failure())];
        assert_eq!(reconcile(sent.clone(), &keys(&sent), &failed).unknown_keys, 1);
        let twice = [failed[0].clone(), failed[0].clone()];
        assert_eq!(reconcile(sent, &[], &twice).unknown_keys, 1);
    }

    proptest! {
        #[test]
        fn each_event_is_sorted_by_its_own_key(
            (listed, shuffled) in subsequence((0..25_usize).collect::<Vec<_>>(), 0..=25)
                .prop_flat_map(|listed| (Just(listed.clone()), Just(listed).prop_shuffle())),
            unprocessed_count in 0..=25_usize,
        ) {
            let mut items = Items::new();
            let sent: Vec<Item> = (0..25).map(|_| items.item()).collect();
            let key = |index: usize| sent[index].event.key().to_string();
            let (unprocessed, failed) = shuffled.split_at(unprocessed_count.min(shuffled.len()));
            let unprocessed_keys: Vec<String> = unprocessed.iter().map(|&index| key(index)).collect();
            let failed_keys: Vec<_> = failed.iter().map(|&index| (key(index), failure())).collect();
            let reconciled = reconcile(sent.clone(), &unprocessed_keys, &failed_keys);
            let of = |indexes: &[usize], unlisted: bool| -> Vec<Item> {
                let is_in = |index: &usize| indexes.contains(index) != unlisted;
                (0..25).filter(is_in).map(|index| sent[index].clone()).collect()
            };
            prop_assert_eq!(&reconciled.stored, &of(&listed, true));
            prop_assert_eq!(&reconciled.unprocessed, &of(unprocessed, false));
            let failed_items: Vec<Item> =
                reconciled.failed.iter().map(|(item, _)| item.clone()).collect();
            prop_assert_eq!(failed_items, of(failed, false));
            prop_assert_eq!(reconciled.unknown_keys, 0);
            prop_assert_eq!(reconciled.into_sent().len(), sent.len());
        }
    }
}
