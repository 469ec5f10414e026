//! How a line of the log is written: for people, and for programs.
//!
//! A line that tells an event has the whole event in its field `event_json`. Programs get what is in
//! there as fields of the line, beside the message; people get the message alone, which says it.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The field that has an event, as an object of JSON.
const EVENT: &str = "event_json";

/// Writes the fields of a line for people, the message first.
pub(super) struct ForPeople;

impl<'a> FormatFields<'a> for ForPeople {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'a>, fields: R) -> fmt::Result {
        let mut shown = Shown(DefaultVisitor::new(writer, true));
        fields.record(&mut shown);
        shown.0.finish()
    }
}

/// Shows all fields but the event.
struct Shown<'a>(DefaultVisitor<'a>);

impl Visit for Shown<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != EVENT {
            self.0.record_str(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.record_error(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.record_debug(field, value);
    }
}

/// Writes each line as an object of JSON.
pub(super) struct ForPrograms;

/// A line for programs.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'static str,
    /// Which part of the program says it. It is `target` elsewhere, which is what an event calls the
    /// target that it tells of.
    module: &'a str,
    message: String,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl<S, N> FormatEvent<S, N> for ForPrograms
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        told: &tracing::Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut fields = Fields::default();
        told.record(&mut fields);
        let Fields { message, others } = fields;
        let about = told.metadata();
        let level = about.level().as_str();
        let line = Line { timestamp, level, module: about.target(), message, others };
        let line = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

/// What a line says.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.others.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            EVENT => match serde_json::from_str(value) {
                Ok(Value::Object(event)) => self.others.extend(event),
                _ => self.insert(field, value),
            },
            _ => self.insert(field, value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::written;

    #[test]
    fn a_line_has_its_fields_for_people_and_for_programs() {
        let tell = || {
            let (error, absent) = (std::io::Error::other("it is \"gone\""), None::<u64>);
            tracing::warn!(worker = 3_usize, %error, done = true, after = 0.5, absent, "no\tway");
        };
        let shown = written(true, tell);
        let (_, shown) = shown.trim_end().split_once(' ').unwrap();
        let shown = shown.trim_start();
        assert_eq!(shown, "WARN no\tway worker=3 error=it is \"gone\" done=true after=0.5");
        let line = written(false, tell);
        assert!(line.ends_with("}\n") && line.lines().count() == 1, "{line}");
        let mut line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let timestamp = line.as_object_mut().unwrap().remove("timestamp").unwrap();
        assert!(timestamp.as_str().is_some_and(|it| it.ends_with('Z')), "{timestamp}");
        let whole = json!({
            "level": "WARN", "module": module_path!(), "message": "no\tway",
            "worker": 3, "error": "it is \"gone\"", "done": true, "after": 0.5,
        });
        assert_eq!(line, whole);
    }
}
