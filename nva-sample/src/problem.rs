//! What is wrong with a file that a user wrote: several things at once, each where it stands.
//!
//! A report shows the file's name, the line, the text underlined, and what would be right.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use miette::{Diagnostic, NamedSource, SourceSpan};

/// A file's text with its name, for problems to point into.
#[derive(Clone, Debug)]
pub struct Source {
    text: Arc<str>,
    named: NamedSource<Arc<str>>,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, thiserror::Error, Diagnostic)]
#[error("{message}")]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    #[source_code]
    source_code: NamedSource<Arc<str>>,
    #[label("{label}")]
    span: SourceSpan,
    label: String,
    #[help]
    help: Option<String>,
}

/// Everything that is wrong with a file.
#[derive(Clone, Debug, thiserror::Error, Diagnostic)]
#[error("{name} cannot be used")]
pub struct Problems {
    name: String,
    /// One by one, in the order of the file.
    #[related]
    pub problems: Vec<Problem>,
}

/// A file could not be used: it could not be read, or it is wrong.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum FileError {
    /// The file could not be read.
    #[error("cannot read {name}: {error}")]
    Read {
        /// The file.
        name: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// What the file says is wrong.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Wrong(#[from] Problems),
}

impl Source {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::new(name, text)),
            Err(error) => Err(FileError::Read { name, error }),
        }
    }

    /// A text under a name.
    pub fn new(name: impl AsRef<str>, text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        Self { named: NamedSource::new(name, Arc::clone(&text)), text }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Parses the text as TOML of a form; what TOML itself or the form has against it is a problem.
    pub(crate) fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, Problems> {
        toml::from_str(&self.text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            self.problems(vec![self.problem(error.message(), span, "here", None)])
        })
    }

    pub(crate) fn problem(
        &self,
        message: impl Into<String>,
        span: Range<usize>,
        label: impl Into<String>,
        help: Option<String>,
    ) -> Problem {
        Problem {
            message: message.into(),
            source_code: self.named.clone(),
            span: span.into(),
            label: label.into(),
            help,
        }
    }

    pub(crate) fn problems(&self, mut problems: Vec<Problem>) -> Problems {
        problems.sort_by_key(|problem| problem.span.offset());
        Problems { name: self.named.name().to_owned(), problems }
    }
}

/// The report on a wrong file as a terminal of 100 columns without colours shows it.
#[cfg(test)]
pub(crate) fn plain_report(problems: &Problems) -> String {
    let mut report = String::new();
    miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
        .with_width(100)
        .render_report(&mut report, problems)
        .unwrap();
    report
}
