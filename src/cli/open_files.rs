//! How many files the process may have open, and whether a server needs more.

use crate::config::ServeConfig;
use crate::ops;

/// Files beside the connections: database, WAL, lock, readers, our own sockets.
const FILES_BESIDE_CONNECTIONS: u64 = 64;

/// Raises the soft limit to the hard one. Returns it; 0 where it is not known.
pub(super) fn raise_limit() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or(0)
}

/// Returns a warning if the limit is lower than what a server may need. It runs all
/// the same.
pub(super) fn warning(config: &ServeConfig, files: u64) -> Option<String> {
    let operators = if config.ops.is_served() { ops::FILES_MAX } else { 0 };
    let needed = config.limits.connections_max as u64 + FILES_BESIDE_CONNECTIONS + operators;
    (files > 0 && files < needed)
        .then(|| format!("the system allows {files} open files, max_connections needs {needed}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Layers, ServeSettings};

    #[test]
    fn few_open_files_are_warned_of() {
        let layers = Layers::of_serve(&ServeSettings::new([]), None, &Environment::new()).unwrap();
        let config = ServeConfig::lower(&layers).unwrap();
        assert_eq!(warning(&config, 10_064), None);
        assert_eq!(warning(&config, 0), None, "nobody knows");
        assert_eq!(
            warning(&config, 10_063).as_deref(),
            Some("the system allows 10063 open files, max_connections needs 10064")
        );
    }
}
