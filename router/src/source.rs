//! Located errors for configuration files: what is wrong, where in the text, and what would help.
//!
//! [`Source`] is a file's text, [`Document`] its TOML, [`Problem`] one mistake in it, and
//! [`Problems`] all of them, rendered with the offending text underlined. Nothing here knows what
//! the keys mean: every crate that reads a part of the configuration file brings its own form.

mod document;
mod located;
mod problem;
mod report;
mod serde_message;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::{fmt, io};

pub use document::Document;
pub use located::Located;
pub use problem::{Label, Problem};
pub use report::{Look, Problems};

/// The text of a configuration file, with the name that reports show.
///
/// Cloning is cheap: clones share the text.
#[derive(Clone)]
pub struct Source {
    name: Arc<str>,
    text: Arc<str>,
}

impl Source {
    /// A text under a name, usually its path.
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Source {
        Source { name: name.into(), text: text.into() }
    }

    /// Reads a file, as UTF-8.
    ///
    /// # Errors
    /// One problem without a place, if the file cannot be read; one with a place if it is not
    /// UTF-8.
    pub fn read(path: &Path) -> Result<Source, Problems> {
        let name = path.display().to_string();
        let bytes =
            std::fs::read(path).map_err(|error| Problems::from(unreadable(&name, &error)))?;
        Source::from_bytes(&name, bytes)
    }

    /// What was read from somewhere else, as UTF-8.
    ///
    /// # Errors
    /// One problem with a place, if it is not UTF-8.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Source, Problems> {
        String::from_utf8(bytes)
            .map(|text| Source::new(name, text))
            .map_err(|error| Problems::from(not_utf8(name, &error)))
    }

    /// The name that reports show.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text at a span; empty where the span leaves the text or splits a character.
    pub fn slice(&self, span: Range<usize>) -> &str {
        self.text.get(span).unwrap_or_default()
    }

    /// Line and column of a byte offset. An offset behind the end is at the end.
    pub fn position(&self, offset: usize) -> Position {
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &self.text[..end];
        // A mark of the byte order is no character of the line that it stands before.
        let before = before.strip_prefix('\u{feff}').unwrap_or(before);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// The name and the length, not the text.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .field("bytes", &self.text.len())
            .finish_non_exhaustive()
    }
}

/// A place in a text. Displayed as `line:column`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The candidate that was probably meant by a misspelt or shortened name, if there is one.
///
/// Misspelt means a third of the name's characters, at least one, typed wrong, left out, added or
/// swapped. Shortened means its first three characters or more, and no other candidate's. Of
/// several equally near ones the first wins.
///
/// ```
/// use router::source::nearest;
/// assert_eq!(nearest("endpont", ["interface", "endpoint"]), Some("endpoint"));
/// assert_eq!(nearest("dest", ["destination", "endpoint"]), Some("destination"));
/// assert_eq!(nearest("colour", ["interface", "endpoint"]), None);
/// ```
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    let length = name.chars().count();
    // Something must be right: one letter is not a misspelling of every other.
    let allowed = (length / 3).max(1).min(length.saturating_sub(1));
    let misspelt = candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), *candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate);
    misspelt.or_else(|| {
        let mut longer = candidates.iter().filter(|candidate| candidate.starts_with(name));
        match (longer.next(), longer.next()) {
            (Some(only), None) if length >= 3 => Some(*only),
            _ => None,
        }
    })
}

fn unreadable(name: &str, error: &io::Error) -> (Source, Problem) {
    let problem = match error.kind() {
        io::ErrorKind::NotFound => Problem::new(format!("there is no file {name}")),
        io::ErrorKind::PermissionDenied => {
            Problem::new(format!("no permission to read {name}")).help("check its owner and mode")
        }
        io::ErrorKind::IsADirectory => Problem::new(format!("{name} is a directory, not a file")),
        _ => Problem::new(format!("cannot read {name}: {error}")),
    };
    (Source::new(name, ""), problem)
}

fn not_utf8(name: &str, error: &std::string::FromUtf8Error) -> (Source, Problem) {
    let valid = error.utf8_error().valid_up_to();
    // The replacement character stands at the offset where the valid text ends.
    let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
    let problem = Problem::at(valid..valid + 1, "this file is not UTF-8 text")
        .label("the first byte that is not UTF-8")
        .help("TOML and JSON files are UTF-8: save it in that encoding");
    (Source::new(name, text), problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let source = Source::new("t", "ab\nüb\n");
        for (offset, line, column) in [
            (0, 1, 1),
            (1, 1, 2),
            (2, 1, 3),
            (3, 2, 1),
            (4, 2, 1),
            (5, 2, 2),
            (7, 3, 1),
            (99, 3, 1),
        ] {
            assert_eq!(source.position(offset), Position { line, column }, "offset {offset}");
        }
    }

    #[test]
    fn a_byte_order_mark_has_no_column() {
        let source = Source::new("t", "\u{feff}ab\nc");
        let found = [0, 3, 4, 6].map(|offset| source.position(offset).to_string());
        assert_eq!(found, ["1:1", "1:1", "1:2", "2:1"]);
    }

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["app-a", "app-b", "gwlbe-a"];
        assert_eq!(nearest("app-c", names), Some("app-a"));
        assert_eq!(nearest("gwlbea", names), Some("gwlbe-a"));
        assert_eq!(nearest("gwleb-a", names), Some("gwlbe-a"));
        assert_eq!(nearest("database", names), None);
        assert_eq!(nearest("", names), None);
        assert_eq!(nearest("x", []), None);
        assert_eq!(nearest("x", ["y"]), None);
        // A beginning of its own is enough; a shared one is not.
        assert_eq!(nearest("gwl", names), Some("gwlbe-a"));
        assert_eq!(nearest("app", ["app-one", "app-two"]), None);
    }

    #[test]
    fn a_file_that_is_not_there_is_a_problem_without_a_place() {
        let folder = tempfile::tempdir().unwrap();
        let problems = Source::read(&folder.path().join("absent.toml")).unwrap_err();
        let problem = problems.iter().next().unwrap();
        assert!(problem.message().starts_with("there is no file "));
        assert_eq!(problem.span(), None);
    }

    #[test]
    fn a_file_that_is_not_text_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latin1.toml");
        std::fs::write(&path, b"# caf\xe9\n").unwrap();
        let problems = Source::read(&path).unwrap_err();
        assert_eq!(problems.iter().next().unwrap().span(), Some(5..6));
    }
}
