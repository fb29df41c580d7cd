//! What the receipt of a batch means for each of its events.

use std::collections::HashSet;

use super::BufferedEvent;

/// The events of a batch, sorted by what its receipt says.
#[derive(Debug, PartialEq)]
pub(crate) struct Reconciled<T> {
    /// Sent, and not listed as unprocessed.
    pub(crate) stored: Vec<T>,
    /// Sent, and listed as unprocessed.
    pub(crate) remaining: Vec<T>,
    /// The number of listed keys that were not sent. If there are any, the receipt belongs to another batch, and
    /// `stored` proves nothing.
    pub(crate) unknown_keys: usize,
}

/// Matches the `sent` events with the `unprocessed` keys of the receipt. Each sent event is in exactly one of the
/// two lists. Events are matched by key, never by position, because the service promises no order.
pub(crate) fn reconcile<T: BufferedEvent>(sent: Vec<T>, unprocessed: &[String]) -> Reconciled<T> {
    if unprocessed.is_empty() {
        return Reconciled { stored: sent, remaining: Vec::new(), unknown_keys: 0 };
    }
    let mut listed: HashSet<&str> = unprocessed.iter().map(String::as_str).collect();
    let (remaining, stored) =
        sent.into_iter().partition(|item| listed.remove(item.event().key().as_str()));
    Reconciled { stored, remaining, unknown_keys: listed.len() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::subsequence;

    use super::super::tests::{Item, Items};
    use super::*;

    fn keys(items: &[Item]) -> Vec<String> {
        items.iter().map(|item| item.event.key().to_string()).collect()
    }

    #[test]
    fn empty_unprocessed_list_stores_all_events() {
        let mut items = Items::new();
        let sent = vec![items.item(), items.item()];
        let reconciled = reconcile(sent.clone(), &[]);
        assert_eq!(reconciled, Reconciled { stored: sent, remaining: vec![], unknown_keys: 0 });
    }

    #[test]
    fn unknown_key_is_counted_beside_the_known_ones() {
        let mut items = Items::new();
        let sent = vec![items.item(), items.item()];
        let unknown = items.item().event.key().to_string();
        let listed = vec![unknown.clone(), keys(&sent)[1].clone(), unknown, "no key".to_owned()];
        let reconciled = reconcile(sent.clone(), &listed);
        assert_eq!(reconciled.stored, sent[..1]);
        assert_eq!(reconciled.remaining, sent[1..]);
        assert_eq!(reconciled.unknown_keys, 2);
    }

    proptest! {
        #[test]
        fn each_event_is_sorted_by_its_own_key(
            (listed, shuffled) in subsequence((0..25_usize).collect::<Vec<_>>(), 0..=25)
                .prop_flat_map(|listed| (Just(listed.clone()), Just(listed).prop_shuffle())),
        ) {
            let mut items = Items::new();
            let sent: Vec<Item> = (0..25).map(|_| items.item()).collect();
            let unprocessed: Vec<String> =
                shuffled.iter().map(|&index| sent[index].event.key().to_string()).collect();
            let reconciled = reconcile(sent.clone(), &unprocessed);
            let expected: Vec<Item> = listed.iter().map(|&index| sent[index].clone()).collect();
            prop_assert_eq!(&reconciled.remaining, &expected);
            let stored: Vec<Item> =
                sent.into_iter().filter(|item| !expected.contains(item)).collect();
            prop_assert_eq!(reconciled.stored, stored);
            prop_assert_eq!(reconciled.unknown_keys, 0);
        }
    }
}
