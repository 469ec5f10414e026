//! All mistakes of a file together, and how they look to a reader.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal};

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError,
    MietteHandlerOpts, MietteSpanContents, ReportHandler, SourceCode, SourceSpan, SpanContents,
};

use super::{Problem, Source};

/// What is wrong with a configuration: at least one problem, in the order of the text.
///
/// `Display` renders the graphical report: with colours and the terminal's width where standard
/// error is a terminal, plain everywhere else.
#[derive(Clone, Debug)]
pub struct Problems {
    source: Source,
    list: Vec<Problem>,
}

/// How a report is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// ASCII without colour, 100 columns wide: the same bytes everywhere.
    Plain,
    /// What the terminal at standard error can show, in its width. Heeds `NO_COLOR`.
    Terminal,
}

impl Look {
    /// Columns of a plain report.
    const PLAIN_WIDTH: usize = 100;

    /// The look for what goes to this process's standard error.
    pub fn of_stderr() -> Look {
        if io::stderr().is_terminal() { Look::Terminal } else { Look::Plain }
    }
}

impl Problems {
    /// The problems that a report draws; of the others it tells the number. Nobody reads on, and a
    /// file that is all wrong is told in bounded time.
    const MOST_DRAWN: usize = 200;

    /// All is well, or these problems.
    ///
    /// # Errors
    /// If the list is not empty.
    pub fn check(source: &Source, mut list: Vec<Problem>) -> Result<(), Problems> {
        if list.is_empty() {
            return Ok(());
        }
        // Stable: problems of one place stay in the order in which they were found.
        list.sort_by_key(|problem| problem.span().map_or(usize::MAX, |span| span.start));
        Err(Problems { source: source.clone(), list })
    }

    /// The problems, in the order of the text; those without a place last.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// How many: at least one.
    #[expect(
        clippy::len_without_is_empty,
        reason = "there is no value of this type without problems"
    )]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// The text that they are about.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The problems without the text, to be put together with others of the same text.
    pub fn into_list(self) -> Vec<Problem> {
        self.list
    }

    /// The report as text: the problems with their lines, the first 200 of them, and a last line
    /// that counts them all.
    pub fn render(&self, look: Look) -> String {
        let drawn = self.list.iter().take(Self::MOST_DRAWN);
        let text = printable(self.source.text());
        let mut blocks: Vec<String> =
            drawn.map(|problem| self.render_one(problem, &text, look)).collect();
        if let Some(more @ 1..) = self.list.len().checked_sub(Self::MOST_DRAWN) {
            blocks.push(format!("and {more} more\n"));
        }
        let (count, name) = (self.list.len(), self.source.name());
        let noun = if count == 1 { "problem" } else { "problems" };
        blocks.push(format!("{count} {noun} in {name}\n"));
        blocks.join("\n")
    }

    fn render_one(&self, problem: &Problem, text: &str, look: Look) -> String {
        let problem = problem.to_be_drawn(text.len());
        let located = LocatedProblem { problem, source: &self.source, text };
        let drawn = match look {
            Look::Plain => {
                let handler = GraphicalReportHandler::new_themed(GraphicalTheme::none())
                    .with_width(Look::PLAIN_WIDTH)
                    .with_links(false);
                Drawn(&handler, &located).to_string()
            }
            Look::Terminal => Drawn(&MietteHandlerOpts::new().build(), &located).to_string(),
        };
        // miette pads some lines to the width of their neighbours.
        drawn.trim_matches('\n').lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<(Source, Problem)> for Problems {
    fn from((source, problem): (Source, Problem)) -> Problems {
        Problems { source, list: vec![problem] }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(Look::of_stderr()).trim_end())
    }
}

impl std::error::Error for Problems {}

/// A problem with the text that its places are in, as miette draws it.
#[derive(Debug)]
struct LocatedProblem<'s> {
    problem: Problem,
    source: &'s Source,
    /// The source's text as it is drawn: byte for byte as long.
    text: &'s str,
}

impl fmt::Display for LocatedProblem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for LocatedProblem<'_> {}

impl Diagnostic for LocatedProblem<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Diagnostic::help(&self.problem)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.problem.labels()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self)
    }
}

