//! The guide: what a program needs to know beyond the signatures.
//!
//! | page | for the question |
//! |---|---|
//! | [`answers`] | What does `Ok` mean, and what do I do with an error? |
//! | [`puts`] | How do I put a stream, a collection, or events of a thread? |
//! | [`failures`] | What happens to my events when something breaks? |
//! | [`capacity`] | What happens when events arrive faster than the table accepts them? |
//! | [`shutdown`] | How do I end a service, or an invocation of a Lambda function, without losing an event? |
//! | [`journal`] | How do events survive the death of their process? |
//! | [`inserting`] | How do I make sure that no event replaces another? |
//! | [`metrics`] | Which metrics does a store export? |
//! | [`reading`] | How do I get events out of the table again, and what does that cost? |
//! | [`large_backfills`] | How do I store many events that exist already, at the least cost? |
//! | [`testing`] | How do I test a program that stores events? |
//! | [`settings`] | What can I set, and what are the defaults? |
//! | [`writer_ids`] | How do I keep the keys of many writers apart? |
//! | [`permissions`] | What must the role be allowed to do? |
//! | [`tool`] | What does the command-line tool do? |
//! | [`npm`] | I used the npm module. What is different? |
//! | [`comparison`] | Why not a loop over the AWS SDK? |
//!
//! These modules hold no code. They exist in the documentation only.

#[doc = include_str!("answers.md")]
pub mod answers {}

#[doc = include_str!("puts.md")]
pub mod puts {}

#[doc = include_str!("failures.md")]
pub mod failures {}

#[doc = include_str!("capacity.md")]
pub mod capacity {}

#[doc = include_str!("shutdown.md")]
pub mod shutdown {}

#[doc = include_str!("journal.md")]
pub mod journal {}

#[doc = include_str!("inserting.md")]
pub mod inserting {}

#[doc = include_str!("metrics.md")]
pub mod metrics {}

#[doc = include_str!("reading.md")]
pub mod reading {}

#[doc = include_str!("large_backfills.md")]
pub mod large_backfills {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("settings.md")]
pub mod settings {}

#[doc = include_str!("writer_ids.md")]
pub mod writer_ids {}

#[doc = include_str!("permissions.md")]
pub mod permissions {}

#[doc = include_str!("tool.md")]
pub mod tool {}

#[doc = include_str!("npm.md")]
pub mod npm {}

#[doc = include_str!("comparison.md")]
pub mod comparison {}
