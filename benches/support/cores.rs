//! Which core runs what.
//!
//! The endpoint stands for another machine, so it gets a core of its own, the last one. Left to
//! themselves the two processes share a core at some times and not at others, and a `PutItem` that
//! waits for its answer takes twice as long when the answer has to wake another core: the figures of
//! two runs could not be compared. Where this is not Linux, or there is but one core, nothing is
//! done.

/// The cores that this process was given.
#[derive(Debug)]
pub(crate) struct Cores {
    all: Vec<usize>,
}

impl Cores {
    pub(crate) fn given() -> Self {
        Self { all: given() }
    }

    /// Moves the endpoint to its core.
    pub(crate) fn keep_to_last(&self) {
        if let [_, .., last] = self.all.as_slice() {
            keep_to(&[*last]);
        }
    }

    /// Moves this thread away from the endpoint's core.
    pub(crate) fn keep_off_last(&self) {
        if let [others @ .., _] = self.all.as_slice()
            && !others.is_empty()
        {
            keep_to(others);
        }
    }

    /// Lets this thread, and those that it starts from now on, run wherever there is time.
    pub(crate) fn keep_to_none(&self) {
        if !self.all.is_empty() {
            keep_to(&self.all);
        }
    }
}

#[cfg(target_os = "linux")]
fn given() -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};

    let given = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|core| given.is_set(*core)).collect()
}

#[cfg(target_os = "linux")]
fn keep_to(cores: &[usize]) {
    use rustix::thread::{CpuSet, sched_setaffinity};

    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    sched_setaffinity(None, &set).unwrap();
}

#[cfg(not(target_os = "linux"))]
fn given() -> Vec<usize> {
    Vec::new()
}

#[cfg(not(target_os = "linux"))]
fn keep_to(_cores: &[usize]) {}
