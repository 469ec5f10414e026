//! What a benchmark says while it measures: a bar of its steps, on stderr.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Shows how far it is.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Nothing of so many steps is done.
    pub(super) fn new(steps: usize) -> Self {
        // Without a terminal indicatif draws nothing; finished steps are printed all the same.
        let bar = ProgressBar::new(steps as u64);
        if let Ok(style) =
            ProgressStyle::with_template("[{elapsed_precise}] {bar:30} {pos}/{len} {wide_msg}")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar }
    }

    /// What is being measured now.
    pub(super) fn doing(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }

    /// A step is done; without a terminal, its result is told as a line.
    pub(super) fn done(&self, what: &str) {
        self.bar.inc(1);
        if self.bar.is_hidden() {
            let (done, steps) = (self.bar.position(), self.bar.length().unwrap_or(0));
            eprintln!("[{done}/{steps}] {what}");
        }
    }

    /// A line for the user.
    pub(super) fn say(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
