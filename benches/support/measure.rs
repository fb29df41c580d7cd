//! The wall and CPU time of runs, and their distribution.

use std::fmt;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A stopwatch for wall and CPU time.
#[derive(Debug)]
pub(crate) struct Watch {
    wall: Instant,
    cpu: Duration,
}

/// The time that writing a number of events took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    events: usize,
}

impl Watch {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    pub(crate) fn start() -> Self {
        Self { wall: Instant::now(), cpu: cpu_time() }
    }

    pub(crate) fn stop(&self, events: usize) -> Sample {
        Sample { wall: self.wall.elapsed(), cpu: cpu_time() - self.cpu, events }
    }
}

impl Sample {
    pub(crate) fn events_per_second(&self) -> f64 {
        self.events as f64 / self.wall.as_secs_f64()
    }

    pub(crate) fn cpu_microseconds_per_event(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.events as f64
    }
}

/// The user and system time of all threads of this process so far. It has a resolution of a nanosecond,
/// unlike `/proc/self/stat`, which counts in hundredths of a second.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// The median and the quartiles of some numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) lower: f64,
    pub(crate) median: f64,
    pub(crate) upper: f64,
}

impl Spread {
    pub(crate) fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |quarter: usize| {
            let place = (sorted.len() - 1) * quarter / 4;
            sorted.get(place).copied().unwrap()
        };
        Self { lower: at(1), median: at(2), upper: at(3) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lower, median, upper } = self;
        let digits = formatter.precision().unwrap_or(2);
        write!(formatter, "{median:.digits$} ({lower:.digits$} to {upper:.digits$})")
    }
}
