//! What an import leaves out, takes for granted, or does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One thing to know about an import, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    what: String,
    about: Vec<String>,
}

impl Note {
    /// What there is to know.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What it is about: ids, files, members. Each once, in the order in which they were met.
    pub fn about(&self) -> &[String] {
        &self.about
    }
}

/// The first few of what it is about, and their number.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 6;
        let text = match self.about.as_slice() {
            [] => self.what.clone(),
            about if about.len() <= SHOWN => format!("{}: {}", self.what, about.join(", ")),
            about => {
                let more = about.len() - SHOWN;
                format!("{}: {} and {more} more", self.what, about[..SHOWN].join(", "))
            }
        };
        // What is quoted may have characters that would steer a terminal.
        for c in text.chars() {
            if c.is_control() { write!(f, "{}", c.escape_debug())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

/// Notes in the making: those that say the same of different things become one.
#[derive(Clone, Default)]
pub(super) struct Notes {
    list: Vec<Note>,
    /// The position of each note, and what it is about already.
    known: BTreeMap<String, (usize, BTreeSet<String>)>,
}

impl Notes {
    /// Says something of one thing.
    pub(super) fn add(&mut self, what: impl Into<String>, about: impl Into<String>) {
        let (what, about) = (what.into(), about.into());
        let next = self.list.len();
        let (at, known) = self.known.entry(what.clone()).or_insert((next, BTreeSet::new()));
        if *at == next {
            self.list.push(Note { what, about: Vec::new() });
        }
        if known.insert(about.clone()) {
            self.list[*at].about.push(about);
        }
    }

    /// Says something of nothing in particular.
    pub(super) fn say(&mut self, what: impl Into<String>) {
        self.list.push(Note { what: what.into(), about: Vec::new() });
    }

    pub(super) fn into_list(self) -> Vec<Note> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_that_say_the_same_are_one() {
        let mut notes = Notes::default();
        notes.add("left out", "a");
        notes.add("opaque", "c");
        notes.add("left out", "b");
        notes.add("left out", "a");
        let told: Vec<String> = notes.into_list().iter().map(Note::to_string).collect();
        assert_eq!(told, ["left out: a, b", "opaque: c"]);
    }

    #[test]
    fn a_note_about_many_tells_how_many() {
        let mut notes = Notes::default();
        for number in 0..20 {
            notes.add("left out", format!("x{number}\u{1b}"));
        }
        let list = notes.into_list();
        assert_eq!(list[0].about().len(), 20);
        let told = list[0].to_string();
        assert!(told.starts_with("left out: x0\\u{1b}, x1"), "{told}");
        assert!(told.ends_with(", x5\\u{1b} and 14 more"), "{told}");
    }
}
