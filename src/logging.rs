//! The log: one line per event, in the format that the tools of both original servers
//! read, or as a JSON object if the operator configures it.
//!
//! `2026-11-21 20:31:05 INFO     action: … | result: … | key: value`
//! `{"time":"2026-11-21T20:31:05.123Z","level":"INFO","action":…,"result":…,"key":…}`
//!
//! The names of the actions are a contract, in Spanish where the original servers had them
//! (see `docs/protocol.md`, "Log lines"). Events are logged with [`event!`](crate::event),
//! which passes their parts to the `log` crate as key-value pairs; [`init`] sets up the
//! format. A value can never end its field or its line, wherever it comes from.
//!
//! Logging never waits: a thread writes the lines, from a bounded `queue`. How many lines
//! a peer may cause is in [`limits`].

pub mod limits;
mod queue;

use std::cell::RefCell;
use std::fmt::{Display, Write as _};
use std::io::{self, Write as _};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use env_logger::Target;
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Record};

use self::queue::{Queue, Rank};

use sorteo_protocol::text::is_invisible;
use sorteo_protocol::{AgencyId, DrawId};

/// Most bytes of a value; the rest is left out. No path is longer.
const VALUE_BYTES_MAX: usize = 4096;

/// How long the end of the process, or the announcement of a draw, waits for the log's
/// lines to be written. A pipe that nobody reads holds up neither for longer.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The lines that are to be written, once logging has started.
static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// The result of an event: the only three words in `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded.
    Success,
    /// It failed.
    Fail,
    /// It has begun.
    InProgress,
}

impl Outcome {
    /// Returns the word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Fail => "fail",
            Self::InProgress => "in_progress",
        }
    }
}

/// Logs one event: level, action, outcome, then `key = value` pairs. A [`Number`]
/// stays a number, any other value is displayed. A key whose value is empty is left out.
#[macro_export]
macro_rules! event {
    ($level:ident, $action:expr, $outcome:ident $(, $key:ident = $value:expr)* $(,)?) => {{
        #[allow(unused_imports, reason = "an event without values, or with numbers alone")]
        use $crate::logging::Displayed as _;
        ::log::log!(
            target: "sorteo",
            ::log::Level::$level,
            action = $action,
            result = $crate::logging::Outcome::$outcome.as_str()
            $(, $key = $crate::logging::Field(&$value).value())*;
            ""
        )
    }};
}

/// A value that JSON shows as a number: a count, a bet's number, the number of an agency
/// or a draw. A document is text, although it is all digits.
pub trait Number {
    /// Returns the number, for the log.
    fn number(&self) -> Value<'static>;
}

macro_rules! impl_number {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn number(&self) -> Value<'static> {
                Value::from(*self)
            }
        }
    )*};
}
impl_number!(u32, u64, usize);

impl Number for AgencyId {
    fn number(&self) -> Value<'static> {
        Value::from(self.0)
    }
}

impl Number for DrawId {
    fn number(&self) -> Value<'static> {
        Value::from(self.0)
    }
}

impl<T: Number> Number for &T {
    fn number(&self) -> Value<'static> {
        (**self).number()
    }
}

/// A value of an event, to be passed to the log. It has two methods `value`: its own, for
/// numbers, and that of [`Displayed`], for whatever can be displayed. The compiler prefers
/// its own wherever it exists.
#[derive(Debug)]
pub struct Field<'a, T>(pub &'a T);

impl<T: Number> Field<'_, T> {
    /// Returns the value as a number.
    pub fn value(&self) -> Value<'static> {
        self.0.number()
    }
}

/// The value of a [`Field`] that is no number.
pub trait Displayed<'a> {
    /// Returns the value as the text that it displays.
    fn value(&self) -> Value<'a>;
}

impl<'a, T: Display> Displayed<'a> for Field<'a, T> {
    fn value(&self) -> Value<'a> {
        Value::from_display(self.0)
    }
}

