//! What [`FlowControl`](crate::flow_control::Room) is built on. `tests/room_model.rs` puts others in their place, which
//! try out the orders in which threads can take their steps.

pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};
