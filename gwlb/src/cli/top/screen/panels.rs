//! The panels with rows.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::symbols::border;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};

use super::grid::{self, Cell, Column, cut, width, wrapped};
use super::{FAINT, Palette, STRONG};
use crate::cli::top::answers::Event;
use crate::cli::top::figures;
use crate::cli::top::model::{DropRow, EndpointRow, Model, Row, TargetRow};
use crate::cli::top::view::{Panel, View, orders};

/// How many lines say more of the selected row at most.
const DETAIL: usize = 3;

/// How many rows of the screen a panel would fill.
pub(super) fn height(panel: Panel, model: &Model, view: &View, width: u16) -> u16 {
    let listing = view.listing(panel);
    let rows = match panel {
        Panel::Targets => {
            let remark = remark(model, view).map(|remark| lines(&remark, width, DETAIL).len());
            listing.rows(&model.targets).len() + remark.unwrap_or(0)
        }
        Panel::Endpoints => listing.rows(&model.endpoints).len(),
        Panel::Drops => listing.rows(&model.drops).len(),
        Panel::Events => listing.rows(&model.events).len(),
    };
    // The title, and the names of the columns.
    u16::try_from(rows + 2).unwrap_or(u16::MAX)
}

pub(super) fn draw(
    frame: &mut Frame,
    area: Rect,
    panel: Panel,
    model: &Model,
    view: &View,
    palette: Palette,
) {
    let mut panel = Shown { area, panel, view, palette };
    match panel.panel {
        Panel::Targets => panel.targets(frame, model),
        Panel::Endpoints => {
            let none = "The gateway counts no endpoints.";
            panel.list(frame, &ENDPOINTS, &model.endpoints, none, |row, _| endpoint(row, palette));
        }
        Panel::Drops => {
            let none = "Nothing was dropped yet.";
            panel.list(frame, &DROPS, &model.drops, none, |row, _| drop(row, palette));
        }
        Panel::Events => {
            let none = match model.tells_events {
                Some(false) => "This gateway tells of no events.",
                _ => "There were no events yet.",
            };
            if let Some(event) = cut_event(model, view, area.width) {
                // Its row says what the names of the columns would.
                panel.detail(frame, &event.text, Style::new(), 2);
            }
            panel.list(frame, &EVENTS, &model.events, none, |row, _| event(row, palette));
        }
    }
}

/// A panel and its place.
struct Shown<'a> {
    area: Rect,
    panel: Panel,
    view: &'a View,
    palette: Palette,
}

