//! Simulates stores that lease writer ids from one table. Clocks are wrong or are set, processes are suspended, crash,
//! or resume from a snapshot, answers are lost, and writes are applied late. Even so, no two stores make keys with the
//! same id in overlapping ranges of time.
//!
//! Only the decisions run, [`LeasePolicy`] and [`Keys`], without a runtime. So a million seeds take minutes. The seeds
//! are 0 to 299 by default; `LEASE_SEEDS` sets their number, and `LEASE_SEED` runs one seed alone.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::simulated_table::Table;
use super::tenures::Tenures;
use crate::error::{BatchError, Certainty, FailureClass};
use crate::event::key::{EventKey, WriterId};
use crate::key_source::{IdSource, Keys, NoKey};
use crate::lease::{LeaseAnswer, LeaseRequest};
use crate::policy::lease::{Change, LeasePolicy, LeaseTerms, Step};

const TERM: u64 = 3_000;

/// The time at the start, so that a clock can be a year behind.
const START: u64 = 1_800_000_000_000;

/// The longest time for one call, as in the keeper.
const CALL_TIME: u64 = TERM / 3;

/// A call whose answer its store has not received yet.
#[derive(Debug, Clone)]
struct Call {
    request: LeaseRequest,
    began: Instant,
    ends_at: u64,
    /// The answer that the store gets; `None` for a time-out.
    answer: Option<LeaseAnswer>,
    certainty: Certainty,
}

/// One process with one store.
#[derive(Debug)]
struct Store {
    number: usize,
    keys: Keys,
    policy: LeasePolicy,
    call: Option<Call>,
    /// The wall clock's error in milliseconds.
    skew: i64,
    /// For how long the monotonic clock was stopped.
    stood_still: u64,
    /// True time until which the process is paused.
    paused_until: u64,
    grants: usize,
    last_key: Option<EventKey>,
}

