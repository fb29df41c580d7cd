//! When a store takes a writer id, when it extends its lease, and what each answer of the table of leases means.
//!
//! Keys are unique because the ranges of one id never overlap. The table alone ensures that: each write is conditional,
//! and a range that is [taken](LeaseRequest::Take) begins after the end of the last one. So nothing here has to happen in
//! time. If a lease is extended too late, puts wait, but no key is made twice.

use std::time::{Duration, Instant};

use super::retry::Backoff;
use crate::error::{BatchError, Certainty, FailureClass};
use crate::event::key::WriterId;
use crate::lease::{Lease, LeaseAnswer, LeaseRequest, Token};

/// The wait after a call that failed. The ceiling is much shorter than a term, so that the store soon notices when the
/// table answers again.
const FAILURE_BACKOFF: Backoff = Backoff {
    floor: Duration::from_millis(25),
    base: Duration::from_millis(50),
    ceiling: Duration::from_secs(5),
};

/// The wait after all ids that were tried were held. If few ids are free, another store may give one back.
const SEARCH_BACKOFF: Backoff = Backoff {
    floor: Duration::from_millis(50),
    base: Duration::from_millis(100),
    ceiling: Duration::from_secs(1),
};

/// Ids that are tried one after the other, before the first wait. If 10,000 of 100,000 ids are held, all 16 are held
/// with odds of 1 in 10¹⁶.
const TRIES_IN_A_ROW: u32 = 16;

/// The settings of the policy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseTerms {
    /// How far a lease reaches beyond the time of its holder's next key, in milliseconds.
    pub(crate) term: u64,
    /// The first and the last id that may be leased.
    pub(crate) first_id: WriterId,
    pub(crate) last_id: WriterId,
    /// How long the service may refuse every call before that is final.
    pub(crate) refusal_timeout: Duration,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Call(LeaseRequest),
    /// Wait until this moment, unless a put cannot get a key.
    Wait(Instant),
}

/// What an answer changes for the [key source](crate::key_source).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Nothing,
    Granted(Lease),
    /// The lease now ends at this time.
    Extended(u64),
    /// Another store has the id, or another copy of this process has extended the lease.
    Lost,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    id: WriterId,
    token: Token,
    until: u64,
    extend_at: Instant,
}

/// An extension that was requested. It is kept until its answer is known.
#[derive(Debug, Clone, Copy)]
struct Claim {
    token: Token,
    until: u64,
}

/// The state of one store's lease.
#[derive(Debug, Clone)]
pub(crate) struct LeasePolicy {
    terms: LeaseTerms,
    held: Option<Held>,
    claim: Option<Claim>,
    /// Number of calls that failed in a row.
    failures: u32,
    /// Number of ids in a row that were tried and were held by others.
    tries: u32,
    next_call: Option<Instant>,
    refused_since: Option<Instant>,
}