impl Shown<'_> {
    fn targets(mut self, frame: &mut Frame, model: &Model) {
        let several = |of: fn(&TargetRow) -> &str| {
            model.targets.iter().any(|target| of(target) != of(&model.targets[0]))
        };
        let (groups, zones) = (several(|row| &row.group), several(|row| &row.zone));
        if let Some(remark) = remark(model, self.view) {
            self.detail(frame, &remark, self.palette.between(), 4);
        }
        let palette = self.palette;
        self.list(frame, &TARGETS, &model.targets, "There are no targets.", |row, _| {
            target(row, groups, zones, palette)
        });
    }

    /// Says more of the selected row, in lines below all rows; so many lines of the panel remain.
    fn detail(&mut self, frame: &mut Frame, text: &str, style: Style, remain: u16) {
        let room = usize::from(self.area.height.saturating_sub(remain)).min(DETAIL);
        let lines = lines(text, self.area.width, room);
        let height = lines.len() as u16;
        self.area.height -= height;
        let below = Rect { y: self.area.bottom(), height, ..self.area };
        let lines: Vec<_> = lines.into_iter().map(|line| Line::styled(line, style)).collect();
        frame.render_widget(Paragraph::new(lines), below);
    }

    fn list<'r, R: Row + 'r>(
        &self,
        frame: &mut Frame,
        columns: &[Column],
        rows: impl IntoIterator<Item = &'r R>,
        none: &str,
        cells: impl Fn(&R, usize) -> Vec<Cell>,
    ) {
        let listing = self.view.listing(self.panel);
        let focused = self.view.focus == self.panel;
        let mut all = 0;
        let shown = listing.rows(rows.into_iter().inspect(|_| all += 1));
        let inner =
            Rect { y: self.area.y + 1, height: self.area.height.saturating_sub(1), ..self.area };
        let room = grid::room(inner);
        let mut first = 0;
        if shown.is_empty() {
            let none = match listing.filter.as_str() {
                "" => none.to_owned(),
                filter => format!("Of {all}, none has \"{filter}\" in it."),
            };
            let text = cut(&none, inner.width.into());
            frame.render_widget(Span::styled(text, FAINT), inner);
        } else {
            let rows: Vec<_> =
                shown.iter().enumerate().map(|(index, row)| cells(row, index)).collect();
            let place = listing.place(&shown).filter(|_| focused);
            first = grid::draw(frame, inner, columns, &rows, place, focused);
        }
        let title = self.title(shown.len(), all, first, room);
        frame.render_widget(title, Rect { height: 1, ..self.area });
    }

    /// Its name, and which rows are seen in which order.
    fn title(&self, shown: usize, all: usize, first: usize, room: usize) -> Block<'static> {
        let listing = self.view.listing(self.panel);
        let mut notes = Vec::new();
        if shown > room && room > 0 {
            notes.push(format!("{}-{} of {shown}", first + 1, (first + room).min(shown)));
        }
        if !listing.filter.is_empty() {
            notes.push(format!("\"{}\" in {shown} of {all}", listing.filter));
        }
        if listing.order > 0 {
            notes.push(format!("by {}", orders(self.panel)[listing.order]));
        }
        if listing.reversed {
            notes.push("reversed".to_owned());
        }
        let focused = self.view.focus == self.panel;
        let (set, style) =
            if focused { (border::THICK, Style::new()) } else { (border::PLAIN, FAINT) };
        let mut block = Block::new()
            .borders(Borders::TOP)
            .border_set(set)
            .border_style(style)
            .title(Line::styled(format!(" {} ", self.panel.name()), STRONG));
        if !notes.is_empty() {
            let notes = format!(" {} ", notes.join(", "));
            block = block.title(Line::styled(notes, Style::new()).right_aligned());
        }
        block
    }
}

/// A text in so many lines at most.
pub(super) fn lines(text: &str, width: u16, most: usize) -> Vec<String> {
    let mut lines = wrapped(text, width.into());
    let rest = lines.split_off(most.saturating_sub(1).min(lines.len()));
    // What is too much for the last line is cut off there, with a sign.
    lines.extend((most > 0 && !rest.is_empty()).then(|| rest.join(" ")));
    lines.into_iter().map(|line| cut(&line, width.into())).collect()
}

/// The selected event, if its row is too short for it.
fn cut_event<'a>(model: &'a Model, view: &View, room: u16) -> Option<&'a Event> {
    let listing = view.listing(Panel::Events);
    let rows = listing.rows(&model.events);
    let event = listing.place(&rows).filter(|_| view.focus == Panel::Events).map(|at| rows[at])?;
    // Time, gap and mark take so much of a row.
    (width(&event.text) + 20 > room.into()).then_some(event)
}

/// What is to be said of the selected target, if anything is.
fn remark(model: &Model, view: &View) -> Option<String> {
    let target = view.selected(model).filter(|_| view.focus == Panel::Targets)?;
    let remark = target.remark.as_ref()?;
    let reason = target.reason.as_ref().map(|reason| format!("{reason}: ")).unwrap_or_default();
    Some(format!("{}: {reason}{remark}", target.address))
}

const fn left(title: &'static str, rank: u8) -> Column {
    Column { title, right: false, least: 0, rank }
}

const fn number(title: &'static str, least: usize, rank: u8) -> Column {
    Column { title, right: true, least, rank }
}

const TARGETS: [Column; 13] = [
    left("target", 0),
    left("group", 5),
    left("zone", 7),
    left("state", 0),
    number("flows", 6, 0),
    number("share", 5, 2),
    number("pkt/s", 6, 1),
    number("bytes/s", 7, 1),
    number("back pkt/s", 6, 8),
    number("back bytes/s", 7, 8),
    number("weight", 0, 6),
    number("probe", 6, 3),
    number("appliance", 6, 4),
];

