//! Room in the buffer, under a scheduler that tries out the orders in which threads can take their steps.
//!
//! Where nobody can go on any more, because somebody was not told that there is room, it panics and says
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

use self::flow_control::{NoRoom, Room};

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
    let room = room();
    let threads = [6, 7, BYTES].map(|bytes| {
        let room = Arc::clone(&room);
        thread::spawn(move || drop(block_on(room.enter(bytes)).unwrap()))
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_is_whole(&room);
}

fn who_gives_up_leaves_room() {
    let room = room();
    let held = room.try_enter(6).unwrap();
    let others = [begin_and_give_up(&room), enter_and_leave(&room)];
    drop(held);
    others.into_iter().for_each(|thread| thread.join().unwrap());
    assert_is_whole(&room);
}

fn who_gives_up_lets_others_go_on() {
    let room = room();
    let held = room.try_enter(5).unwrap();
    let others = [begin_and_give_up(&room), enter_and_leave(&room)];
    others.into_iter().for_each(|thread| thread.join().unwrap());
    drop(held);
    assert_is_whole(&room);
}

/// Begins to wait for all room, and gives up before, at or after its turn.
fn begin_and_give_up(room: &Arc<Room>) -> JoinHandle<()> {
    let room = Arc::clone(room);
    thread::spawn(move || {
        let mut waits = pin!(room.enter(BYTES));
        let _ = waits.as_mut().now_or_never();
        thread::yield_now();
    })
}

fn enter_and_leave(room: &Arc<Room>) -> JoinHandle<()> {
    let room = Arc::clone(room);
    thread::spawn(move || drop(block_on(room.enter(5)).unwrap()))
}

fn closing_lets_everyone_go() {
    let room = room();
    let held = room.try_enter(6).unwrap();
    let threads = [5, BYTES].map(|bytes| {
        let room = Arc::clone(&room);
        thread::spawn(move || {
            if let Err(refused) = block_on(room.enter(bytes)) {
                assert_eq!(refused, NoRoom::Closed);
            }
        })
    });
    room.close();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(room.try_enter(1).unwrap_err(), NoRoom::Closed);
    drop(held);
}

fn room_is_never_given_twice() {
    let room = room();
    let threads = [6, 6].map(|bytes| {
        let room = Arc::clone(&room);
        thread::spawn(move || {
            let permit = block_on(room.enter(bytes)).unwrap();
            assert_eq!(room.try_enter(BYTES - bytes + 1).unwrap_err(), NoRoom::Full);
            drop(permit);
        })
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_is_whole(&room);
}

fn room() -> Arc<Room> {
    Arc::new(Room::new(EVENTS, BYTES as usize))
}

/// All room is there, and no more.
fn assert_is_whole(room: &Room) {
    assert!(!room.is_pressed());
    let _all_bytes = room.try_enter(BYTES).unwrap();
    let _all_events = room.try_enter(0).unwrap();
    assert_eq!(room.try_enter(0).unwrap_err(), NoRoom::Full);
}
