//! What the lab says while it works: one line per step, on stderr, with a spinner on a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::runtime::clock;

/// Shows steps, and remembers when they were done.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    start: Instant,
    timeline: Vec<Event>,
    second_act: bool,
}

/// Something that was done.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Event {
    /// Seconds since the start.
    #[serde(rename = "t")]
    pub seconds: f64,
    /// What.
    #[serde(rename = "event")]
    pub what: String,
    /// Whether it belongs to the second act.
    #[serde(skip)]
    pub second_act: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        // Without a terminal indicatif draws nothing; finished steps are printed all the same.
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, start: clock::now(), timeline: Vec::new(), second_act: false }
    }

    /// What is being done now.
    pub(super) fn doing(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }

    /// A step that is done.
    pub(super) fn done(&mut self, what: impl Into<String>) {
        self.happened(clock::now(), what);
    }

    /// Something that happened at this time, which may be a little while ago.
    pub(super) fn happened(&mut self, at: Instant, what: impl Into<String>) {
        let what = what.into();
        let seconds = at.saturating_duration_since(self.start).as_secs_f64();
        self.say(&format!("{seconds:7.2} s  {what}"));
        let seconds = (seconds * 1e3).round() / 1e3;
        let behind = self.timeline.iter().rposition(|earlier| earlier.seconds <= seconds);
        let event = Event { seconds, what, second_act: self.second_act };
        self.timeline.insert(behind.map_or(0, |index| index + 1), event);
    }

    /// What happens from now on belongs to the second act.
    pub(super) fn second_act(&mut self) {
        self.second_act = true;
    }

    /// A line for the user.
    fn say(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// Takes the spinner away, for other output.
    pub(super) fn hide(&self) {
        self.bar.set_message("");
        self.bar.finish_and_clear();
    }

    /// What was done, in order.
    pub(super) fn timeline(&self) -> &[Event] {
        &self.timeline
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