/// The format of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// What the tools of the original servers read.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Starts logging to standard error, from `level` up. Later calls change nothing.
///
/// Where the system has no thread for it, every line is written by the thread that logs it.
pub fn init(level: LevelFilter, format: Format) {
    if log::max_level() != LevelFilter::Off {
        // Where a process has several parts that log, as in `demo`, the first call decides.
        return;
    }
    let queue = start_queue(format).ok();
    let is_queued = queue.is_some();
    let target = queue.map_or(Target::Stderr, |queue| Target::Pipe(Box::new(QueueWriter(queue))));
    let started = env_logger::Builder::new()
        .target(target)
        // Everything of ours: the level of the `log` crate alone decides what is logged,
        // and it can be changed while other threads log.
        .filter(Some("sorteo"), LevelFilter::Trace)
        .format(move |out, record| {
            if is_queued {
                out.write_all(&[rank(record) as u8])?;
            }
            out.write_all(format_line(format, record).as_bytes())
        })
        .try_init();
    if started.is_ok() {
        set_level(level);
    }
}

/// Sets the minimum level of what is logged from now on.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// Starts the thread that writes the lines.
fn start_queue(format: Format) -> io::Result<Arc<Queue>> {
    let queue = Arc::<Queue>::default();
    let writing = Arc::clone(&queue);
    let tell = move |dropped: u64| {
        let pairs = [
            ("action", Value::from("log")),
            ("result", Value::from(Outcome::Fail.as_str())),
            ("dropped", Value::from(dropped)),
        ];
        let pairs = pairs.as_slice();
        format_line(format, &Record::builder().level(Level::Warn).key_values(&pairs).build()).into_bytes()
    };
    thread::Builder::new().name("sorteo-log".into()).spawn(move || writing.write_to(io::stderr(), tell))?;
    Ok(Arc::clone(QUEUE.get_or_init(|| queue)))
}

/// Takes what the logger prints, one line at a time and behind its rank, into the queue.
struct QueueWriter(Arc<Queue>);

impl io::Write for QueueWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some((rank, line)) = bytes.split_first() {
            self.0.push(Rank::from_byte(*rank), line);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // It would wait for whatever reads the log.
        Ok(())
    }
}

/// Prints a line that is no event to standard error, behind those that were logged.
pub fn print(line: &str) {
    match QUEUE.get() {
        Some(queue) => queue.push(Rank::Vital, format!("{line}\n").as_bytes()),
        // Standard error may be closed.
        None => _ = writeln!(io::stderr(), "{line}"),
    }
}

/// Waits until what was logged so far is written, for a second at most.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_TIMEOUT);
    }
}

/// Returns how many lines were dropped since there was no room for them.
pub fn lines_dropped() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.dropped_total())
}

fn rank(record: &Record<'_>) -> Rank {
    let action = record.key_values().get(Key::from_str("action"));
    action.as_ref().and_then(Value::to_borrowed_str).map_or(Rank::Ordinary, Rank::of)
}

/// Returns an event's line, with its line end.
fn format_line(format: Format, record: &Record<'_>) -> String {
    let mut line = match format {
        Format::Text => second_now() + &format_event(record),
        Format::Json => format_json(record, &millisecond(jiff::Timestamp::now())),
    };
    line.push('\n');
    line
}

/// Returns a value's text; `None` if it is empty.
fn text_of(value: &Value<'_>) -> Option<String> {
    let mut text = value.to_string();
    if text.len() > VALUE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(VALUE_BYTES_MAX));
        text.push('…');
    }
    (!text.is_empty()).then_some(text)
}

/// Returns the local time to the second, as a line begins. Formatting it costs more than
/// the rest of the line, so each thread keeps the last one.
fn second_now() -> String {
    thread_local! {
        static LAST: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    let now = jiff::Timestamp::now();
    LAST.with_borrow_mut(|(second, text)| {
        if *second != now.as_second() {
            let local = now.to_zoned(jiff::tz::TimeZone::system());
            (*second, *text) = (now.as_second(), local.strftime("%Y-%m-%d %H:%M:%S ").to_string());
        }
        text.clone()
    })
}

/// Returns the level's name in Python's `logging`.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "ERROR",
        Level::Warn => "WARNING",
        Level::Info => "INFO",
        Level::Debug | Level::Trace => "DEBUG",
    }
}

