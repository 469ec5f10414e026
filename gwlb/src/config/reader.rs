//! Takes values out of a form's fields, and keeps what is wrong with them.
//!
//! Every `None` that a [`Reader`] returns for a key that is present or needed comes with a problem,
//! so that settings with a hole in them never leave this crate's configuration unnoticed.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use router::source::{Located, Position, Problem, Problems, Source, nearest};

use super::availability::not_yet;
use super::field::{Expected, Field, Found, Mismatch};
use super::preset::Limit;
use super::values::{Name, NetnsName, OutOfRange};

/// The problems and notes of one file, as they are found.
#[derive(Debug)]
pub(super) struct Reader<'s> {
    source: &'s Source,
    problems: Vec<Problem>,
    notes: Vec<Note>,
}

/// Something that is allowed and may surprise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where, if it is anywhere.
    pub position: Option<Position>,
    /// What, in one sentence.
    pub message: String,
}

/// A table of the file: its name, for messages, and the place of its header.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Such as `[[target]]`.
    pub(super) name: &'static str,
    /// Where to point when a key is missing.
    pub(super) span: Range<usize>,
}

impl<'s> Reader<'s> {
    /// Starts with the problems that were found before.
    pub(super) fn new(source: &'s Source, problems: Vec<Problem>) -> Reader<'s> {
        Reader { source, problems, notes: Vec::new() }
    }

    /// All is well, or not; then everything that was found.
    pub(super) fn finish<T>(mut self, value: Option<T>) -> Result<(T, Vec<Note>), Problems> {
        Problems::check(self.source, self.problems)?;
        let hole = || (self.source.clone(), Problem::new("this file could not be understood"));
        let value = value.ok_or_else(hole)?;
        self.notes.sort_by_key(|note| (note.position.is_none(), note.position));
        Ok((value, self.notes))
    }

    /// Keeps a problem.
    pub(super) fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Keeps a note about a place.
    pub(super) fn note(&mut self, span: Range<usize>, message: impl Into<String>) {
        let position = Some(self.source.position(span.start));
        self.notes.push(Note { position, message: message.into() });
    }

    /// Keeps a note about the file.
    pub(super) fn note_nowhere(&mut self, message: impl Into<String>) {
        self.notes.push(Note { position: None, message: message.into() });
    }

    /// The value of a key that may be absent.
    pub(super) fn optional<T>(&mut self, key: &str, field: Field<T>) -> Option<Located<T>> {
        match field {
            Field::Absent => None,
            Field::Given(value) => Some(value),
            Field::Wrong(mismatch) => {
                self.report(mismatch.problem(key));
                None
            }
        }
    }

    /// The value of a key that has to be there; the example shows how it could look.
    pub(super) fn required<T>(
        &mut self,
        key: &str,
        field: Field<T>,
        table: &Table,
        example: &str,
    ) -> Option<Located<T>> {
        if let Field::Absent = field {
            self.report(
                Problem::at(table.span.clone(), format!("the key `{key}` is missing"))
                    .label(format!("this {} needs `{key}`", table.name))
                    .help(format!("for example: {key} = {example}")),
            );
        }
        self.optional(key, field)
    }

    /// The items of a list, without those of the wrong type, which are reported.
    pub(super) fn items<T>(&mut self, key: &str, list: Vec<Field<T>>) -> Vec<Located<T>> {
        list.into_iter().filter_map(|item| self.optional(key, item)).collect()
    }

    /// The value, or its default. The key may be a path, such as
    /// `endpoint_service.acceptance_required`.
    ///
    /// A setting that is not available yet is reported if it asks for more than the default.
    pub(super) fn or_default<T: PartialEq>(
        &mut self,
        path: &str,
        field: Field<T>,
        default: T,
    ) -> T {
        let key = path.rsplit('.').next().unwrap_or(path);
        let Some(value) = self.optional(key, field) else { return default };
        if *value != default
            && let Some(row) = not_yet(path)
        {
            self.report(
                value
                    .problem(format!("`{key}` is not available yet"))
                    .label(format!("{} is for a later version", row.purpose))
                    .help(row.instead),
            );
        }
        value.into_inner()
    }

    /// The name of a load balancer or a target group.
    pub(super) fn name(&mut self, field: Field<String>, table: &Table) -> Option<Name> {
        let name = self.required("name", field, table, "\"fw\"");
        let help = "1 to 32 letters, digits and hyphens, with no hyphen at either end";
        Some(self.checked("name", name, Name::new, help)?.into_inner())
    }

    /// A network namespace.
    pub(super) fn netns(&mut self, field: Field<String>) -> Option<NetnsName> {
        let netns = self.optional("netns", field);
        let help = "a name as `ip netns list` shows them, or an absolute path such as \
                    \"/proc/1234/ns/net\"; absent, it is the gateway's own namespace";
        Some(self.checked("netns", netns, NetnsName::new, help)?.into_inner())
    }

    /// A path that does not depend on where the gateway was started.
    pub(super) fn absolute_path(
        &mut self,
        key: &str,
        value: Option<Located<String>>,
    ) -> Option<Located<PathBuf>> {
        let absolute = |text: &str| {
            let path = PathBuf::from(text);
            if path.is_absolute() { Ok(path) } else { Err("not an absolute path") }
        };
        self.checked(key, value, absolute, "start it with a slash: the gateway may run anywhere")
    }

    /// Opens a checked value's one door to a string.
    pub(super) fn checked<T, E: fmt::Display>(
        &mut self,
        key: &str,
        value: Option<Located<String>>,
        door: impl FnOnce(&str) -> Result<T, E>,
        help: &str,
    ) -> Option<Located<T>> {
        let value = value?;
        match door(&value) {
            Ok(checked) => Some(Located::new(checked, value.span())),
            Err(error) => {
                self.report(
                    value
                        .problem(format!("`{key}` cannot be {:?}", value.get()))
                        .label(error.to_string())
                        .help(help),
                );
                None
            }
        }
    }

    /// A number in its range.
    pub(super) fn number<U>(
        &mut self,
        key: &str,
        field: Field<i64>,
        door: impl FnOnce(i64) -> Result<U, OutOfRange>,
        help: Option<&str>,
    ) -> Option<Located<U>> {
        let value = self.optional(key, field)?;
        let span = value.span();
        match door(value.into_inner()) {
            Ok(number) => Some(Located::new(number, span)),
            Err(error) => {
                self.report(out_of_range(key, span, error).help_if(help));
                None
            }
        }
    }

    /// A number in the range of its authority (a cloud, mostly), or in the extended one, or the
    /// default.
    pub(super) fn limited(
        &mut self,
        key: &str,
        field: Field<i64>,
        limit: &Limit,
        authority: &str,
        extended: bool,
    ) -> Limited {
        let range = if extended { &limit.extended } else { &limit.cloud };
        let mut help = format!(
            "{authority} allows {} to {}; the default is {}",
            limit.cloud.start(),
            limit.cloud.end(),
            limit.default
        );
        let fits = |number: &i64| u32::try_from(*number).is_ok_and(|n| limit.extended.contains(&n));
        if !extended && field.given().is_some_and(|number| fits(number)) {
            let (from, to) = (limit.extended.start(), limit.extended.end());
            // Writing to a string does not fail.
            let _ = write!(
                help,
                "; with `extended_ranges = true` in this table it may be {from} to {to}"
            );
        }
        let door =
            |number| OutOfRange::check(number, (*range.start()).into(), (*range.end()).into());
        let absent = matches!(field, Field::Absent);
        match self.number(key, field, door, Some(&help)) {
            Some(number) => Limited { value: *number, span: Some(number.span()), wrong: false },
            None => Limited { value: limit.default, span: None, wrong: !absent },
        }
    }
}

/// A number with a default, and where it was given, if it was.
#[derive(Clone, Debug)]
pub(super) struct Limited {
    /// The number.
    pub(super) value: u32,
    /// Its place; none for the default.
    pub(super) span: Option<Range<usize>>,
    /// Whether the default only stands in for something that was not understood.
    pub(super) wrong: bool,
}

impl Limited {
    /// Where it was given, if it is not the default.
    pub(super) fn given_unlike(&self, limit: &Limit) -> Option<Range<usize>> {
        self.span.clone().filter(|_| self.value != limit.default)
    }

