//! The configuration of all property tests.

use proptest::test_runner::{Config, FileFailurePersistence};

/// For how long a case that failed is shrunk. One that fails by waiting for an answer
/// takes its whole deadline each time.
const SHRINK_MS_MAX: u32 = 60_000;

/// Runs so many cases by default, or `PROPTEST_CASES`. The seed of a case that failed
/// is added to a file, whose seeds run first from then on.
pub fn cases(cases: u32) -> Config {
    let config = Config::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { cases };
    const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../it/regressions/seeds.txt");
    let persistence = FileFailurePersistence::Direct(REGRESSIONS);
    let max_shrink_time = if config.max_shrink_time > 0 { config.max_shrink_time } else { SHRINK_MS_MAX };
    Config { cases, max_shrink_time, failure_persistence: Some(Box::new(persistence)), ..config }
}
