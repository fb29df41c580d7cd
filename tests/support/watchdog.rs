//! An end for tests that have none: what waits for ever on a paused clock, or spins, would otherwise
//! never fail.

use std::process;
use std::sync::Once;
use std::thread;
use std::time::Duration;

/// Far above what all tests of one file need together.
const LIMIT: Duration = Duration::from_secs(240);

/// Ends the whole process, as failed, some minutes from the first call.
pub(crate) fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        thread::spawn(|| {
            #[expect(clippy::disallowed_methods, reason = "it watches over real time")]
            thread::sleep(LIMIT);
            eprintln!("the tests are not done after {LIMIT:?}: one of them hangs");
            process::exit(101);
        });
    });
}