fn target(row: &TargetRow, groups: bool, zones: bool, palette: Palette) -> Vec<Cell> {
    let state = match row.state.as_str() {
        "healthy" => palette.good(),
        "unhealthy" => palette.bad(),
        _ => palette.between(),
    };
    let standing = match &row.draining {
        Some(draining) => {
            format!("{} {:.0} s", row.state, draining.seconds_left.ceil())
        }
        None => row.state.clone(),
    };
    let weight = if row.effective_weight == row.weight {
        row.weight.to_string()
    } else {
        format!("{} of {}", row.effective_weight, row.weight)
    };
    let only = |wanted: bool, text: &str| Cell::new(if wanted { text } else { "" });
    vec![
        Cell::new(&row.address),
        only(groups, &row.group),
        only(zones, &row.zone),
        Cell::styled(standing, state),
        Cell::new(figures::exact(row.flows)),
        known(row.share, figures::percent),
        known(row.packets_to, figures::short),
        known(row.bytes_to, figures::bytes),
        known(row.packets_back, figures::short),
        known(row.bytes_back, figures::bytes),
        Cell::new(weight),
        maybe(row.probe, figures::delay),
        maybe(row.appliance, figures::delay),
    ]
}

const ENDPOINTS: [Column; 8] = [
    left("endpoint", 0),
    left("group", 5),
    left("zone", 4),
    left("state", 1),
    number("flows", 5, 1),
    number("pkt/s", 6, 1),
    number("bytes/s", 7, 3),
    number("drops/s", 6, 2),
];

fn endpoint(row: &EndpointRow, palette: Palette) -> Vec<Cell> {
    let standing = match row.standing {
        "active" => palette.good(),
        "abnormal" => palette.bad(),
        _ => Style::new(),
    };
    let counted = |rate: Option<f64>, text: fn(f64) -> String| match row.flows {
        Some(_) => known(rate, text),
        None => Cell::default(),
    };
    let dropped = counted(row.dropped, figures::short);
    vec![
        Cell::new(&row.endpoint),
        Cell::new(row.group.clone().unwrap_or_default()),
        Cell::new(&row.zone),
        Cell::styled(row.standing, standing),
        Cell::new(row.flows.map(figures::exact).unwrap_or_default()),
        counted(row.packets, figures::short),
        counted(row.bytes, figures::bytes),
        Cell { style: alarm(row.dropped, palette), ..dropped },
    ]
}

const DROPS: [Column; 3] = [left("dropped", 0), number("per s", 6, 0), number("in all", 7, 0)];

fn drop(row: &DropRow, palette: Palette) -> Vec<Cell> {
    let style = alarm(row.count.rate, palette);
    vec![
        Cell::styled(&row.reason, style),
        Cell { style, ..known(row.count.rate, figures::short) },
        Cell::new(figures::exact(row.count.total)),
    ]
}

const EVENTS: [Column; 2] = [left("UTC", 0), left("event", 0)];

fn event(row: &Event, palette: Palette) -> Vec<Cell> {
    let warning = row.severity != "info";
    let style = if warning { palette.bad() } else { Style::new() };
    // Month, day and the time to the second.
    let time = row.time.get(5..19).map_or_else(|| row.time.clone(), |time| time.replace('T', " "));
    let mark = if warning { "! " } else { "" };
    vec![Cell::new(time), Cell::styled(format!("{mark}{}", row.text), style)]
}

/// What happens now is marked.
fn alarm(rate: Option<f64>, palette: Palette) -> Style {
    if rate.is_some_and(|rate| rate > 0.0) { palette.bad() } else { Style::new() }
}

/// A figure, or a sign that it is not known yet.
fn known(figure: Option<f64>, text: fn(f64) -> String) -> Cell {
    Cell::new(figure.map_or_else(|| "-".to_owned(), text))
}

/// A figure, or nothing where there is none.
fn maybe(figure: Option<f64>, text: fn(f64) -> String) -> Cell {
    Cell::new(figure.map(text).unwrap_or_default())
}
