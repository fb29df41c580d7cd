//! A k-way merge.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Merges sorted inputs into one sorted output. Of equal items, that of the earlier input comes first. The first error
/// of an input ends it.
pub(super) struct Merge<I, T> {
    inputs: Vec<I>,
    heads: BinaryHeap<Reverse<Head<T>>>,
    has_failed: bool,
}

struct Head<T> {
    item: T,
    input: usize,
}

impl<I, T, E> Merge<I, T>
where
    I: Iterator<Item = Result<T, E>>,
    T: Ord,
{
    pub(super) fn new(inputs: impl IntoIterator<Item = I>) -> Result<Self, E> {
        let inputs: Vec<I> = inputs.into_iter().collect();
        let heads = BinaryHeap::with_capacity(inputs.len());
        let mut merge = Self { inputs, heads, has_failed: false };
        for input in 0..merge.inputs.len() {
            merge.advance(input)?;
        }
        Ok(merge)
    }

    /// Takes the next item of an input.
    fn advance(&mut self, input: usize) -> Result<(), E> {
        if let Some(item) = self.inputs.get_mut(input).and_then(Iterator::next) {
            self.heads.push(Reverse(Head { item: item?, input }));
        }
        Ok(())
    }
}

impl<I, T, E> Iterator for Merge<I, T>
where
    I: Iterator<Item = Result<T, E>>,
    T: Ord,
{
    type Item = Result<T, E>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let Reverse(Head { item, input }) = self.heads.pop()?;
        if let Err(error) = self.advance(input) {
            self.has_failed = true;
            return Some(Err(error));
        }
        Some(Ok(item))
    }
}

impl<T: Ord> Ord for Head<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.item.cmp(&other.item).then(self.input.cmp(&other.input))
    }
}

impl<T: Ord> PartialOrd for Head<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> PartialEq for Head<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T: Ord> Eq for Head<T> {}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn merged<T: Ord, E>(inputs: Vec<Vec<Result<T, E>>>) -> Vec<Result<T, E>> {
        match Merge::new(inputs.into_iter().map(Vec::into_iter)) {
            Ok(merge) => merge.collect(),
            Err(error) => vec![Err(error)],
        }
    }

    #[test]
    fn error_of_an_input_ends_the_merge() {
        let inputs = vec![vec![Ok(1), Ok(4), Err("broken"), Ok(5)], vec![Ok(2), Ok(3), Ok(6)]];
        assert_eq!(merged(inputs), [Ok(1), Ok(2), Ok(3), Err("broken")]);
        assert_eq!(merged(vec![vec![Ok(1)], vec![Err("broken")]]), [Err("broken")]);
    }

    proptest! {
        #[test]
        fn merged_inputs_are_everything_in_order(
            mut inputs in prop::collection::vec(prop::collection::vec(0..50_u32, 0..30), 0..10),
        ) {
            let mut expected: Vec<u32> = inputs.concat();
            expected.sort_unstable();
            for input in &mut inputs {
                input.sort_unstable();
            }
            let inputs = inputs.into_iter().map(|input| input.into_iter().map(Ok).collect());
            let merged: Result<Vec<u32>, Infallible> = merged(inputs.collect()).into_iter().collect();
            prop_assert_eq!(merged, Ok(expected));
        }
    }
}
