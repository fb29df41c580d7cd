//! Which shards of a stream may be read. A shard is read after its parent has ended, so that the records of one key stay
//! in their order.

use std::collections::{BTreeMap, BTreeSet};

/// The known shards of a stream, and whether each is waiting, being read or ended.
#[derive(Debug, Default)]
pub(crate) struct Shards(BTreeMap<String, Shard>);

#[derive(Debug)]
struct Shard {
    parent: Option<String>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Reading,
    Ended,
}

impl Shards {
    /// Adds a shard that an earlier tail has started to read. So its parent has ended.
    pub(crate) fn add_started(&mut self, id: &str) {
        self.0.insert(id.to_owned(), Shard { parent: None, state: State::Waiting });
    }

    /// Adds a shard that an earlier tail has read to its end.
    pub(crate) fn add_ended(&mut self, id: &str) {
        self.0.insert(id.to_owned(), Shard { parent: None, state: State::Ended });
    }

    /// Updates the shards from a complete list of the stream's shards, each with its parent. Removes those that have ended
    /// and are no longer listed.
    pub(crate) fn list<'a>(&mut self, listed: impl Iterator<Item = (&'a str, Option<&'a str>)>) {
        let mut ids = BTreeSet::new();
        for (id, parent) in listed {
            ids.insert(id);
            let waiting = || Shard { parent: None, state: State::Waiting };
            let shard = self.0.entry(id.to_owned()).or_insert_with(waiting);
            shard.parent = parent.map(str::to_owned);
        }
        self.0.retain(|id, shard| shard.state != State::Ended || ids.contains(id.as_str()));
    }

    /// The shards that may be read now. Each is returned once. A shard whose parent is not known is one of the
    /// oldest that the stream keeps.
    pub(crate) fn take_ready(&mut self) -> Vec<String> {
        let is_open =
            |parent: &String| self.0.get(parent).is_some_and(|parent| parent.state != State::Ended);
        let ready = |(_, shard): &(&String, &Shard)| {
            shard.state == State::Waiting && !shard.parent.as_ref().is_some_and(is_open)
        };
        let ready: Vec<String> = self.0.iter().filter(ready).map(|(id, _)| id.clone()).collect();
        for id in &ready {
            self.set(id, State::Reading);
        }
        ready
    }

    /// Marks a shard as read to its end.
    pub(crate) fn end(&mut self, id: &str) {
        self.set(id, State::Ended);
    }

    /// Whether every known shard has ended. A stream that is switched on then has newer shards, which are not listed yet.
    pub(crate) fn are_all_ended(&self) -> bool {
        self.0.values().all(|shard| shard.state == State::Ended)
    }

    /// Whether the children of an ended shard are not known yet.
    pub(crate) fn awaits_children(&self) -> bool {
        let parents: BTreeSet<&String> =
            self.0.values().filter_map(|shard| shard.parent.as_ref()).collect();
        self.0.iter().any(|(id, shard)| shard.state == State::Ended && !parents.contains(id))
    }

    fn set(&mut self, id: &str, state: State) {
        if let Some(shard) = self.0.get_mut(id) {
            shard.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(shards: &mut Shards, list: &[(&str, Option<&str>)]) -> Vec<String> {
        shards.list(list.iter().copied());
        shards.take_ready()
    }

    #[test]
    fn shard_waits_for_its_parent() {
        let mut shards = Shards::default();
        // `a` was split into `b` and `c`, and `c` was followed by `d`. The parent of `a` is gone.
        let list = [("d", Some("c")), ("c", Some("a")), ("b", Some("a")), ("a", Some("gone"))];
        assert_eq!(listed(&mut shards, &list), ["a"]);
        assert_eq!(listed(&mut shards, &list), [""; 0]);
        shards.end("a");
        assert_eq!(shards.take_ready(), ["b", "c"]);
        shards.end("c");
        assert_eq!(shards.take_ready(), ["d"]);
        assert!(!shards.are_all_ended());
    }

    #[test]
    fn ended_shard_awaits_children_that_are_not_listed() {
        let mut shards = Shards::default();
        assert_eq!(listed(&mut shards, &[("a", None)]), ["a"]);
        assert!(!shards.awaits_children());
        shards.end("a");
        assert!(shards.awaits_children() && shards.are_all_ended());
        assert_eq!(listed(&mut shards, &[("a", None), ("b", Some("a"))]), ["b"]);
        assert!(!shards.awaits_children());
    }

    #[test]
    fn ended_shard_is_forgotten_once_it_is_not_listed() {
        let mut shards = Shards::default();
        shards.add_ended("a");
        shards.add_started("b");
        assert_eq!(listed(&mut shards, &[("a", None), ("c", Some("b"))]), ["b"]);
        assert_eq!(listed(&mut shards, &[("c", Some("b"))]), [""; 0]);
        assert_eq!(shards.0.keys().collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn started_shard_does_not_wait_for_its_parent() {
        let mut shards = Shards::default();
        shards.add_ended("a");
        shards.add_started("b");
        let list = [("a", None), ("b", Some("a")), ("c", Some("b"))];
        assert_eq!(listed(&mut shards, &list), ["b"]);
        shards.end("b");
        assert_eq!(shards.take_ready(), ["c"]);
    }
}
