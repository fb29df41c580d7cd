//! What a receipt means for each event of its batch.

use std::collections::HashSet;

use super::Waiting;

/// A batch after its call, sorted by what the receipt says.
#[derive(Debug, PartialEq)]
pub(crate) struct Reconciled<T> {
    /// Sent, and not listed as unprocessed.
    pub(crate) stored: Vec<T>,
    /// Sent, and listed as unprocessed.
    pub(crate) remaining: Vec<T>,
    /// How many listed keys were never sent. Then the receipt is not one for this batch, and
    /// `stored` is not to be trusted.
    pub(crate) foreign: usize,
}

/// Matches `sent` with the `unprocessed` keys of its receipt: by key, never by position, since the
/// service promises no order. Total: each sent event ends in exactly one of the two lists.
pub(crate) fn reconcile<T: Waiting>(sent: Vec<T>, unprocessed: &[String]) -> Reconciled<T> {
    if unprocessed.is_empty() {
        return Reconciled { stored: sent, remaining: Vec::new(), foreign: 0 };
    }
    let mut listed: HashSet<&str> = unprocessed.iter().map(String::as_str).collect();
    let (remaining, stored) =
        sent.into_iter().partition(|item| listed.remove(item.event().key().as_str()));
    Reconciled { stored, remaining, foreign: listed.len() }
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
    fn nothing_unprocessed_means_all_stored() {
        let mut items = Items::new();
        let sent = vec![items.item(), items.item()];
        let reconciled = reconcile(sent.clone(), &[]);
        assert_eq!(reconciled, Reconciled { stored: sent, remaining: vec![], foreign: 0 });
    }

    #[test]
    fn a_key_that_was_never_sent_is_counted_and_hides_nobody() {
        let mut items = Items::new();
        let sent = vec![items.item(), items.item()];
        let stranger = items.item().event.key().to_string();
        let listed = vec![stranger.clone(), keys(&sent)[1].clone(), stranger, "no key".to_owned()];
        let reconciled = reconcile(sent.clone(), &listed);
        assert_eq!(reconciled.stored, sent[..1]);
        assert_eq!(reconciled.remaining, sent[1..]);
        assert_eq!(reconciled.foreign, 2);
    }

    proptest! {
        #[test]
        fn each_event_ends_where_its_own_key_says(
            (listed, shuffled) in subsequence((0..25_usize).collect::<Vec<_>>(), 0..=25)
                .prop_flat_map(|listed| (Just(listed.clone()), Just(listed).prop_shuffle())),
        ) {
            let mut items = Items::new();
            let sent: Vec<Item> = (0..25).map(|_| items.item()).collect();
            let unprocessed: Vec<String> =
                shuffled.iter().map(|&place| sent[place].event.key().to_string()).collect();
            let reconciled = reconcile(sent.clone(), &unprocessed);
            let expected: Vec<Item> = listed.iter().map(|&place| sent[place].clone()).collect();
            prop_assert_eq!(&reconciled.remaining, &expected);
            let stored: Vec<Item> =
                sent.into_iter().filter(|item| !expected.contains(item)).collect();
            prop_assert_eq!(reconciled.stored, stored);
            prop_assert_eq!(reconciled.foreign, 0);
        }
    }
}
