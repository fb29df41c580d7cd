//! Ends a test process that hangs. Without it, a test that waits for ever on a paused clock, or
//! spins, would never fail.

use std::process;
use std::sync::Once;
use std::thread;
use std::time::Duration;

/// Far longer than all tests of one file take together.
const LIMIT: Duration = Duration::from_secs(240);

/// Ends the whole process as failed, [`LIMIT`] after the first call.
pub(crate) fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        thread::spawn(|| {
            #[expect(clippy::disallowed_methods, reason = "the limit is one of real time")]
            thread::sleep(LIMIT);
            eprintln!("the tests did not finish within {LIMIT:?}: one of them hangs");
            process::exit(101);
        });
    });
}
