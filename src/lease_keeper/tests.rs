//! The keeper's task on virtual time, with a table in memory.

use std::collections::VecDeque;
use std::sync::Mutex;

use futures::FutureExt;
use futures::future::BoxFuture;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::simulated_table::Table;
use super::*;
use crate::clock::KeyClock;
use crate::error::{Certainty, FailureClass};
use crate::event::key::WriterId;
use crate::key_source::{IdSource, NoKey};
use crate::lease::LeaseRequest;

const TERM: Duration = Duration::from_secs(60);

/// What happens to one call.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Answer,
    /// It is applied, and its answer is lost.
    LoseAnswer,
    /// It is not applied, and nothing answers.
    Hang,
}

/// A table of leases that fails as scripted.
#[derive(Debug)]
struct FakeLeaseTable {
    table: Mutex<Table>,
    /// The fates of the next calls, and the fate of all calls
    /// after them.
    fates: Mutex<(VecDeque<Fate>, Fate)>,
    calls: Mutex<Vec<LeaseRequest>>,
}

impl FakeLeaseTable {
    fn script(&self, fates: impl IntoIterator<Item = Fate>, then: Fate) {
        *self.fates.lock().unwrap() = (fates.into_iter().collect(), then);
    }

    fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    fn is_held(&self) -> bool {
        self.table.lock().unwrap().is_held(id())
    }

    fn apply(&self, request: &LeaseRequest) -> LeaseAnswer {
        self.table.lock().unwrap().apply(request)
    }
}

impl LeaseTable for FakeLeaseTable {
    fn write<'a>(
        &'a self,
        request: &'a LeaseRequest,
        limit: Duration,
    ) -> BoxFuture<'a, Result<LeaseAnswer, BatchError>> {
        self.calls.lock().unwrap().push(*request);
        let fate = {
            let (next, then) = &mut *self.fates.lock().unwrap();
            next.pop_front().unwrap_or(*then)
        };
        async move {
            let lost = BatchError::new(FailureClass::Transient, Certainty::MaybeStored, "lost");
            match fate {
                Fate::Answer => Ok(self.apply(request)),
                Fate::LoseAnswer => {
                    self.apply(request);
                    Err(lost)
                }
                Fate::Hang => {
                    wait(limit).await;
                    Err(lost)
                }
            }
        }
        .boxed()
    }
}

fn id() -> WriterId {
    WriterId::new(7).unwrap()
}

async fn wait(time: Duration) {
    sleep_until(tokio_instant(now() + time)).await;
}

/// A keeper that has its first lease, with its table and its keys.
async fn start() -> (LeaseHandle, Arc<FakeLeaseTable>, Arc<KeySource>) {
    let table = Arc::new(FakeLeaseTable {
        table: Mutex::default(),
        fates: Mutex::new((VecDeque::new(), Fate::Answer)),
        calls: Mutex::default(),
    });
    let keys = Arc::new(KeySource::new(IdSource::Leased, KeyClock::Runtime(now())));
    let terms = LeaseTerms {
        term: u64::try_from(TERM.as_millis()).unwrap(),
        first_id: id(),
        last_id: id(),
        refusal_timeout: Duration::from_secs(5),
    };
    let random = FreshRandom::new(StdRng::seed_from_u64(1), true);
    let shared: Arc<dyn LeaseTable> = Arc::<FakeLeaseTable>::clone(&table);
    let mut keeper = LeaseKeeper::new(shared, Arc::clone(&keys), terms, random);
    keeper.take(TERM).await.unwrap();
    (keeper.spawn(&Handle::current()), table, keys)
}

#[tokio::test(start_paused = true)]
async fn lease_is_extended_every_third_of_a_term_all_day() {
    let (_handle, table, keys) = start().await;
    for _ in 0..24 * 60 * 6 {
        keys.next().unwrap();
        wait(Duration::from_secs(10)).await;
    }
    assert!((4_318..=4_322).contains(&table.calls()), "{}", table.calls());
}

#[tokio::test(start_paused = true)]
async fn keys_end_with_their_range_while_the_table_hangs() {
    let (handle, table, keys) = start().await;
    table.script([], Fate::Hang);
    wait(TERM - Duration::from_millis(10)).await;
    keys.next().unwrap();
    wait(Duration::from_millis(10)).await;
    assert_eq!(keys.next(), Err(NoKey::NoLease));
    wait(10 * TERM).await;
    assert_eq!(keys.next(), Err(NoKey::NoLease));
    assert!(handle.state().borrow().failure.is_some());
    assert!(table.calls() < 100, "{} calls in eleven minutes", table.calls());

    table.script([], Fate::Answer);
    wait(MAX_CALL_TIME + Duration::from_secs(5)).await;
    keys.next().unwrap();
    assert!(handle.state().borrow().failure.is_none());
}

#[tokio::test(start_paused = true)]
async fn id_is_given_back_while_a_call_hangs() {
    let (handle, table, keys) = start().await;
    table.script([Fate::Hang], Fate::Answer);
    wait(TERM / 3 + Duration::from_millis(10)).await;
    assert_eq!(table.calls(), 2);
    let began = now();
    handle.close();
    handle.closed().await;
    assert_eq!(now(), began);
    assert!(!table.is_held());
    assert_eq!(keys.next(), Err(NoKey::Closed));
}

#[tokio::test(start_paused = true)]
async fn id_is_released_with_the_token_of_a_lost_answer() {
    let (handle, table, _keys) = start().await;
    table.script([Fate::LoseAnswer], Fate::Answer);
    wait(TERM / 3 + Duration::from_millis(1)).await;
    assert_eq!(table.calls(), 2);
    let state = handle.state();
    drop(handle);
    wait(Duration::from_millis(1)).await;
    assert!(!table.is_held());
    assert_eq!(table.calls(), 4);
    assert!(state.has_changed().is_err(), "the task has ended");
}

#[tokio::test(start_paused = true)]
async fn abandoned_id_is_free_again_after_two_terms() {
    let (handle, table, keys) = start().await;
    keys.next().unwrap();
    // The only id is held for its term, and for one more.
    assert!(keys.abandon_writer_id());
    wait(2 * TERM - Duration::from_secs(2)).await;
    assert_eq!(keys.next(), Err(NoKey::NoLease));
    assert!(handle.state().borrow().tries > 16);
    wait(Duration::from_secs(4)).await;
    keys.next().unwrap();
    assert!(table.is_held());
    assert_eq!(handle.state().borrow().grants, 2);
}
