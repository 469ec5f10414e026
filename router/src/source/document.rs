//! The TOML of a source, read table by table so that one mistake does not hide the next.

use std::collections::HashSet;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::serde_message::{Keys, keys};
use super::{Located, Problem, Problems, Source, nearest};

/// A configuration file as a tree, of which each reader takes its own tables.
///
/// ```
/// use router::source::{Document, Source};
/// # #[derive(serde::Deserialize)] struct Vpc { name: String }
///
/// let source = Source::new("t.toml", "[[vpc]]\nname = \"app\"\n");
/// let document = Document::parse(&source)?;
/// let mut problems = Vec::new();
/// let vpcs = document.list::<Vpc>("vpc", &mut problems);
/// assert_eq!(vpcs[0].name, "app");
/// assert_eq!(problems, []);
/// # Ok::<(), router::source::Problems>(())
/// ```
#[derive(Debug)]
pub struct Document<'s> {
    root: DeTable<'s>,
}

impl<'s> Document<'s> {
    /// Reads the TOML.
    ///
    /// # Errors
    /// Every syntax error that the parser can tell apart, one for each line.
    pub fn parse(source: &'s Source) -> Result<Document<'s>, Problems> {
        let (root, errors) = DeTable::parse_recoverable(source.text());
        let newlines: Vec<usize> = source.text().match_indices('\n').map(|(at, _)| at).collect();
        let mut told = HashSet::new();
        let mut problems = Vec::new();
        for error in &errors {
            let line = error.span().map(|span| newlines.partition_point(|at| *at < span.start));
            // What follows on the same line is the parser regaining its feet.
            if line.is_none_or(|line| told.insert(line)) {
                problems.push(Problem::from(error));
            }
        }
        Problems::check(source, problems)?;
        Ok(Document { root: root.into_inner() })
    }

    /// Every `[[key]]` table, each with the place of its header. Those with problems other than
    /// unknown keys are left out.
    pub fn list<T: DeserializeOwned>(
        &self,
        key: &str,
        problems: &mut Vec<Problem>,
    ) -> Vec<Located<T>> {
        let Some(value) = self.root.get(key) else { return Vec::new() };
        match value.get_ref() {
            DeValue::Array(items) => items.iter().filter_map(|item| read(item, problems)).collect(),
            other => {
                problems.push(
                    Problem::at(value.span(), format!("`{key}` is a list of tables"))
                        .label(format!("this is a single {}", other.type_str()))
                        .help(format!("write each as [[{key}]], in double brackets")),
                );
                Vec::new()
            }
        }
    }

    /// The one `[key]` table, if it is there and has no problems other than unknown keys.
    pub fn table<T: DeserializeOwned>(
        &self,
        key: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<Located<T>> {
        let value = self.root.get(key)?;
        if let DeValue::Table(_) = value.get_ref() {
            return read(value, problems);
        }
        problems.push(
            Problem::at(value.span(), format!("`{key}` is a single table"))
                .label(format!("this is a {}", value.get_ref().type_str()))
                .help(format!("write it as [{key}], once, in single brackets")),
        );
        None
    }

    /// A problem for each key at the top level that is none of these.
    pub fn unknown_keys(&self, known: &[&str]) -> Vec<Problem> {
        let unknown = |key: &&Spanned<_>| !known.contains(&key_str(key));
        self.root
            .keys()
            .filter(unknown)
            .map(|key| {
                let name = key_str(key);
                let help = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`? known: {}", known.join(", ")),
                    None => format!("known: {}", known.join(", ")),
                };
                Problem::at(key.span(), format!("unknown table `{name}`"))
                    .label("no such table in a gateway's configuration")
                    .help(help)
            })
            .collect()
    }
}

fn key_str<'a>(key: &'a Spanned<std::borrow::Cow<'_, str>>) -> &'a str {
    key.get_ref()
}

/// Reads one value. serde stops at the first mistake; an unknown key is noted, taken out, and the
/// rest read again, so that every unknown key is told and the entry still exists for others.
fn read<T: DeserializeOwned>(
    value: &Spanned<DeValue<'_>>,
    problems: &mut Vec<Problem>,
) -> Option<Located<T>> {
    let mut value = value.clone();
    let mut meant = Vec::new();
    // Each unknown key costs a reading: a table that is all wrong is not read to its end.
    for _ in 0..MOST_UNKNOWN_KEYS {
        let error = match T::deserialize(ValueDeserializer::from(value.clone())) {
            Ok(read) => return Some(Located::new(read, value.span())),
            Err(error) => error,
        };
        match (keys(&error), error.span()) {
            // The misspelt key is told already; that it is missing too helps nobody.
            (Some(Keys::Missing(key)), _) if meant.iter().any(|meant| meant == key) => return None,
            (Some(Keys::Unknown { meant: key }), Some(span)) => {
                meant.extend(key.map(str::to_owned));
                problems.push(Problem::from(&error));
                if !remove_key(value.get_mut(), &span) {
                    return None;
                }
            }
            _ => {
                problems.push(Problem::from(&error));
                return None;
            }
        }
    }
    None
}

/// The unknown keys that are told of one table, those within its values included.
const MOST_UNKNOWN_KEYS: usize = 100;

/// Takes out the key that stands at this place, however deep.
fn remove_key(value: &mut DeValue<'_>, span: &Range<usize>) -> bool {
    match value {
        DeValue::Table(table) => {
            let here = table.keys().find(|key| key.span() == *span).cloned();
            match here {
                Some(key) => table.remove(key_str(&key)).is_some(),
                None => table.iter_mut().any(|(_, value)| remove_key(value.get_mut(), span)),
            }
        }
        DeValue::Array(items) => items.iter_mut().any(|item| remove_key(item.get_mut(), span)),
        _ => false,
    }
}