    /// As a time.
    pub(super) fn seconds(&self) -> Duration {
        Duration::from_secs(self.value.into())
    }
}

/// A time as people write it: in seconds, or in milliseconds if it is not a whole number of them.
pub(super) fn in_words(time: Duration) -> String {
    match time.as_millis() {
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{ms} ms"),
    }
}

/// The problem of a number that is not in its range.
fn out_of_range(key: &str, span: Range<usize>, error: OutOfRange) -> Problem {
    Problem::at(span, format!("`{key}` cannot be {}", error.actual))
        .label(format!("{} to {} is allowed here", error.min, error.max))
}

/// `did you mean "app-a"?`, or the names there are.
pub(super) fn suggestion<'a>(
    name: &str,
    names: impl Iterator<Item = &'a str> + Clone,
    if_none: &str,
) -> String {
    match nearest(name, names.clone()) {
        Some(near) => format!("did you mean {near:?}?"),
        None if names.clone().next().is_none() => if_none.to_owned(),
        None => format!("there are: {}", listing(names)),
    }
}

/// `"app-a", "app-b"`: the first few, in quotes.
pub(super) fn listing<'a>(names: impl Iterator<Item = &'a str> + Clone) -> String {
    /// More names than this are no help.
    const FEW: usize = 8;

    let quoted: Vec<String> = names.clone().take(FEW).map(|name| format!("{name:?}")).collect();
    let more = if names.count() > FEW { ", ..." } else { "" };
    quoted.join(", ") + more
}