struct World {
    random: StdRng,
    now: u64,
    origin: Instant,
    terms: LeaseTerms,
    table: Table,
    stores: Vec<Store>,
    started: usize,
    tenures: Tenures,
    keys: u64,
    /// The probability of a fault, in thousandths.
    trouble: u32,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "an origin for the simulation's own time line")]
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let id = |id| WriterId::new(id).unwrap();
        let terms = LeaseTerms {
            term: TERM,
            first_id: id(0),
            last_id: id(random.random_range(0..4)),
            refusal_timeout: Duration::from_secs(5),
        };
        let trouble = [0, 50, 200, 500][random.random_range(0..4)];
        let mut world = Self {
            random,
            now: START,
            origin: Instant::now(),
            terms,
            table: Table::default(),
            stores: Vec::new(),
            started: 0,
            tenures: Tenures::default(),
            keys: 0,
            trouble,
        };
        for _ in 0..world.random.random_range(2..6) {
            let store = world.start();
            world.stores.push(store);
        }
        world
    }

    fn draw_skew(&mut self) -> i64 {
        let reach =
            [0, 200, 2_000, 20_000, 600_000, 31_536_000_000][self.random.random_range(0..6)];
        self.random.random_range(-reach..=reach)
    }

    fn start(&mut self) -> Store {
        self.started += 1;
        let skew = self.draw_skew();
        let (wall, monotonic) = (self.now.saturating_add_signed(skew), self.origin);
        Store {
            number: self.started,
            keys: Keys::new(
                IdSource::Leased,
                wall,
                monotonic + Duration::from_millis(self.now - START),
            ),
            policy: LeasePolicy::new(self.terms),
            call: None,
            skew,
            stood_still: 0,
            paused_until: 0,
            grants: 0,
            last_key: None,
        }
    }

    fn wall(&self, store: &Store) -> u64 {
        self.now.saturating_add_signed(store.skew)
    }

    fn monotonic(&self, store: &Store) -> Instant {
        self.origin + Duration::from_millis(self.now - START - store.stood_still)
    }

    fn is_trouble(&mut self) -> bool {
        self.random.random_range(0..1_000) < self.trouble
    }

    /// Sends a request, and draws what happens to it.
    fn send(&mut self, request: LeaseRequest, began: Instant) -> Call {
        let took = self.random.random_range(0..50);
        let mut call = Call {
            request,
            began,
            ends_at: self.now + took,
            answer: None,
            certainty: Certainty::MaybeStored,
        };
        if !self.is_trouble() {
            call.answer = Some(self.table.apply(&request));
            return call;
        }
        match self.random.random_range(0..5) {
            // The request is not sent at all.
            0 => call.certainty = Certainty::NotStored,
            // The request is applied, and its answer is lost.
            1 | 2 => {
                self.table.apply(&request);
            }
            // No answer comes in time. The request is applied later, or never.
            3 => {
                call.ends_at = self.now + CALL_TIME;
                let delay = self.random.random_range(0..5 * TERM);
                self.table.apply_at(self.now + delay, request);
            }
            _ => call.ends_at = self.now + CALL_TIME,
        }
        call
    }

    /// Does what the keeper does in one step.
    fn keep(&mut self, store: &mut Store) {
        let monotonic = self.monotonic(store);
        if let Some(call) = store.call.take() {
            if self.now < call.ends_at {
                store.call = Some(call);
                return;
            }
            let lost = BatchError::new(FailureClass::Transient, call.certainty, "lost");
            let answer = call.answer.ok_or(&lost);
            let jitter = self.random.random_range(0.0..1.0);
            match store.policy.answered(&call.request, answer, call.began, monotonic, jitter) {
                Change::Nothing => {}
                Change::Granted(lease) => {
                    store.grants += 1;
                    store.keys.grant(lease.id, lease.from, lease.until);
                    if self.is_trouble() {
                        // The clock is set back before the first key.
                        let by = self.random.random_range(0..4 * TERM);
                        self.set_back(store, by);
                    }
                }
                Change::Extended(until) => store.keys.extend(until),
                Change::Lost => drop(store.keys.abandon_writer_id()),
            }
        }
        let time = store.keys.time(self.wall(store), || monotonic);
        if !time.has_lease {
            store.policy.abandon();
        }
        let random = &mut self.random;
        if let Step::Call(request) = store.policy.next(monotonic, time.next, || random.next_u64()) {
            store.call = Some(self.send(request, monotonic));
        }
    }

    fn put(&mut self, store: &mut Store) {
        let (wall, monotonic) = (self.wall(store), self.monotonic(store));
        let count = if self.random.random_range(0..400) == 0 {
            25_000
        } else {
            self.random.random_range(1..4)
        };
        for _ in 0..count {
            let key = match store.keys.next(wall, || monotonic) {
                Ok(key) => key,
                Err(none) => {
                    assert_eq!(none, NoKey::NoLease);
                    return;
                }
            };
            assert!(store.last_key < Some(key), "the keys of a store increase");
            store.last_key = Some(key);
            self.keys += 1;
            self.tenures.record(store.number, store.grants, &key);
        }
    }

    fn give_back(&mut self, store: &mut Store) {
        let (wall, monotonic) = (self.wall(store), self.monotonic(store));
        if !store.keys.time(wall, || monotonic).has_lease {
            store.policy.abandon();
        }
        let end = store.keys.close();
        for request in store.policy.give_back(end) {
            if self.send(request, monotonic).answer == Some(LeaseAnswer::Applied) {
                break;
            }
        }
    }

    /// Sets a store's clock back, and lets the store notice it. If a snapshot were taken before the store has noticed it,
    /// the time until the restore would be hidden. Nothing else depends on this.
    fn set_back(&self, store: &mut Store, by: u64) {
        let monotonic = self.monotonic(store);
        store.keys.time(self.wall(store), || monotonic);
        store.skew -= by.cast_signed();
        store.keys.time(self.wall(store), || monotonic);
    }

    /// A copy of a store that resumes elsewhere. Enough time has passed for the copy to notice.
    fn restore(&mut self, store: &Store) -> Store {
        self.started += 1;
        let away = self.random.random_range(2_100..3 * TERM);
        let call = store.call.clone().map(|call| Call {
            answer: None,
            certainty: Certainty::MaybeStored,
            ..call
        });
        Store {
            number: self.started,
            keys: store.keys.snapshot(),
            policy: store.policy.clone(),
            call,
            stood_still: store.stood_still + away,
            paused_until: self.now + away,
            ..*store
        }
    }

    fn step(&mut self) {
        self.now += match self.random.random_range(0..20) {
            0 => self.random.random_range(0..3 * TERM),
            1..=4 => self.random.random_range(0..TERM / 3),
            _ => self.random.random_range(0..40),
        };
        self.table.apply_late(self.now);
        let mut stores = std::mem::take(&mut self.stores);
        for store in &mut stores {
            if self.now < store.paused_until {
                continue;
            }
            // Puts come before or after the keeper's step, as puts from other threads do.
            if self.random.random_bool(0.5) {
                self.put(store);
            }
            self.keep(store);
            if self.random.random_bool(0.5) {
                self.put(store);
            }
        }
        let place = self.random.random_range(0..stores.len());
        let is_paused = self.now < stores[place].paused_until;
        if self.is_trouble() && !is_paused {
            match self.random.random_range(0..7) {
                0 => stores[place] = self.start(),
                1 => {
                    self.give_back(&mut stores[place]);
                    stores[place] = self.start();
                }
                2 => {
                    let skew = self.draw_skew();
                    let back = u64::try_from(stores[place].skew - skew).unwrap_or(0);
                    self.set_back(&mut stores[place], back);
                    stores[place].skew = skew;
                }
                3 => {
                    let by = self.random.random_range(0..2 * TERM);
                    self.set_back(&mut stores[place], by);
                }
                // The process is not scheduled, and both clocks advance.
                4 => stores[place].paused_until = self.now + self.random.random_range(0..4 * TERM),
                // The machine is suspended, and the monotonic clock stops.
                5 => {
                    let away = self.random.random_range(0..4 * TERM);
                    stores[place].paused_until = self.now + away;
                    stores[place].stood_still += away;
                }
                _ if stores.len() < 8 => {
                    let copy = self.restore(&stores[place]);
                    stores.push(copy);
                }
                _ => drop(stores.pop()),
            }
        }
        self.stores = stores;
    }
}