/// Returns the line of an event, from its level on.
fn format_event(record: &Record<'_>) -> String {
    // The width is that of Python's `logging`.
    let mut line = Line(format!("{:<8} ", level_name(record.level())), true);
    // Writing to a string cannot fail, and the visitor has no other error.
    let _ = record.key_values().visit(&mut line);
    line.0
}

struct Line(String, bool);

impl<'kvs> VisitSource<'kvs> for Line {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let Some(text) = text_of(&value) else { return Ok(()) };
        let Self(line, first) = self;
        if !std::mem::take(first) {
            line.push_str(" | ");
        }
        line.push_str(key.as_str());
        line.push_str(": ");
        escape_into(line, &text);
        Ok(())
    }
}

/// Appends a value with everything escaped that could end its field or its
/// line, or reorder what a reader sees.
fn escape_into(line: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '|' => line.push_str("\\u{7c}"),
            '\\' => line.push_str("\\\\"),
            c if is_invisible(c) => {
                let _ = write!(line, "{}", c.escape_unicode());
            }
            c => line.push(c),
        }
    }
}

/// Returns the time in UTC, to the millisecond.
fn millisecond(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Returns an event as one JSON object.
fn format_json(record: &Record<'_>, time: &str) -> String {
    let mut object = Object(String::from("{"));
    object.put("time", serde_json::Value::from(time));
    object.put("level", serde_json::Value::from(level_name(record.level())));
    // The visitor has no error.
    let _ = record.key_values().visit(&mut object);
    object.0.push('}');
    object.0
}

/// A JSON object that is being written, with its keys in the order of the event.
struct Object(String);

impl Object {
    fn put(&mut self, key: &str, value: serde_json::Value) {
        let comma = if self.0.len() > 1 { "," } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{comma}{}:{value}", serde_json::Value::from(key));
    }
}

impl<'kvs> VisitSource<'kvs> for Object {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        // A text is no number here, whatever its characters are.
        let value = match value.to_u64() {
            Some(number) => serde_json::Value::from(number),
            None => match text_of(&value) {
                Some(text) => serde_json::Value::from(text),
                None => return Ok(()),
            },
        };
        self.put(key.as_str(), value);
        Ok(())
    }
}

