//! The problems of a configuration for programs: what `gwlb check --json` and the admin API say.

use std::fmt;

use router::source::{Label, Problem, Problems, Source};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemReport {
    /// What is wrong.
    pub message: String,
    /// What would help.
    pub help: Option<String>,
    /// The place itself first, then what else it is about.
    pub places: Vec<Place>,
}

/// A place in the text. Lines and columns count from 1, columns in characters; the end is behind
/// the last character.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// The line of the end.
    pub end_line: usize,
    /// The column of the end.
    pub end_column: usize,
    /// What is to be seen there.
    pub label: String,
}

impl ProblemReport {
    /// All of them, in the order of the text.
    pub fn list(problems: &Problems) -> Vec<Self> {
        problems.iter().map(|problem| Self::of(problem, problems.source())).collect()
    }

    fn of(problem: &Problem, source: &Source) -> Self {
        Self {
            message: problem.message().to_owned(),
            help: problem.advice().map(str::to_owned),
            places: problem.places().map(|label| Place::of(label, source)).collect(),
        }
    }

    /// One line: place, message, help.
    pub fn line<'a>(&'a self, file: &'a str) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            f.write_str(file)?;
            if let Some(Place { line, column, .. }) = self.places.first() {
                write!(f, ":{line}:{column}")?;
            }
            write!(f, ": {}", self.message)?;
            match &self.help {
                Some(help) => write!(f, " ({help})"),
                None => Ok(()),
            }
        })
    }
}

impl Place {
    fn of(label: &Label, source: &Source) -> Self {
        let start = source.position(label.span.start);
        let end = source.position(label.span.end);
        Self {
            line: start.line,
            column: start.column,
            end_line: end.line,
            end_column: end.column,
            label: label.text.clone(),
        }
    }
}