/// Runs one seed, and returns how many keys were made and how many leases granted.
fn simulate(seed: u64) -> (u64, usize) {
    let mut world = World::new(seed);
    for _ in 0..world.random.random_range(20..120) {
        world.step();
    }
    world.tenures.check();
    (world.keys, world.tenures.count())
}

#[test]
fn no_two_stores_make_keys_of_one_id_and_time() {
    let variable = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seeds = match variable("LEASE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("LEASE_SEEDS").unwrap_or(300),
    };
    let threads = 2;
    let (mut keys, mut tenures) = (0, 0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let seeds = seeds.clone().skip(thread).step_by(threads);
                scope.spawn(move || {
                    seeds.fold((0, 0), |(keys, tenures), seed| {
                        let run = std::panic::catch_unwind(|| simulate(seed));
                        let (more, held) = run.unwrap_or_else(|cause| {
                            eprintln!("seed {seed} failed: LEASE_SEED={seed} cargo test --lib lease_keeper");
                            std::panic::resume_unwind(cause)
                        });
                        (keys + more, tenures + held)
                    })
                })
            })
            .collect();
        for worker in workers {
            let (more, held) = worker.join().unwrap();
            keys += more;
            tenures += held;
        }
    });
    println!("{} seeds, {keys} keys, {tenures} leases with keys", seeds.end - seeds.start);
    assert!(
        keys > (seeds.end - seeds.start) * 10,
        "the stores had no leases for nearly all of the time"
    );
}