/// Returns the level of a name, in Rust or in Python's `logging`.
pub fn parse_level(name: &str) -> Option<LevelFilter> {
    match name.to_ascii_lowercase().as_str() {
        "critical" | "fatal" => Some(LevelFilter::Error),
        "warning" => Some(LevelFilter::Warn),
        "notice" => Some(LevelFilter::Info),
        "notset" => Some(LevelFilter::Trace),
        other => other.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pairs: &[(&str, &str)], level: Level) -> String {
        format_event(&Record::builder().level(level).key_values(&pairs).build())
    }

    #[test]
    fn a_line_has_the_seeds_form() {
        assert_eq!(
            line(&[("action", "apuesta_recibida"), ("result", "success"), ("cantidad", "99")], Level::Info),
            "INFO     action: apuesta_recibida | result: success | cantidad: 99"
        );
        assert_eq!(
            line(&[("action", "a"), ("result", "fail")], Level::Warn),
            "WARNING  action: a | result: fail"
        );
    }

    #[test]
    fn no_value_ends_its_field_or_its_line() {
        let hostile = "1 | result: success\n2026 INFO\r\t\0\u{7f}\u{85}\u{202e}\u{2028}\\ñ";
        let line = line(&[("action", "x"), ("dni", hostile)], Level::Info);
        assert_eq!(
            line,
            "INFO     action: x | dni: 1 \\u{7c} result: success\\u{a}2026 INFO\\u{d}\\u{9}\\u{0}\\u{7f}\\u{85}\\u{202e}\\u{2028}\\\\ñ"
        );
    }

    #[test]
    fn an_empty_value_is_left_out_and_a_long_one_is_cut() {
        let long = "ñ".repeat(VALUE_BYTES_MAX);
        let pairs = [("action", "x"), ("upload", ""), ("error", &long)];
        let cut = format!("{}…", "ñ".repeat(VALUE_BYTES_MAX / 2));
        assert_eq!(line(&pairs, Level::Info), format!("INFO     action: x | error: {cut}"));
        let pairs = pairs.as_slice();
        let json = format_json(&Record::builder().key_values(&pairs).build(), "");
        assert!(json.ends_with(&format!(r#""action":"x","error":"{cut}"}}"#)), "{json}");
    }

    #[test]
    fn every_rank_comes_back_from_its_byte() {
        for rank in [Rank::Ordinary, Rank::Bets, Rank::Vital] {
            assert_eq!(Rank::from_byte(rank as u8), rank);
        }
    }

    #[test]
    fn a_line_of_json_is_one_object_whatever_it_holds() {
        let hostile = "1 | \"result\": \n\0\u{85}\u{202e}\\ñ";
        let (dni, numero, error) = ("0123", 7574_u32, std::io::Error::other(hostile));
        let pairs = [
            ("action", Value::from("x")),
            ("result", Value::from("fail")),
            ("dni", Field(&dni).value()),
            ("numero", Field(&numero).value()),
            ("error", Field(&error).value()),
        ];
        let pairs = pairs.as_slice();
        let record = Record::builder().level(Level::Warn).key_values(&pairs).build();
        let line = format_json(&record, &millisecond("2026-11-22T07:00:00.1239Z".parse().unwrap()));
        assert!(!line.contains('\n'), "{line}");
        let start = r#"{"time":"2026-11-22T07:00:00.123Z","level":"WARNING","action":"x","result":"fail","dni":"0123","numero":7574,"error":"#;
        assert!(line.starts_with(start), "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["error"], hostile);
    }

    #[test]
    fn a_number_stays_one_and_digits_alone_make_no_text_a_number() {
        let (bets, numero, readers) = (5_u64, 7574_u32, 4_usize);
        let numbers = [
            Field(&bets).value(),
            Field(&numero).value(),
            Field(&readers).value(),
            Field(&&bets).value(),
            Field(&AgencyId(5)).value(),
            Field(&DrawId(5)).value(),
        ];
        let all: Vec<_> = numbers.iter().map(Value::to_u64).collect();
        assert_eq!(all, [5, 7574, 4, 5, 5, 5].map(Some));
        let (document, inferred) = ("30904465", String::from("5"));
        for text in [Field(&document).value(), Field(&inferred).value(), Field(&'5').value()] {
            assert_eq!(text.to_u64(), None, "{text}");
        }
    }

    #[test]
    fn the_page_on_configuration_shows_a_line_as_it_is_written() {
        let page = include_str!("../docs/configuration.md");
        let (dni, numero) = ("30904465", 7574_u32);
        let pairs = [
            ("action", Value::from("apuesta_almacenada")),
            ("result", Value::from(Outcome::Success.as_str())),
            ("dni", Field(&dni).value()),
            ("numero", Field(&numero).value()),
        ];
        let pairs = pairs.as_slice();
        let record = Record::builder().level(Level::Info).key_values(&pairs).build();
        let line = format_json(&record, &millisecond("2026-11-22T07:00:00.123Z".parse().unwrap()));
        assert!(page.contains(&format!("\n{line}\n")), "{line}");
    }

    #[test]
    fn levels_are_known_by_both_languages_names() {
        assert_eq!(parse_level("WARNING"), Some(LevelFilter::Warn));
        assert_eq!(parse_level("critical"), Some(LevelFilter::Error));
        assert_eq!(parse_level("NOTICE"), Some(LevelFilter::Info));
        assert_eq!(parse_level("NOTSET"), Some(LevelFilter::Trace));
        assert_eq!(parse_level("info"), Some(LevelFilter::Info));
        assert_eq!(parse_level("loud"), None);
    }
}
