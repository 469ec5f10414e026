//! The lines above and below the panels.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::grid::{cut, width, wrapped};
use super::{Palette, STRONG};
use crate::cli::top::figures;
use crate::cli::top::model::Model;
use crate::cli::top::view::{Deed, Mode, View};

/// From here on, an answer is late.
const LATE: Duration = Duration::from_secs(2);

/// How many lines of notices there are at most.
const NOTICES: usize = 4;

pub(super) fn header(frame: &mut Frame, area: Rect, model: &Model, view: &View, palette: Palette) {
    let room = usize::from(area.width);
    let late = view.waiting.filter(|waiting| *waiting >= LATE);
    let right = match (late, &model.trouble, view.paused) {
        (Some(late), ..) => {
            let late = figures::span(late.as_secs());
            Span::styled(format!("NO ANSWER for {late}"), palette.bad())
        }
        (None, _, true) => Span::styled("PAUSED", palette.between().patch(STRONG)),
        (None, Some(_), false) => Span::styled("NO ANSWER", palette.bad()),
        (None, None, false) => Span::raw(format!("every {}", figures::interval(view.interval))),
    };
    let mut left = vec![Span::styled("gwlb", STRONG)];
    if let Some(status) = &model.status {
        left[0] = Span::styled(format!("gwlb {}", status.version), STRONG);
        let running = status.state == "running";
        let state = if running { palette.good() } else { palette.between().patch(STRONG) };
        left.push(Span::styled(status.state.clone(), state));
        let one = |count: u64, one: &str, many: &str| {
            format!("{} {}", figures::exact(count), if count == 1 { one } else { many })
        };
        left.push(Span::raw(format!("up {}", figures::span(status.uptime_seconds))));
        left.push(Span::raw(one(status.active_flows, "flow", "flows")));
        left.push(Span::raw(one(status.workers as u64, "worker", "workers")));
    }
    left.push(Span::raw(view.place.clone()));
    // The first tell most.
    let used = |left: &[Span]| left.iter().map(|span| span.width() + 2).sum::<usize>();
    while left.len() > 1 && used(&left) + right.width() > room {
        left.pop();
    }
    let left: Vec<_> = left.into_iter().flat_map(|span| [span, Span::raw("  ")]).collect();
    frame.render_widget(Line::from(left), area);
    let end = Rect {
        x: area.right().saturating_sub(right.width() as u16),
        width: right.width() as u16,
        ..area
    };
    frame.render_widget(right, end);
}

/// What nobody should overlook: why there is no answer, and what the gateway warns of.
pub(super) fn notices(model: &Model, room: u16, palette: Palette) -> Vec<Line<'static>> {
    let Some(status) = &model.status else { return Vec::new() };
    let mut notices: Vec<String> = Vec::new();
    if let Some(trouble) = &model.trouble {
        notices.extend(trouble.lines().flat_map(|line| wrapped(line, room.into())));
    }
    let warnings = status.warnings.iter().map(|warning| format!("! {warning}"));
    notices.extend(warnings.flat_map(|warning| wrapped(&warning, room.into())));
    let more = notices.len().saturating_sub(NOTICES);
    if more > 0 {
        notices.truncate(NOTICES - 1);
        notices.push("! and more: `gwlb status` has it all".to_owned());
    }
    let line = |text: String| Line::styled(cut(&text, room.into()), palette.bad());
    notices.into_iter().map(line).collect()
}

/// What came of the last key.
pub(super) fn message(view: &View, room: u16, palette: Palette) -> Option<Line<'static>> {
    let message = view.message.as_ref()?;
    let style = if message.bad { palette.bad() } else { STRONG };
    // A refusal may have several lines.
    Some(Line::styled(cut(&message.text.replace('\n', " "), room.into()), style))
}

/// Says when the gateway is asked again.
pub(super) fn again(view: &View) -> String {
    if view.paused {
        return "It is not asked again before p is pressed; q quits.".to_owned();
    }
    format!("It is asked again every {}; q quits.", figures::interval(view.interval))
}

pub(super) fn footer(frame: &mut Frame, area: Rect, model: &Model, view: &View) {
    let pause = if view.paused { ("p", "go on") } else { ("p", "pause") };
    let keys: &[(&str, &str)] = match &view.mode {
        Mode::Filtering { .. } => {
            let filter = &view.listing(view.focus).filter;
            let prompt = format!("{} with: {filter}", view.focus.name());
            let spans = vec![
                Span::styled(prompt, STRONG),
                Span::styled("_", STRONG),
                Span::raw("   Enter keeps it, Esc takes it back, Ctrl-U clears it"),
            ];
            return frame.render_widget(Line::from(spans), area);
        }
        Mode::Asking(question) => match question.what {
            Deed::Drain => &[("Enter y", "drain it"), ("Esc n", "leave it as it is")],
            Deed::Register => &[("Enter y", "register it again"), ("Esc n", "leave it as it is")],
        },
        Mode::Helping => &[("any key", "closes this")],
        Mode::Watching if model.status.is_none() => &[("q", "quit"), pause],
        Mode::Watching => {
            let deed = match view.selected(model) {
                Some(target) if target.may_return() => ("r", "register"),
                _ => ("d", "drain"),
            };
            &keys(deed, pause)
        }
    };
    let mut spans = Vec::new();
    let mut used = 0;
    for (key, what) in keys {
        let needs = width(key) + 1 + width(what);
        if used + needs > area.width.into() {
            break;
        }
        used += needs + 2;
        spans.push(Span::styled(*key, STRONG));
        spans.push(Span::styled(format!(" {what}  "), Style::new()));
    }
    frame.render_widget(Line::from(spans), area);
}

type Key = (&'static str, &'static str);

/// The most important first: of a narrow terminal the others run out.
const fn keys(deed: Key, pause: Key) -> [Key; 11] {
    [
        ("q", "quit"),
        ("?", "help"),
        ("↑↓", "select"),
        ("Tab", "panel"),
        ("s", "sort"),
        ("/", "filter"),
        deed,
        pause,
        ("+ -", "interval"),
        ("S", "reverse"),
        ("z", "panel alone"),
    ]
}
