//! FlowControl in the buffer, under a scheduler that tries out the orders in which threads can take their steps.
//!
//! Where nobody can go on any more, because somebody was not told that there is flow_control, it panics and says
//! how to get there again. The harness is not the usual one: the tests of the file that is tried are not to
//! run here.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

#[path = "../src/flow_control.rs"]
#[expect(dead_code, unused_imports, reason = "its own tests are none here")]
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

/// More than enough to see each fault that was tried.
const SCHEDULES: usize = 5_000;

fn main() -> ExitCode {
    let scenarios: [(&str, fn()); 5] = [
        ("everyone_who_waits_gets_room_in_the_end", everyone_gets_room),
        ("who_gives_up_leaves_the_room_to_the_others", who_gives_up_leaves_room),
        ("who_gives_up_lets_those_behind_go_on", who_gives_up_lets_others_go_on),
        ("closing_lets_everyone_go", closing_lets_everyone_go),
        ("room_is_never_given_twice", room_is_never_given_twice),
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

fn everyone_gets_room() {
    let flow_control = flow_control();
    let threads = [6, 7, BYTES].map(|bytes| {
        let flow_control = Arc::clone(&flow_control);
        thread::spawn(move || drop(block_on(flow_control.acquire(bytes)).unwrap()))
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_is_whole(&flow_control);
}

fn who_gives_up_leaves_room() {
    let flow_control = flow_control();
    let held = flow_control.try_acquire(6).unwrap();
    let others = [begin_and_give_up(&flow_control), enter_and_leave(&flow_control)];
    drop(held);
    others.into_iter().for_each(|thread| thread.join().unwrap());
    assert_is_whole(&flow_control);
}

fn who_gives_up_lets_others_go_on() {
    let flow_control = flow_control();
    let held = flow_control.try_acquire(5).unwrap();
    let others = [begin_and_give_up(&flow_control), enter_and_leave(&flow_control)];
    others.into_iter().for_each(|thread| thread.join().unwrap());
    drop(held);
    assert_is_whole(&flow_control);
}

/// Begins to wait for all flow_control, and gives up before, at or after its turn.
fn begin_and_give_up(flow_control: &Arc<FlowControl>) -> JoinHandle<()> {
    let flow_control = Arc::clone(flow_control);
    thread::spawn(move || {
        let mut waits = pin!(flow_control.acquire(BYTES));
        let _ = waits.as_mut().now_or_never();
        thread::yield_now();
    })
}

fn enter_and_leave(flow_control: &Arc<FlowControl>) -> JoinHandle<()> {
    let flow_control = Arc::clone(flow_control);
    thread::spawn(move || drop(block_on(flow_control.acquire(5)).unwrap()))
}

fn closing_lets_everyone_go() {
    let flow_control = flow_control();
    let held = flow_control.try_acquire(6).unwrap();
    let threads = [5, BYTES].map(|bytes| {
        let flow_control = Arc::clone(&flow_control);
        thread::spawn(move || {
            if let Err(refused) = block_on(flow_control.acquire(bytes)) {
                assert_eq!(refused, AcquireError::Closed);
            }
        })
    });
    flow_control.close();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(flow_control.try_acquire(1).unwrap_err(), AcquireError::Closed);
    drop(held);
}

fn room_is_never_given_twice() {
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
    assert_is_whole(&flow_control);
}

fn flow_control() -> Arc<FlowControl> {
    Arc::new(FlowControl::new(EVENTS, BYTES as usize))
}

/// All flow_control is there, and no more.
fn assert_is_whole(flow_control: &FlowControl) {
    assert!(!flow_control.has_waiters());
    let _all_bytes = flow_control.try_acquire(BYTES).unwrap();
    let _all_events = flow_control.try_acquire(0).unwrap();
    assert_eq!(flow_control.try_acquire(0).unwrap_err(), AcquireError::Full);
}
