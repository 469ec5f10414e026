//! What stands in front of the panels for a moment: a question, and the help.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Padding, Paragraph};

use super::{STRONG, grid};
use crate::cli::top::figures;
use crate::cli::top::model::Model;
use crate::cli::top::view::{Deed, Question};

/// How many characters a line of text has: with the border, as many as the smallest terminal.
const WIDTH: usize = 56;

/// Asks, and says what will happen.
pub(super) fn question(frame: &mut Frame, area: Rect, model: &Model, question: &Question) {
    let Question { what, group, address } = question;
    let has = model.target(group, address).map_or(0, |target| target.flows);
    let (title, mut lines) = match what {
        Deed::Drain => (" Drain a target? ", drain(model, question, has)),
        Deed::Register => (" Register a target again? ", register(model, question, has)),
    };
    let facts = [("target", address.as_str()), ("target group", group)];
    let mut text: Vec<Line> = facts.iter().map(|(name, fact)| fact_line(name, fact)).collect();
    text.append(&mut lines);
    let keys = match what {
        Deed::Drain => ["drain it", "leave it"],
        Deed::Register => ["register it", "leave it"],
    };
    text.push(Line::raw(""));
    text.push(Line::from(vec![
        Span::styled("Enter", STRONG),
        Span::raw(" or "),
        Span::styled("y", STRONG),
        Span::raw(format!(" {}     ", keys[0])),
        Span::styled("Esc", STRONG),
        Span::raw(" or "),
        Span::styled("n", STRONG),
        Span::raw(format!(" {}", keys[1])),
    ]));
    in_front(frame, area, title, text);
}

fn drain<'a>(model: &Model, question: &Question, has: u64) -> Vec<Line<'a>> {
    let group = &question.group;
    let mut lines = vec![fact_line("flows now", &figures::exact(has))];
    let delay = model.delay(group).map(|seconds| format!("{} s", figures::exact(seconds)));
    lines.push(fact_line("deregistration delay", delay.as_deref().unwrap_or("not known")));
    lines.push(Line::raw(""));
    let limit = delay.map_or_else(String::new, |delay| format!(", for {delay} at most"));
    let then = match has {
        0 => "It gets no new flows from then on, and it has none that could go on.".to_owned(),
        has => format!(
            "It gets no new flows from then on. Its {} {} may go on there until they end{limit}; \
             as long as it drains, r takes it back.",
            figures::exact(has),
            if has == 1 { "flow" } else { "flows" },
        ),
    };
    lines.extend(wrapped(&then));
    let others = model.targets.iter().filter(|it| it.group == *group);
    let left = others.filter(|it| it.address != question.address && it.takes_flows()).count();
    if left == 0 {
        lines.push(Line::raw(""));
        let warning = format!("No other target of {group} takes new flows!");
        lines.extend(wrapped(&warning).map(|line| line.style(STRONG)));
    }
    lines
}

fn register<'a>(model: &Model, question: &Question, has: u64) -> Vec<Line<'a>> {
    let target = model.target(&question.group, &question.address);
    let weight = target.map(|target| target.weight.to_string()).unwrap_or_default();
    let mut lines = vec![
        fact_line("flows now", &figures::exact(has)),
        fact_line("weight", &weight),
        Line::raw(""),
    ];
    lines.extend(wrapped(
        "Its drain ends: it keeps the flows that it has, and gets new ones by its weight as soon \
         as it is healthy.",
    ));
    lines
}

fn fact_line<'a>(name: &str, fact: &str) -> Line<'a> {
    Line::from(vec![Span::raw(format!("{name:21}")), Span::styled(fact.to_owned(), STRONG)])
}

/// What the keys do, and what the figures are.
pub(super) fn help(frame: &mut Frame, area: Rect) {
    const KEYS: [(&str, &str); 9] = [
        ("↑ ↓ k j", "select a row; also PgUp, PgDn, Home, End"),
        ("Tab", "go to the next panel; with Shift: back"),
        ("s  S", "sort by the next column; turn the order round"),
        ("/", "only rows that have a text; Ctrl-U clears it"),
        ("d  r", "drain a target, and take that back; both ask"),
        ("p", "pause, and go on"),
        ("+  -", "ask the gateway less often, and more often"),
        ("z", "give the panel all the room, and back"),
        ("q ^C Esc", "quit; Esc leaves message and filter first"),
    ];
    let mut lines: Vec<_> = KEYS
        .iter()
        .map(|(key, what)| {
            Line::from(vec![Span::styled(format!("{key:10}"), STRONG), Span::raw(*what)])
        })
        .collect();
    lines.extend(wrapped(
        "Packets come in from the networks and go out to them. Bytes are those of packets sent to \
         appliances and returned by them; k, M, G are powers of 1000. A share is a target's part \
         of all bytes sent.",
    ));
    in_front(frame, area, " Help ", lines);
}

/// Puts a text in front of what is there.
fn in_front(frame: &mut Frame, area: Rect, title: &str, text: Vec<Line>) {
    let block =
        Block::bordered().padding(Padding::horizontal(1)).title(Line::styled(title, STRONG));
    let (width, height) = (WIDTH as u16 + 4, text.len() as u16 + 2);
    let place = area.centered(Constraint::Length(width), Constraint::Length(height));
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(text).block(block), place);
}

/// A sentence in lines that fit.
fn wrapped<'a>(text: &str) -> impl Iterator<Item = Line<'a>> {
    grid::wrapped(text, WIDTH).into_iter().map(Line::raw)
}