impl LeasePolicy {
    pub(crate) fn new(terms: LeaseTerms) -> Self {
        Self {
            terms,
            held: None,
            claim: None,
            failures: 0,
            tries: 0,
            next_call: None,
            refused_since: None,
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Number of ids that were tried and were held by others, since the last answer of another kind.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }

    /// Whether this failure will not end by itself: the table is missing or has another key, or the service has refused
    /// every call for the refusal timeout.
    pub(crate) fn is_final(&self, error: &BatchError, now: Instant) -> bool {
        let has_lasted = |since| now.saturating_duration_since(since) >= self.terms.refusal_timeout;
        match error.class() {
            FailureClass::Refused => {
                error.code() == Some("ResourceNotFoundException")
                    || self.refused_since.is_some_and(has_lasted)
            }
            class => !class.is_retryable(),
        }
    }

    /// Gives the lease up without a call, because this process may be one of several copies. Other stores can take the
    /// id one term after the end of its range.
    pub(crate) fn abandon(&mut self) {
        self.held = None;
        self.claim = None;
    }

    /// What to do at `now`, if the next key would have the time `key_time`. `draw` returns random bits.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        key_time: u64,
        mut draw: impl FnMut() -> u64,
    ) -> Step {
        if let Some(next_call) = self.next_call.filter(|at| now < *at) {
            return Step::Wait(next_call);
        }
        let term = self.terms.term;
        let Some(held) = &mut self.held else {
            let (from, until) = (key_time, key_time.saturating_add(term));
            let lease = Lease { id: self.terms.draw_id(draw()), token: Token(draw()), from, until };
            // A holder whose clock is behind this one by less than a term keeps its id.
            return Step::Call(LeaseRequest::Take {
                lease,
                free_before: from.saturating_sub(term),
            });
        };
        if self.claim.is_none() {
            let is_due = now >= held.extend_at
                || held.until.saturating_sub(key_time) <= term.saturating_sub(term / 3);
            if !is_due {
                return Step::Wait(held.extend_at);
            }
            let until = key_time.saturating_add(term);
            if until <= held.until {
                // The clock was set back, so the range still reaches far enough.
                held.extend_at = now + third(term);
                return Step::Wait(held.extend_at);
            }
            self.claim = Some(Claim { token: Token(draw()), until });
        }
        let (id, token) = (held.id, held.token);
        match self.claim {
            // If the answer to a claim was lost, the same claim is sent again. If the first one was applied, the row
            // already has its token.
            Some(claim) => Step::Call(LeaseRequest::Extend {
                id,
                held: token,
                token: claim.token,
                until: claim.until,
            }),
            None => Step::Wait(held.extend_at),
        }
    }

    /// Handles the answer to a request that was sent at `began`. `jitter` is 0 to 1.
    pub(crate) fn answered(
        &mut self,
        request: &LeaseRequest,
        answer: Result<LeaseAnswer, &BatchError>,
        began: Instant,
        now: Instant,
        jitter: f64,
    ) -> Change {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.failed(error, now, jitter);
                return Change::Nothing;
            }
        };
        self.failures = 0;
        self.refused_since = None;
        self.next_call = None;
        let extend_at = began + third(self.terms.term);
        match (*request, answer) {
            (LeaseRequest::Take { lease, .. }, LeaseAnswer::Applied) => {
                let Lease { id, token, until, .. } = lease;
                self.tries = 0;
                self.claim = None;
                self.held = Some(Held { id, token, until, extend_at });
                Change::Granted(lease)
            }
            (LeaseRequest::Take { .. }, LeaseAnswer::Refused { .. }) => {
                self.tries = self.tries.saturating_add(1);
                if self.tries.is_multiple_of(TRIES_IN_A_ROW) {
                    let delay = SEARCH_BACKOFF.delay(self.tries / TRIES_IN_A_ROW, jitter);
                    self.next_call = Some(now + delay);
                }
                Change::Nothing
            }
            (LeaseRequest::Extend { token, until, .. }, answer) => {
                self.claim = None;
                let is_ours = match answer {
                    LeaseAnswer::Applied => true,
                    // An earlier answer to this claim was lost.
                    LeaseAnswer::Refused { token: found } => found == Some(token),
                };
                match &mut self.held {
                    Some(held) if is_ours => {
                        *held = Held { token, until, extend_at, ..*held };
                        Change::Extended(until)
                    }
                    _ => {
                        self.held = None;
                        Change::Lost
                    }
                }
            }
            (LeaseRequest::GiveBack { .. }, _) => Change::Nothing,
        }
    }

    fn failed(&mut self, error: &BatchError, now: Instant, jitter: f64) {
        if error.certainty() == Certainty::NotStored {
            // The next claim will have a later end.
            self.claim = None;
        }
        if error.class() == FailureClass::Refused {
            self.refused_since.get_or_insert(now);
        } else {
            self.refused_since = None;
        }
        self.failures = self.failures.saturating_add(1);
        self.next_call = Some(now + FAILURE_BACKOFF.delay(self.failures, jitter));
    }

    /// The requests that give the id back, if all keys of the store have times before `end`. The second one is for the
    /// case that the first is refused. Empty if no id is held.
    pub(crate) fn give_back(&self, end: u64) -> Vec<LeaseRequest> {
        let Some(Held { id, token, until, .. }) = self.held else { return Vec::new() };
        let until = end.min(until);
        // An extension whose answer was lost may have replaced the token.
        let tokens = std::iter::once(token).chain(self.claim.map(|claim| claim.token));
        tokens.map(|held| LeaseRequest::GiveBack { id, held, until }).collect()
    }
}

