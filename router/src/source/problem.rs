//! One mistake: a message, the places it is about, and what would help.

use std::fmt;
use std::ops::Range;

use miette::{Diagnostic, LabeledSpan};
use thiserror::Error;

use crate::rules::{Rule, RuleSet};

/// One mistake in a configuration file.
///
/// ```
/// use router::source::Problem;
///
/// let problem = Problem::at(7..12, "there is no route table \"app-c\"")
///     .label("no such table")
///     .help("did you mean \"app-a\"?");
/// assert_eq!(problem.span(), Some(7..12));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Problem {
    message: String,
    place: Option<Label>,
    others: Vec<Label>,
    help: Option<String>,
    rule: Option<(Rule, RuleSet)>,
}

/// A place in the text, and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Bytes of the text. May be empty: then it points between two characters.
    pub span: Range<usize>,
    /// A few words, or nothing.
    pub text: String,
}

impl Problem {
    /// A problem that is nowhere in the text, such as a table that is missing altogether.
    pub fn new(message: impl Into<String>) -> Problem {
        Problem { message: message.into(), place: None, others: Vec::new(), help: None, rule: None }
    }

    /// A problem at a place.
    pub fn at(span: Range<usize>, message: impl Into<String>) -> Problem {
        let place = Label { span, text: String::new() };
        Problem { place: Some(place), ..Problem::new(message) }
    }

    /// Says something beside the place. Without a place there is nothing to say it beside.
    #[must_use]
    pub fn label(mut self, text: impl Into<String>) -> Problem {
        if let Some(place) = &mut self.place {
            place.text = text.into();
        }
        self
    }

    /// Points to another place that the problem is about, such as the first use of a name.
    #[must_use]
    pub fn and(mut self, span: Range<usize>, text: impl Into<String>) -> Problem {
        self.others.push(Label { span, text: text.into() });
        self
    }

    /// Cites the rule that is broken, and whose it is.
    #[must_use]
    pub fn rule(mut self, rule: Rule, of: RuleSet) -> Problem {
        self.rule = Some((rule, of));
        self
    }

    /// The rule that is broken, and whose it is, if it is one of a cloud's.
    pub fn broken_rule(&self) -> Option<(Rule, RuleSet)> {
        self.rule
    }

    /// The rule in words, such as `rule edge-target (aws): A gateway table … [VPC User Guide, …]`.
    fn citation(&self) -> Option<String> {
        let (rule, of) = self.rule?;
        let source = rule.source(of)?;
        Some(format!("rule {} ({of}): {} [{source}]", rule.code(), rule.statement()))
    }

    /// Says what would help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// The same, if there is something that would help.
    #[must_use]
    pub fn help_if<H: Into<String>>(mut self, help: Option<H>) -> Problem {
        self.help = help.map(Into::into).or(self.help);
        self
    }

    /// What is wrong, in one sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where, if it is anywhere.
    pub fn span(&self) -> Option<Range<usize>> {
        self.place.as_ref().map(|place| place.span.clone())
    }

    /// All places that it is about, the place itself first.
    pub fn places(&self) -> impl Iterator<Item = &Label> {
        self.place.iter().chain(&self.others)
    }

    /// What would help, if anything is known.
    pub fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The same problem with places that a text of this length has, and without characters that
    /// would steer a terminal: what it quotes may have any.
    pub(super) fn to_be_drawn(&self, length: usize) -> Problem {
        let label = |label: &Label| {
            let start = label.span.start.min(length);
            let span = start..label.span.end.clamp(start, length);
            Label { span, text: escaped(&label.text) }
        };
        Problem {
            message: escaped(&self.message),
            place: self.place.as_ref().map(label),
            others: self.others.iter().map(label).collect(),
            help: self.help.as_deref().map(escaped),
            rule: self.rule,
        }
    }
}

/// Control characters as Rust writes them, everything else as it is.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            escaped.extend(c.escape_debug());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// The labels carry no source; [`super::Problems`] renders each problem together with it.
impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let lines: Vec<String> = self.help.iter().cloned().chain(self.citation()).collect();
        (!lines.is_empty()).then(|| Box::new(lines.join("\n")) as Box<dyn fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let labelled = |label: &Label, primary: bool| {
            let text = (!label.text.is_empty()).then(|| label.text.clone());
            if primary {
                LabeledSpan::new_primary_with_span(text, label.span.clone())
            } else {
                LabeledSpan::new_with_span(text, label.span.clone())
            }
        };
        self.place.as_ref().map(|place| {
            let place = std::iter::once(labelled(place, true));
            let others = self.others.iter().map(move |other| labelled(other, false));
            Box::new(place.chain(others)) as Box<dyn Iterator<Item = LabeledSpan>>
        })
    }
}
