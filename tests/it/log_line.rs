//! The reader of log lines, which other tests use to check that every line keeps to
//! the format.

use sorteo_test_support::log_line::LogLine;

#[test]
fn the_reader_of_log_lines_refuses_what_breaks_the_contract() {
    let good = "2026-11-21 20:31:05 INFO     action: sorteo | result: success | draw: 1";
    assert_eq!(LogLine::parse(good).unwrap().get("draw"), Some("1"));
    for (from, to) in [
        ("2026-11-21 20", "2026-11-21T20"),
        ("INFO     ", "INFO "),
        ("INFO     ", "TRACE    "),
        ("success", "ok"),
        ("action", "Action"),
        ("action: sorteo | ", ""),
        (" | result: success", ""),
        ("draw: 1", "draw: 1|2"),
        ("draw: 1", "draw: 1\r"),
        ("draw: 1", "draw: \u{202e}1"),
        ("draw: 1", "draw"),
        ("draw: 1", "draw: "),
        (" | draw", " |draw"),
    ] {
        let bad = good.replace(from, to);
        assert!(LogLine::parse(&bad).is_err(), "{bad:?}");
    }
}
