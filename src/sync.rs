//! The primitives that [`FlowControl`](crate::flow_control::FlowControl) is built on. `tests/flow_control_model.rs`
//! replaces them with those of a scheduler that explores the interleavings of threads.

pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};