impl SourceCode for LocatedProblem<'_> {
    /// What miette reads from a string, with the number of lines that it promises, and with the
    /// column in characters. Its own number of lines counts from the start of the file, and places
    /// far apart are then drawn as one long snippet; its columns are bytes.
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let read = self.text.read_span(span, before, after)?;
        let lines = read.data().split_inclusive(|byte| *byte == b'\n').count();
        let start = self.source.position(read.span().offset());
        Ok(Box::new(MietteSpanContents::new_named(
            self.source.name().to_owned(),
            read.data(),
            *read.span(),
            start.line - 1,
            start.column - 1,
            lines,
        )))
    }
}

/// The text without characters that would steer a terminal: a question mark for each byte of them.
fn printable(text: &str) -> Cow<'_, str> {
    let mut printable = String::new();
    let mut done = 0;
    for (at, c) in text.char_indices().filter(|(_, c)| c.is_control()) {
        let ends_line = c == '\n' || text[at..].starts_with("\r\n");
        if !ends_line && c != '\t' {
            printable += &text[done..at];
            printable.extend(std::iter::repeat_n('?', c.len_utf8()));
            done = at + c.len_utf8();
        }
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    Cow::Owned(printable + &text[done..])
}

/// Draws a diagnostic: miette's handlers hang on `Debug`.
struct Drawn<'a, H>(&'a H, &'a LocatedProblem<'a>);

impl<H: ReportHandler> fmt::Display for Drawn<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug(self.1, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(list: Vec<Problem>, text: &str) -> String {
        Problems::check(&Source::new("t.toml", text), list).unwrap_err().render(Look::Plain)
    }

    #[test]
    fn a_report_is_in_the_order_of_the_text() {
        let list = vec![Problem::new("nowhere"), Problem::at(4..5, "b"), Problem::at(0..1, "a")];
        let report = report(list, "one\ntwo\n");
        let at = |what: &str| report.find(what).unwrap();
        assert!(at("x a\n") < at("x b\n"));
        assert!(at("x b\n") < at("x nowhere\n"));
        assert!(report.ends_with("\n3 problems in t.toml\n"));
    }

    #[test]
    fn places_outside_of_the_text_are_drawn_at_its_end() {
        for span in [0..0, 3..3, 3..9, 100..200, usize::MAX..usize::MAX] {
            let report = report(vec![Problem::at(span.clone(), "here").label("l")], "one");
            assert!(report.contains("[t.toml:1:"), "{span:?}:\n{report}");
        }
        assert!(report(vec![Problem::at(7..8, "here")], "").contains("x here"));
    }

    #[test]
    fn a_report_of_very_many_problems_ends() {
        let list = (0..1_000).map(|_| Problem::at(0..1, "wrong")).collect();
        let report = report(list, "one");
        assert_eq!(report.matches("x wrong").count(), 200);
        assert!(report.ends_with("and 800 more\n\n1000 problems in t.toml\n"));
    }

    #[test]
    fn columns_count_characters() {
        let text = "a = \"ü漢\" # é\r\n\tb = \"ü\", 7\r\n";
        for what in ["#", "b", "7", "ü\", 7"] {
            let at = text.find(what).unwrap();
            let report = report(vec![Problem::at(at..at + 1, "wrong")], text);
            let position = Source::new("", text).position(at);
            assert!(report.contains(&format!("[t.toml:{position}]")), "{what}: {report}");
        }
    }

    /// A configuration of others must not steer the terminal of who checks it.
    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        let evil = "\u{1b}[2J\u{9b}2J\u{7}";
        let text = format!("# {evil} é\nb\rc = \"x\"\r\n");
        let at = text.find("c =").unwrap();
        let problem = Problem::at(at..at + 1, format!("\"{evil}\" is wrong"))
            .label(format!("here: {evil}\n"))
            .and(0..1, evil)
            .help(evil);
        for look in [Look::Plain, Look::Terminal] {
            let source = Source::new("t.toml", &*text);
            let report = Problems::check(&source, vec![problem.clone()]).unwrap_err().render(look);
            assert!(!report.contains("[2J\u{9b}"), "{report:?}");
            assert!(!report.contains(['\u{9b}', '\u{7}', '\r']), "{report:?}");
            assert!(report.contains(r#""\u{1b}[2J\u{9b}2J\u{7}" is wrong"#), "{report:?}");
            assert!(report.contains("t.toml:2:3"), "{report:?}");
        }
    }

    #[test]
    fn no_problems_are_none() {
        Problems::check(&Source::new("t.toml", ""), Vec::new()).unwrap();
    }
}