impl Mismatch {
    fn problem(&self, key: &str) -> Problem {
        let Mismatch { span, expected, found } = self;
        match (expected, found) {
            (Expected::Choice(words), Found::String(text)) => {
                let list = format!("it can be {expected}");
                let help = match nearest(text, words.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean {near:?}? {list}"),
                    None => list,
                };
                Problem::at(span.clone(), format!("`{key}` cannot be {text:?}"))
                    .label("not one of its values")
                    .help(help)
            }
            _ => Problem::at(span.clone(), format!("`{key}` is {expected}, not {found}"))
                .label(format!("expected {expected}"))
                .help(self.rewrite(key)),
        }
    }

    /// How the value would be written in the right type.
    fn rewrite(&self, key: &str) -> String {
        let Expected::Type(expected) = &self.expected else {
            return "write one of these words in quotes".to_owned();
        };
        match (expected.as_str(), &self.found) {
            ("integer", Found::String(text)) if text.parse::<i64>().is_ok() => {
                format!("write it without quotes: {key} = {text}")
            }
            ("boolean", Found::String(text)) if text.parse::<bool>().is_ok() => {
                format!("write it without quotes: {key} = {text}")
            }
            ("integer", Found::Oversized) => "nothing here is as large as that".to_owned(),
            ("integer", _) => "write a number without a fraction and without quotes".to_owned(),
            ("boolean", _) => format!("write {key} = true or {key} = false"),
            ("array", Found::String(text)) => format!("write it in brackets: {key} = [{text:?}]"),
            ("array", Found::Table) => format!("write it in brackets: {key} = [{{ ... }}]"),
            ("array", _) => format!("write it in brackets: {key} = [ ... ]"),
            ("object", _) => format!("write it in braces: {key} = {{ ... }}"),
            _ => "write it in quotes".to_owned(),
        }
    }
}
