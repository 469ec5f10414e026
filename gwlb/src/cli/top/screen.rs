//! What the model looks like on a terminal.
//!
//! Everything is said in words or figures; colours only repeat it. Only the terminal's own sixteen
//! are used, and never as a background, so that it is readable on light and dark ones.

mod boxes;
mod frame;
mod grid;
mod panels;
mod traffic;

#[cfg(test)]
mod tests;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Wrap};

use super::model::Model;
use super::view::{Mode, Panel, View};

/// The smallest terminal on which everything has a place: columns and rows.
const LEAST: (u16, u16) = (60, 18);

/// Which styles there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Palette {
    /// Whether there are colours.
    pub colour: bool,
}

impl Palette {
    /// All is well.
    fn good(self) -> Style {
        self.of(Color::Green)
    }

    /// Something is wrong.
    fn bad(self) -> Style {
        self.of(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Something is on its way from one to the other.
    fn between(self) -> Style {
        self.of(Color::Magenta)
    }

    /// What comes in, and what goes out.
    fn ways(self) -> [Style; 2] {
        [self.of(Color::Cyan), self.of(Color::Green)]
    }

    fn of(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }
}

/// What names something.
const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);
/// What is only there to be found when it is looked for.
const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
/// What is selected.
const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Draws it all.
pub(super) fn draw(frame: &mut Frame, model: &Model, view: &View, palette: Palette) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        return too_small(frame);
    }
    let notices = frame::notices(model, area.width, palette);
    let message = frame::message(view, area.width, palette);
    let [top, above, body, below, bottom] = area.layout(&Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(notices.len() as u16),
        Constraint::Min(0),
        Constraint::Length(message.is_some().into()),
        Constraint::Length(1),
    ]));
    frame::header(frame, top, model, view, palette);
    frame.render_widget(Paragraph::new(notices), above);
    if let Some(message) = message {
        frame.render_widget(message, below);
    }
    frame::footer(frame, bottom, model, view);
    if model.status.is_none() {
        return nobody(frame, body, model, view, palette);
    }
    panels(frame, body, model, view, palette);
    match &view.mode {
        Mode::Asking(question) => boxes::question(frame, body, model, question),
        Mode::Helping => boxes::help(frame, body),
        Mode::Watching | Mode::Filtering { .. } => {}
    }
}

fn panels(frame: &mut Frame, area: Rect, model: &Model, view: &View, palette: Palette) {
    let draw = |frame: &mut Frame, panel, area| {
        panels::draw(frame, area, panel, model, view, palette);
    };
    let [upper, lower] = area
        .layout(&Layout::vertical([Constraint::Length(traffic::height(area)), Constraint::Min(0)]));
    traffic::draw(frame, upper, model, view, palette);
    if view.alone {
        return draw(frame, view.focus, lower);
    }
    let wants = |panel| panels::height(panel, model, view, lower.width);
    let of = |part: u16| lower.height * part / 100;
    // Each gets what it needs, as long as it leaves something to those below it.
    let targets = wants(Panel::Targets).clamp(4, of(45).max(4));
    let middle = wants(Panel::Endpoints).max(wants(Panel::Drops)).clamp(4, of(30).max(4));
    let [first, second, third] = lower.layout(&Layout::vertical([
        Constraint::Length(targets),
        Constraint::Length(middle),
        Constraint::Min(0),
    ]));
    let [left, right] = second
        .layout(&Layout::horizontal([Constraint::Percentage(50), Constraint::Min(0)]).spacing(2));
    draw(frame, Panel::Targets, first);
    draw(frame, Panel::Endpoints, left);
    draw(frame, Panel::Drops, right);
    draw(frame, Panel::Events, third);
}

/// There is no gateway yet: says what is known of that.
fn nobody(frame: &mut Frame, area: Rect, model: &Model, view: &View, palette: Palette) {
    let mut lines = vec![Line::raw("")];
    match &model.trouble {
        Some(trouble) => {
            let mut said = trouble.lines().map(str::to_owned);
            lines.extend(said.next().map(|first| Line::styled(first, palette.bad())));
            lines.push(Line::raw(""));
            lines.extend(said.map(Line::raw));
            lines.push(Line::raw(""));
            lines.push(Line::raw(frame::again(view)));
        }
        None => lines.push(Line::raw(format!("Asking the gateway at {} ...", view.place))),
    }
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
}

fn too_small(frame: &mut Frame) {
    let Rect { width, height, .. } = frame.area();
    let (columns, rows) = LEAST;
    let text = format!(
        "This terminal has {width}x{height} characters, and gwlb top needs {columns}x{rows}. Make \
         it larger, or leave with q and see `gwlb status`."
    );
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), frame.area());
}
