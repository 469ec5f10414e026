//! What the scenes found, for people and for programs.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::lab::report::table;
use crate::lab::trial::Check;

/// A scene that was played.
#[derive(Clone, Debug, Serialize)]
pub(in crate::lab) struct Scene {
    /// One word: the second part of its checks' names.
    pub name: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// How long it took.
    pub seconds: f64,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What was checked.
    pub checks: Vec<Check>,
}

/// Something that was measured.
#[derive(Clone, Debug, Serialize)]
pub(in crate::lab) struct Figure {
    pub name: String,
    pub value: f64,
    /// `s`, `ms`, or what was counted.
    pub unit: &'static str,
    /// The most that it may be, where there is a limit.
    pub limit: Option<f64>,
}

impl Scene {
    pub(super) fn new(name: &'static str, title: &'static str) -> Self {
        Self { name, title, seconds: 0.0, figures: Vec::new(), checks: Vec::new() }
    }

    /// Judges something.
    pub(super) fn check(&mut self, what: &str, ok: bool, detail: impl Into<String>) {
        let name = format!("failover/{}/{what}", self.name);
        self.checks.push(if ok { Check::held(name, detail) } else { Check::failed(name, detail) });
    }

    /// Notes how many there were.
    pub(super) fn count(&mut self, name: impl Into<String>, count: usize, unit: &'static str) {
        let figure = Figure { name: name.into(), value: count as f64, unit, limit: None };
        self.figures.push(figure);
    }

    /// Notes a time, and how long it may be.
    pub(super) fn time(
        &mut self,
        name: impl Into<String>,
        time: Duration,
        limit: impl Into<Option<Duration>>,
    ) {
        let seconds = |time: Duration| (time.as_secs_f64() * 1e4).round() / 1e4;
        let limit = limit.into().map(seconds);
        let figure = Figure { name: name.into(), value: seconds(time), unit: "s", limit };
        self.figures.push(figure);
    }

    /// Whether all of it held.
    pub(in crate::lab) fn ok(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }

    /// A heading, the table of what was measured, and a line for each check.
    pub(in crate::lab) fn to_text(&self, number: usize) -> String {
        let verdict = if self.ok() { "PASS" } else { "FAIL" };
        // Writing to a string cannot fail.
        let mut text = format!("{verdict}  {number}. {} ({:.1} s)\n", self.title, self.seconds);
        let mut figures = table(&["measured", "", "", "at most"], 1);
        for figure in &self.figures {
            let decimals = if figure.unit == "s" { 3 } else { 0 };
            let limit = figure.limit.map(|limit| format!("{limit:.decimals$}"));
            figures.add_row([
                figure.name.clone(),
                format!("{:.decimals$}", figure.value),
                figure.unit.to_owned(),
                limit.unwrap_or_default(),
            ]);
        }
        if !self.figures.is_empty() {
            let _ = writeln!(text, "{figures}");
        }
        for check in &self.checks {
            let mark = if check.ok { "✓" } else { "✗" };
            let _ = writeln!(text, "  {mark} {}", check.detail);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_shows_figures_limits_and_what_failed() {
        let mut scene = Scene::new("death", "a dead appliance");
        scene.time("until the last new flow", Duration::from_millis(1234), Duration::from_secs(2));
        scene.count("connections", 200, "connections");
        scene.check("in-time", true, "it was in time");
        assert!(scene.ok());
        scene.check("moved", false, "three stayed");
        assert!(!scene.ok());
        assert_eq!(scene.checks[1].name, "failover/death/moved");
        insta::assert_snapshot!(scene.to_text(4));
    }
}
