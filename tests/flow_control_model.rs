//! Tests of `FlowControl` with shuttle, a scheduler that explores the interleavings of threads.
//!
//! If all threads are blocked, because a waiter was not notified of its permit, shuttle panics and prints the
//! schedule that leads there. The harness is `libtest_mimic`, because the unit tests in `src/flow_control.rs` must
//! not run with this scheduler.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

#[path = "../src/flow_control.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "its unit tests and some of its callers are not compiled here"
)]
mod flow_control;

mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};
    pub(crate) use std::sync::PoisonError;
}

use std::pin::pin;
use std::process::ExitCode;

use futures::FutureExt;
use libtest_mimic::{Arguments, Trial};
use shuttle::future::block_on;
use shuttle::sync::Arc;
use shuttle::thread::{self, JoinHandle};

use self::flow_control::{AcquireError, FlowControl};

const EVENTS: usize = 2;
const BYTES: u32 = 10;

/// Several times as many as were needed to find each fault that was introduced on purpose.
const SCHEDULES: usize = 5_000;

fn main() -> ExitCode {
    let scenarios: [(&str, fn()); 5] = [
        ("every_waiter_acquires", every_waiter_acquires),
        ("cancelled_waiter_leaves_its_permit_to_others", cancelled_waiter_leaves_its_permit),
        ("cancelled_waiter_unblocks_those_behind", cancelled_waiter_unblocks_others),
        ("close_unblocks_every_waiter", close_unblocks_every_waiter),
        ("permits_are_never_assigned_twice", permits_are_never_assigned_twice),
    ];
    let trials = scenarios.map(|(name, scenario)| {
        Trial::test(name, move || {
            shuttle::check_random(scenario, SCHEDULES);
            shuttle::check_pct(scenario, SCHEDULES, 3);
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

fn every_waiter_acquires() {
    let flow_control = flow_control();
    let threads = [6, 7, BYTES].map(|bytes| {
        let flow_control = Arc::clone(&flow_control);
        thread::spawn(move || drop(block_on(flow_control.acquire(bytes)).unwrap()))
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_all_available(&flow_control);
}

fn cancelled_waiter_leaves_its_permit() {
    let flow_control = flow_control();
    let held = flow_control.try_acquire(6).unwrap();
    let others = [begin_and_cancel(&flow_control), acquire_and_release(&flow_control)];
    drop(held);
    others.into_iter().for_each(|thread| thread.join().unwrap());
    assert_all_available(&flow_control);
}

fn cancelled_waiter_unblocks_others() {
    let flow_control = flow_control();
    let held = flow_control.try_acquire(5).unwrap();
    let others = [begin_and_cancel(&flow_control), acquire_and_release(&flow_control)];
    others.into_iter().for_each(|thread| thread.join().unwrap());
    drop(held);
    assert_all_available(&flow_control);
}

/// Starts a thread that begins to wait for all bytes, and cancels the wait before, while or after its permit is
/// assigned.
fn begin_and_cancel(flow_control: &Arc<FlowControl>) -> JoinHandle<()> {
    let flow_control = Arc::clone(flow_control);
    thread::spawn(move || {
        let mut acquire = pin!(flow_control.acquire(BYTES));
        let _ = acquire.as_mut().now_or_never();
        thread::yield_now();
    })
}

fn acquire_and_release(flow_control: &Arc<FlowControl>) -> JoinHandle<()> {
    let flow_control = Arc::clone(flow_control);
    thread::spawn(move || drop(block_on(flow_control.acquire(5)).unwrap()))
}

fn close_unblocks_every_waiter() {
    let flow_control = flow_control();
    let held = flow_control.try_acquire(6).unwrap();
    let threads = [5, BYTES].map(|bytes| {
        let flow_control = Arc::clone(&flow_control);
        thread::spawn(move || {
            if let Err(error) = block_on(flow_control.acquire(bytes)) {
                assert_eq!(error, AcquireError::Closed);
            }
        })
    });
    flow_control.close();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(flow_control.try_acquire(1).unwrap_err(), AcquireError::Closed);
    drop(held);
}

fn permits_are_never_assigned_twice() {
    let flow_control = flow_control();
    let threads = [6, 6].map(|bytes| {
        let flow_control = Arc::clone(&flow_control);
        thread::spawn(move || {
            let permit = block_on(flow_control.acquire(bytes)).unwrap();
            assert_eq!(
                flow_control.try_acquire(BYTES - bytes + 1).unwrap_err(),
                AcquireError::Full
            );
            drop(permit);
        })
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_all_available(&flow_control);
}

fn flow_control() -> Arc<FlowControl> {
    Arc::new(FlowControl::new(EVENTS, BYTES as usize))
}

/// Asserts that exactly the permits of the beginning are available.
fn assert_all_available(flow_control: &FlowControl) {
    assert!(!flow_control.has_waiters());
    let _all_bytes = flow_control.try_acquire(BYTES).unwrap();
    let _all_events = flow_control.try_acquire(0).unwrap();
    assert_eq!(flow_control.try_acquire(0).unwrap_err(), AcquireError::Full);
}
