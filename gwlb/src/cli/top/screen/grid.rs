//! Tables whose columns give way to each other where there is little room.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::Span;
use ratatui::widgets::{self, Row, Table, TableState};

use super::{FAINT, SELECTED};

/// A column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub title: &'static str,
    pub right: bool,
    /// How wide it is at least, so that it does not jump about with its figures.
    pub least: usize,
    /// Those with the largest number go first where there is too little room; 0: never.
    pub rank: u8,
}

/// What stands in a row and a column.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    pub text: String,
    pub style: Style,
}

impl Cell {
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: Style::new() }
    }

    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

/// Draws a table with its header, and the row that is `selected` so that it is seen. Where there is
/// one line alone, that is a row. Gives the number of the first row that is shown.
pub(super) fn draw(
    frame: &mut Frame,
    area: Rect,
    columns: &[Column],
    rows: &[Vec<Cell>],
    selected: Option<usize>,
    focused: bool,
) -> usize {
    let fitting = fit(columns, rows, area.width.into());
    let cell = |index: usize, text: &str, style: Style| {
        let text = Span::styled(cut(text, fitting.widths[index]), style);
        let line = ratatui::text::Line::from(text);
        let right = columns[fitting.columns[index]].right;
        widgets::Cell::from(if right { line.right_aligned() } else { line })
    };
    let row = |row: &Vec<Cell>| {
        let cells = fitting.columns.iter().enumerate();
        Row::new(cells.map(|(index, &column)| cell(index, &row[column].text, row[column].style)))
    };
    let titles = fitting.columns.iter().enumerate();
    let header = Row::new(titles.map(|(index, &it)| cell(index, columns[it].title, FAINT)));
    let widths = fitting.widths.iter().map(|width| Constraint::Length(*width as u16));
    let table = Table::new(rows.iter().map(row), widths)
        .column_spacing(fitting.gap as u16)
        .row_highlight_style(if focused { SELECTED } else { Style::new() });
    let table = if has_header(area) { table.header(header) } else { table };
    let mut state = TableState::new().with_selected(selected);
    frame.render_stateful_widget(table, area, &mut state);
    state.offset()
}

/// How many rows there is room for in an area.
pub(super) fn room(area: Rect) -> usize {
    usize::from(area.height) - usize::from(has_header(area))
}

fn has_header(area: Rect) -> bool {
    area.height > 1
}

/// The columns that have a place, and how wide they are.
#[derive(Debug, PartialEq)]
struct Fitting {
    columns: Vec<usize>,
    widths: Vec<usize>,
    gap: usize,
}

fn fit(columns: &[Column], rows: &[Vec<Cell>], room: usize) -> Fitting {
    // A column that says nothing in any row needs no place.
    let says = |index: usize| {
        columns[index].rank == 0 || rows.iter().any(|row| !row[index].text.is_empty())
    };
    let mut chosen: Vec<usize> = (0..columns.len()).filter(|&index| says(index)).collect();
    let needs = |index: usize| {
        let cells = rows.iter().map(|row| width(&row[index].text)).max().unwrap_or(0);
        cells.max(columns[index].least).max(width(columns[index].title))
    };
    let all = |chosen: &[usize], gap: usize| {
        let widths: usize = chosen.iter().map(|&index| needs(index)).sum();
        widths + gap * chosen.len().saturating_sub(1)
    };
    while all(&chosen, 1) > room {
        let last = chosen.iter().enumerate().max_by_key(|(_, it)| (columns[**it].rank, **it));
        match last {
            Some((place, &index)) if columns[index].rank > 0 => chosen.remove(place),
            _ => break,
        };
    }
    let gap = (2..=4).rev().find(|&gap| all(&chosen, gap) <= room).unwrap_or(1);
    let mut widths: Vec<usize> = chosen.iter().map(|&index| needs(index)).collect();
    // What still is too much is taken from the widest.
    while widths.iter().sum::<usize>() + gap * widths.len().saturating_sub(1) > room {
        match widths.iter_mut().max() {
            Some(widest) if *widest > 1 => *widest -= 1,
            _ => break,
        }
    }
    Fitting { columns: chosen, widths, gap }
}

/// A text that is cut off has a sign of it at its end.
pub(super) fn cut(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut kept = String::new();
    for letter in text.chars() {
        kept.push(letter);
        if width(&kept) >= room {
            kept.pop();
            break;
        }
    }
    kept.push('…');
    kept
}

/// A text in lines of so many columns, broken between words.
pub(super) fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if width(line) + 1 + width(word) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// How many columns a text takes.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn column(title: &'static str, least: usize, rank: u8) -> Column {
        Column { title, right: false, least, rank }
    }

    const COLUMNS: [Column; 4] =
        [column("name", 0, 0), column("zone", 0, 2), column("flows", 8, 1), column("note", 0, 3)];

    fn rows(names: &[&str]) -> Vec<Vec<Cell>> {
        let row =
            |name: &&str| vec![Cell::new(*name), Cell::new("az1"), Cell::new("7"), Cell::default()];
        names.iter().map(row).collect()
    }

    #[test]
    fn columns_give_way_in_their_order() {
        let rows = rows(&["vpce-a", "b"]);
        let fitted = |room| {
            let Fitting { columns, widths, gap } = fit(&COLUMNS, &rows, room);
            (columns, widths, gap)
        };
        assert_eq!(fitted(80), (vec![0, 1, 2], vec![6, 4, 8], 4), "no column without a text");
        assert_eq!(fitted(22), (vec![0, 1, 2], vec![6, 4, 8], 2));
        assert_eq!(fitted(20), (vec![0, 1, 2], vec![6, 4, 8], 1));
        assert_eq!(fitted(19), (vec![0, 2], vec![6, 8], 4));
        assert_eq!(fitted(14), (vec![0], vec![6], 4));
        assert_eq!(fitted(4), (vec![0], vec![4], 1));
        assert_eq!(fitted(0), (vec![0], vec![1], 1));
    }

    #[test]
    fn texts_are_broken_between_words() {
        assert_eq!(wrapped("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrapped("longer than that", 4), ["longer", "than", "that"]);
        assert_eq!(wrapped("", 4), [""]);
    }

    #[test]
    fn what_is_cut_off_says_so() {
        assert_eq!(cut("192.0.2.11", 10), "192.0.2.11");
        assert_eq!(cut("192.0.2.11", 9), "192.0.2.…");
        assert_eq!(cut("東京東京", 6), "東京…");
        assert_eq!(cut("ab", 1), "…");
    }
}
