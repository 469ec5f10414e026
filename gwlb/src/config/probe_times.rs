//! How often a target is probed and how long a probe may take, in seconds or in milliseconds: the
//! same for health checks and for tunnel checks.

use std::ops::Range;
use std::time::Duration;

use router::source::Problem;

use super::field::Field;
use super::preset::Limit;
use super::reader::{Reader, in_words};
use super::values::OutOfRange;

/// The fastest and the slowest probes, in milliseconds. A probe every 50 ms finds out within a
/// tenth of a second what a second is too long for; faster ones would be load, not news.
const MILLISECONDS: (i64, i64) = (50, 300_000);

/// The keys of a table, as they stand in the file.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) interval_seconds: Field<i64>,
    pub(super) interval_ms: Field<i64>,
    pub(super) timeout_seconds: Field<i64>,
    pub(super) timeout_ms: Field<i64>,
}

/// What they may be.
#[derive(Debug)]
pub(super) struct Limits<'l> {
    /// Who says so, for messages.
    pub(super) authority: &'l str,
    /// In seconds.
    pub(super) interval: &'l Limit,
    /// In seconds.
    pub(super) timeout: &'l Limit,
    /// Whether `extended_ranges` is on.
    pub(super) extended: bool,
}

/// When a target is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProbeTimes {
    /// From the start of one probe to the start of the next.
    pub(super) interval: Duration,
    /// Not longer than the interval.
    pub(super) timeout: Duration,
}

/// Reads the four keys and compares them.
pub(super) fn check(reader: &mut Reader<'_>, fields: Fields, limits: &Limits<'_>) -> ProbeTimes {
    let keys = ["interval_seconds", "interval_ms"];
    let fields_of = [fields.interval_seconds, fields.interval_ms];
    let interval = time(reader, keys, fields_of, limits.interval, limits);
    let keys = ["timeout_seconds", "timeout_ms"];
    let fields_of = [fields.timeout_seconds, fields.timeout_ms];
    let timeout = time(reader, keys, fields_of, limits.timeout, limits);
    compare(reader, &interval, &timeout);
    ProbeTimes { interval: interval.value, timeout: timeout.value }
}

/// A time with a default, and where it was given, if it was.
#[derive(Debug)]
struct Time {
    value: Duration,
    span: Option<Range<usize>>,
    /// Whether the value only stands in for something that was not understood.
    wrong: bool,
}

fn time(
    reader: &mut Reader<'_>,
    [seconds_key, ms_key]: [&str; 2],
    [seconds, ms]: [Field<i64>; 2],
    limit: &Limit,
    limits: &Limits<'_>,
) -> Time {
    let given_twice = match (&seconds, &ms) {
        (Field::Given(seconds), Field::Given(ms)) => Some((seconds.span(), ms.span())),
        _ => None,
    };
    let twice = given_twice.is_some();
    if let Some((seconds, ms)) = given_twice {
        reader.report(
            Problem::at(ms, format!("`{seconds_key}` and `{ms_key}` say the same thing twice"))
                .label("once more, in milliseconds")
                .and(seconds, "in seconds")
                .help("leave one of them out"),
        );
    }
    let seconds = reader.limited(seconds_key, seconds, limit, limits.authority, limits.extended);
    if let Field::Absent = ms {
        let (value, span, wrong) = (seconds.seconds(), seconds.span, seconds.wrong);
        return Time { value, span, wrong };
    }
    let (least, most) = MILLISECONDS;
    let help = "from 50 ms to 5 minutes";
    let door = |number| OutOfRange::check::<u64>(number, least, most);
    let Some(ms) = reader.number(ms_key, ms, door, Some(help)) else {
        return Time { value: seconds.seconds(), span: None, wrong: true };
    };
    if !limits.extended {
        reader.report(
            ms.problem(format!("`{ms_key}` needs `extended_ranges`"))
                .label("milliseconds are beyond the ordinary ranges")
                .help(format!(
                    "add extended_ranges = true to this table, or write `{seconds_key}`"
                )),
        );
    }
    let span = Some(ms.span());
    Time { value: Duration::from_millis(*ms.get()), span, wrong: twice }
}

/// Semantics 1b: the interval "must be >= timeout".
fn compare(reader: &mut Reader<'_>, interval: &Time, timeout: &Time) {
    if interval.value >= timeout.value || interval.wrong || timeout.wrong {
        return;
    }
    // The defaults fit each other, so one of the two is in the file.
    let Some(place) = timeout.span.as_ref().or(interval.span.as_ref()) else { return };
    let problem = Problem::at(
        place.clone(),
        format!(
            "a probe may take {}, but the next one follows after {}",
            in_words(timeout.value),
            in_words(interval.value)
        ),
    )
    .label("the timeout is longer than the interval")
    .help(match timeout.span {
        Some(_) => "make the interval at least as long as the timeout",
        None => "give a timeout that is not longer than the interval, too",
    });
    reader.report(match (&timeout.span, &interval.span) {
        (Some(_), Some(interval)) => problem.and(interval.clone(), "the interval"),
        _ => problem,
    });
}