impl LeaseTerms {
    fn draw_id(&self, bits: u64) -> WriterId {
        let count = u64::from(self.last_id.get().saturating_sub(self.first_id.get())) + 1;
        self.first_id.plus(bits % count)
    }
}

fn third(term: u64) -> Duration {
    Duration::from_millis(term / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: u64 = 60_000;

    /// A policy with its two clocks, and the requests that it makes.
    struct Clocked {
        policy: LeasePolicy,
        now: Instant,
        key_time: u64,
        drawn: u64,
    }

    impl Clocked {
        #[expect(clippy::disallowed_methods, reason = "an origin for the tests' own time line")]
        fn new() -> Self {
            let (first_id, last_id) = (WriterId::new(10).unwrap(), WriterId::new(19).unwrap());
            let refusal_timeout = Duration::from_secs(5);
            let policy =
                LeasePolicy::new(LeaseTerms { term: TERM, first_id, last_id, refusal_timeout });
            Self { policy, now: Instant::now(), key_time: 1_000_000, drawn: 0 }
        }

        fn pass(&mut self, milliseconds: u64) {
            self.now += Duration::from_millis(milliseconds);
            self.key_time += milliseconds;
        }

        fn step(&mut self) -> Step {
            let drawn = &mut self.drawn;
            self.policy.next(self.now, self.key_time, || {
                *drawn += 1;
                *drawn
            })
        }

        fn request(&mut self) -> LeaseRequest {
            match self.step() {
                Step::Call(request) => request,
                Step::Wait(until) => panic!("waits {:?}", until - self.now),
            }
        }

        fn waits(&mut self) -> Duration {
            match self.step() {
                Step::Call(request) => panic!("{request:?}"),
                Step::Wait(until) => until - self.now,
            }
        }

        fn answer(
            &mut self,
            request: &LeaseRequest,
            answer: Result<LeaseAnswer, &BatchError>,
        ) -> Change {
            self.policy.answered(request, answer, self.now, self.now, 0.5)
        }

        fn held() -> Self {
            let mut clocked = Self::new();
            let take = clocked.request();
            clocked.answer(&take, Ok(LeaseAnswer::Applied));
            clocked
        }
    }

    fn error(class: FailureClass, certainty: Certainty) -> BatchError {
        BatchError::new(class, certainty, "as scripted")
    }

    fn lost() -> BatchError {
        error(FailureClass::Transient, Certainty::MaybeStored)
    }

    #[test]
    fn taken_range_lasts_a_term_from_the_key_time() {
        let mut clocked = Clocked::new();
        let take = clocked.request();
        let LeaseRequest::Take { lease, free_before } = take else { panic!("{take:?}") };
        assert_eq!((lease.from, lease.until), (1_000_000, 1_060_000));
        assert_eq!(free_before, 940_000);
        assert!((10..=19).contains(&lease.id.get()));
        assert_eq!(clocked.answer(&take, Ok(LeaseAnswer::Applied)), Change::Granted(lease));
        assert_eq!(clocked.waits(), Duration::from_secs(20));
    }

    #[test]
    fn other_ids_are_tried_before_waiting_when_one_is_held() {
        let mut clocked = Clocked::new();
        for _ in 0..TRIES_IN_A_ROW {
            let take = clocked.request();
            let refused = Ok(LeaseAnswer::Refused { token: Some(Token(9)) });
            assert_eq!(clocked.answer(&take, refused), Change::Nothing);
        }
        assert_eq!(clocked.waits(), Duration::from_millis(75));
        assert_eq!(clocked.policy.tries(), TRIES_IN_A_ROW);
    }

    #[test]
    fn lease_is_extended_at_a_third_of_its_term() {
        let mut clocked = Clocked::held();
        clocked.pass(19_999);
        assert_eq!(clocked.waits(), Duration::from_millis(1));
        clocked.pass(1);
        let extend = clocked.request();
        assert!(matches!(extend, LeaseRequest::Extend { until: 1_080_000, .. }), "{extend:?}");
        let changed = clocked.answer(&extend, Ok(LeaseAnswer::Applied));
        assert_eq!(changed, Change::Extended(1_080_000));
        assert_eq!(clocked.waits(), Duration::from_secs(20));
    }

    #[test]
    fn jump_of_the_wall_clock_extends_at_once() {
        let mut clocked = Clocked::held();
        clocked.key_time += 3_600_000;
        assert!(matches!(clocked.request(), LeaseRequest::Extend { until: 4_660_000, .. }));
    }

    #[test]
    fn lease_is_not_extended_after_the_clock_was_set_back() {
        let mut clocked = Clocked::held();
        clocked.pass(20_000);
        clocked.key_time -= 600_000;
        assert_eq!(clocked.waits(), Duration::from_secs(20));
    }

    #[test]
    fn lost_answer_is_requested_again_and_recognised_by_its_token() {
        let mut clocked = Clocked::held();
        clocked.pass(20_000);
        let extend = clocked.request();
        let LeaseRequest::Extend { token, until, .. } = extend else { panic!("{extend:?}") };
        assert_eq!(clocked.answer(&extend, Err(&lost())), Change::Nothing);
        let wait = clocked.waits();
        clocked.pass(u64::try_from(wait.as_millis()).unwrap() + 1);
        assert_eq!(clocked.request(), extend, "the same claim");
        let applied_before = Ok(LeaseAnswer::Refused { token: Some(token) });
        assert_eq!(clocked.answer(&extend, applied_before), Change::Extended(until));
    }

    #[test]
    fn extension_that_was_not_sent_gets_a_new_claim() {
        let mut clocked = Clocked::held();
        clocked.pass(20_000);
        let extend = clocked.request();
        clocked.answer(&extend, Err(&error(FailureClass::Transient, Certainty::NotStored)));
        clocked.pass(1_000);
        assert!(matches!(clocked.request(), LeaseRequest::Extend { until: 1_081_000, .. }));
    }

    #[test]
    fn lease_is_lost_when_the_row_has_another_token() {
        for token in [None, Some(Token(77))] {
            let mut clocked = Clocked::held();
            clocked.pass(20_000);
            let extend = clocked.request();
            let changed = clocked.answer(&extend, Ok(LeaseAnswer::Refused { token }));
            assert_eq!(changed, Change::Lost);
            assert!(!clocked.policy.is_held());
            assert!(matches!(clocked.request(), LeaseRequest::Take { .. }));
        }
    }

    #[test]
    fn id_is_released_with_each_token_the_row_may_have() {
        let mut clocked = Clocked::held();
        assert_eq!(clocked.policy.give_back(1_000_001).len(), 1);
        clocked.pass(20_000);
        let extend = clocked.request();
        clocked.answer(&extend, Err(&lost()));
        let back = clocked.policy.give_back(1_000_001);
        let LeaseRequest::Extend { id, held, token, .. } = extend else { panic!("{extend:?}") };
        let expected =
            [held, token].map(|held| LeaseRequest::GiveBack { id, held, until: 1_000_001 });
        assert_eq!(back, expected);
        clocked.policy.abandon();
        assert_eq!(clocked.policy.give_back(1_000_001), []);
    }

    #[test]
    fn refusal_is_final_after_timeout_and_missing_table_at_once() {
        let mut clocked = Clocked::new();
        let denied = error(FailureClass::Refused, Certainty::NotStored);
        for _ in 0..3 {
            let take = clocked.request();
            clocked.answer(&take, Err(&denied));
            assert!(!clocked.policy.is_final(&denied, clocked.now));
            clocked.pass(1_600);
        }
        clocked.pass(200);
        assert!(clocked.policy.is_final(&denied, clocked.now));
        let missing = error(FailureClass::Refused, Certainty::NotStored);
        let missing = missing.with_code("ResourceNotFoundException");
        assert!(Clocked::new().policy.is_final(&missing, clocked.now));
        assert!(!Clocked::new().policy.is_final(&lost(), clocked.now));
    }
}
