//! Assigns processes to cores.
//!
//! The endpoint represents another machine, so it gets a core of its own, the last one. Otherwise the two
//! processes would share a core in some runs and not in others. A `PutItem` takes twice as long when its
//! answer has to wake another core, so the figures of two runs could not be compared. On systems other
//! than Linux, or with only one core, nothing is assigned.

/// The cores that this process may use.
#[derive(Debug)]
pub(crate) struct Cores {
    all: Vec<usize>,
}

impl Cores {
    pub(crate) fn given() -> Self {
        Self { all: given() }
    }

    /// Moves this thread to the endpoint's core.
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

    /// Lets this thread, and those that it starts later, run on every core.
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
