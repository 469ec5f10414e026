//! Packet rates and throughput: figures, and how they came about.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect, Spacing};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Sparkline};

use super::grid::width;
use super::{FAINT, Palette, STRONG};
use crate::cli::top::figures;
use crate::cli::top::model::{BYTES_TO, Model, SERIES};
use crate::cli::top::view::View;

/// From here on, packets and bytes stand side by side.
const WIDE: u16 = 120;

const NAMES: [&str; SERIES] = ["packets in", "packets out", "to appliances", "from appliances"];

/// The longest name, and the longest rate, with a blank behind each.
const NAME: u16 = 16;
const RATE: u16 = 11;

/// How many rows it takes of an area.
pub(super) fn height(area: Rect) -> u16 {
    let lines = if area.width >= WIDE { 2 } else { 4 };
    1 + lines * of_each(area.height)
}

/// How high each line of bars is where the body has so many rows.
fn of_each(rows: u16) -> u16 {
    match rows {
        0..30 => 1,
        30..45 => 2,
        _ => 3,
    }
}

pub(super) fn draw(frame: &mut Frame, area: Rect, model: &Model, view: &View, palette: Palette) {
    let wide = area.width >= WIDE;
    let units: [&str; SERIES] =
        std::array::from_fn(|series| if series >= BYTES_TO { "B" } else { "pkt" });
    let totals: [String; SERIES] = std::array::from_fn(|series| {
        format!("{} {}", figures::exact(model.traffic[series].total), units[series])
    });
    let total = totals.iter().map(|total| width(total)).max().unwrap_or(0) as u16;
    let [title, inner] =
        area.layout(&Layout::vertical([Constraint::Length(1), Constraint::Min(0)]));
    let columns: [Rect; 2] = if wide {
        inner.layout(&Layout::horizontal([Constraint::Fill(1); 2]).spacing(Spacing::Space(4)))
    } else {
        inner.layout(&Layout::vertical([Constraint::Fill(1); 2]))
    };
    let bars = columns[0].width.saturating_sub(NAME + RATE + total + 1);
    let each = u64::try_from(view.interval.as_millis()).unwrap_or(u64::MAX);
    let histories: [Vec<Option<f64>>; SERIES] =
        std::array::from_fn(|series| model.history.columns(series, each, bars.into()));
    // What goes in and what comes out have one measure, so that they can be compared by eye.
    let highest = |first: usize| {
        let both = histories[first].iter().chain(&histories[first + 1]);
        both.copied().flatten().fold(0.0, f64::max)
    };
    let peaks = [highest(0), highest(2)];
    // It may have begun later than its first column.
    let seen = model.history.milliseconds().min(u64::from(bars) * each);
    let measure = match seen {
        0 => String::new(),
        seen => format!(
            " highest in the last {}: {}/s, {}/s ",
            figures::span(seen.div_ceil(1000)),
            figures::short(peaks[0]),
            figures::bytes(peaks[1]),
        ),
    };
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(FAINT)
        .title(Line::styled(" Traffic ", STRONG))
        .title(Line::styled(measure, Style::new()).right_aligned());
    frame.render_widget(block, title);
    for (pair, column) in columns.into_iter().enumerate() {
        let lines: [Rect; 2] = column.layout(&Layout::vertical([Constraint::Fill(1); 2]));
        for (way, line) in lines.into_iter().enumerate() {
            let series = pair * 2 + way;
            let [name, rate, spark, sum] = line.layout(&Layout::horizontal([
                Constraint::Length(NAME),
                Constraint::Length(RATE),
                Constraint::Min(0),
                Constraint::Length(total + 1),
            ]));
            let style = palette.ways()[way];
            frame.render_widget(Span::raw(NAMES[series]), name);
            let now = model.traffic[series].rate;
            let now = now.map_or_else(|| "-".to_owned(), |now| per_second(series, now));
            frame.render_widget(Line::styled(now + " ", STRONG).right_aligned(), rate);
            let peak = peaks[pair].max(f64::MIN_POSITIVE);
            let heights = histories[series].iter().map(|rate| rate.map(|rate| scale(rate, peak)));
            let sparkline = Sparkline::default().data(heights).max(SCALE).style(style);
            frame.render_widget(sparkline, spark);
            frame.render_widget(Line::raw(totals[series].clone()).right_aligned(), sum);
        }
    }
}

/// The height of the highest bar: bars have whole numbers, and rates may be less than one.
const SCALE: u64 = 1 << 20;

#[expect(clippy::cast_sign_loss, reason = "neither is negative")]
fn scale(rate: f64, peak: f64) -> u64 {
    (rate / peak * SCALE as f64) as u64
}

fn per_second(series: usize, rate: f64) -> String {
    if series >= BYTES_TO {
        format!("{}/s", figures::bytes(rate))
    } else {
        format!("{}/s", figures::short(rate))
    }
}
