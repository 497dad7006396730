//! The text that Prometheus scrapes: the server's [`Metrics`](crate::metrics::Metrics),
//! and samples taken at the time of the scrape (the draw, files, the process).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::context::OpsContext;
use super::readiness::{Readiness, free_bytes};
use crate::logging;
use crate::store::Store;
use crate::store::sqlite::overview::Draw;
use crate::store::sqlite::wal_path;

/// Everything that is scraped.
pub(super) struct Exposition {
    registry: Registry,
    samples: Samples,
}

/// Values that are not counted but looked up at each scrape.
#[derive(Default)]
struct Samples {
    draw: Gauge,
    drawn: Gauge,
    draw_bets: Gauge,
    draw_winners: Gauge,
    agencies_done: Gauge,
    agencies_expected: Gauge,
    wal_bytes: Gauge,
    database_bytes: Gauge,
    disk_free_bytes: Gauge,
    ready: Family<PartLabel, Gauge>,
    resident_bytes: Gauge,
    open_files: Gauge,
    open_files_max: Gauge,
    log_lines_dropped: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabel {
    part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    version: &'static str,
}

impl Exposition {
    pub(super) fn new<S: Store>(context: &OpsContext<S>, started_at: SystemTime) -> Self {
        let mut registry = Registry::default();
        context.service.metrics().register(&mut registry);
        let samples = Samples::default();
        samples.register(&mut registry);
        let limits = [
            ("sorteo_connections_limit", "Most connections at once", context.limits.connections_max),
            ("sorteo_queue_writes_limit", "Most writes that may wait for the writer", context.queue_max),
        ];
        for (name, help, limit) in limits {
            registry.register(name, help, constant(limit as i64));
        }
        let version = Family::<VersionLabel, Gauge>::default();
        version.get_or_create(&VersionLabel { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("sorteo_build_info", "The program's version", version);
        let started = started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        registry.register(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970",
            constant(started.as_secs() as i64),
        );
        Self { registry, samples }
    }

    /// Returns the text of a scrape.
    pub(super) fn scrape(&self, database: &Path, draw: Option<&Draw>, readiness: &Readiness) -> String {
        self.samples.take(database, draw, readiness);
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        in_text_format(&text)
    }
}

fn constant(value: i64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(value);
    gauge
}

impl Samples {
    fn register(&self, registry: &mut Registry) {
        let gauges = [
            ("sorteo_draw", "Number of the newest draw", &self.draw),
            ("sorteo_draw_made", "Whether the newest draw is drawn (1) or open (0)", &self.drawn),
            ("sorteo_draw_bets", "Bets stored in the newest draw", &self.draw_bets),
            ("sorteo_draw_winners", "Winning bets of the newest draw", &self.draw_winners),
            ("sorteo_draw_agencies_done", "Agencies that are done in the newest draw", &self.agencies_done),
            (
                "sorteo_draw_agencies_expected",
                "Agencies that must be done in the newest draw",
                &self.agencies_expected,
            ),
            ("sorteo_wal_bytes", "Size of the write-ahead log's file", &self.wal_bytes),
            ("sorteo_database_bytes", "Size of the database's file", &self.database_bytes),
            (
                "sorteo_disk_free_bytes",
                "Bytes that the server may still write to the database's disk",
                &self.disk_free_bytes,
            ),
            ("process_resident_memory_bytes", "Memory of the process", &self.resident_bytes),
            ("process_open_fds", "Open files of the process", &self.open_files),
            ("process_max_fds", "Open files that the process may have", &self.open_files_max),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "sorteo_log_lines_dropped",
            "Lines of the log that were dropped because it was not read fast enough",
            self.log_lines_dropped.clone(),
        );
        registry.register(
            "sorteo_ready",
            "Whether a part can do its work (1) or not (0)",
            self.ready.clone(),
        );
    }

    /// Takes all samples. What cannot be looked up keeps its value.
    fn take(&self, database: &Path, draw: Option<&Draw>, readiness: &Readiness) {
        if let Some(draw) = draw {
            self.draw.set(draw.id);
            self.drawn.set(i64::from(draw.is_drawn()));
            self.draw_bets.set(draw.bets as i64);
            self.draw_winners.set(draw.winners as i64);
            self.agencies_done.set(draw.done as i64);
            self.agencies_expected.set(draw.expected as i64);
        }
        let dropped = &self.log_lines_dropped;
        dropped.inc_by(logging::lines_dropped().saturating_sub(dropped.get()));
        for part in &readiness.parts {
            self.ready.get_or_create(&PartLabel { part: part.part.as_str() }).set(i64::from(part.ready));
        }
        // Without a WAL file, the WAL is empty.
        self.wal_bytes.set(fs::metadata(wal_path(database)).map_or(0, |file| file.len() as i64));
        if let Ok(file) = fs::metadata(database) {
            self.database_bytes.set(file.len() as i64);
        }
        if let Ok(free) = free_bytes(database) {
            self.disk_free_bytes.set(free as i64);
        }
        if let Some(bytes) = resident_bytes() {
            self.resident_bytes.set(bytes);
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // One of them is this folder, which is open to be read.
            self.open_files.set(files.count() as i64 - 1);
        }
        if let Ok((files, _)) = rlimit::Resource::NOFILE.get() {
            self.open_files_max.set(files as i64);
        }
    }
}

/// Returns the resident memory, if the system reports it: the second field of `statm`, in
/// pages.
fn resident_bytes() -> Option<i64> {
    let pages: i64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as i64)
}

/// Converts OpenMetrics, which the library writes, to the older text format, which every
/// scraper reads. There the name of a counter ends in `_total` in comments too.
fn in_text_format(open_metrics: &str) -> String {
    let counters: BTreeSet<&str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match [(); 4].map(|()| words.next()) {
            [Some("#"), Some(about @ ("HELP" | "TYPE")), Some(name), Some(rest)]
                if counters.contains(name) =>
            {
                text.push_str(&format!("# {about} {name}_total {rest}\n"));
            }
            _ => text.push_str(&format!("{line}\n")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_named_as_in_the_older_format() {
        let open_metrics = "# HELP a_b Some text.\n# TYPE a_b counter\na_b_total{x=\"# TYPE y counter\"} 1\n\
                            # HELP c Other.\n# TYPE c gauge\nc 2\n# EOF\n";
        let text = "# HELP a_b_total Some text.\n# TYPE a_b_total counter\n\
                    a_b_total{x=\"# TYPE y counter\"} 1\n# HELP c Other.\n# TYPE c gauge\nc 2\n";
        assert_eq!(in_text_format(open_metrics), text);
    }
}
