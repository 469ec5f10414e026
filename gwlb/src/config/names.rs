//! Names and what they refer to: no two of a kind alike, no reference to what is not there.

use router::source::{Located, Problem};

use super::field::Field;
use super::reader::{Reader, suggestion};

/// All names of one kind, in the order of the file.
#[derive(Debug)]
pub(super) struct Names {
    /// The table, such as `load_balancer`.
    table: &'static str,
    /// What it is called in messages, such as "load balancer".
    kind: &'static str,
    list: Vec<Option<Located<String>>>,
    /// Whether these are all. If not, nothing is said about a name that is not among them: what
    /// hides it is reported already.
    complete: bool,
}

impl Names {
    /// Collects the names and reports those that are there twice. Entries whose name is missing
    /// keep their place.
    pub(super) fn collect<'a>(
        reader: &mut Reader<'_>,
        table: &'static str,
        kind: &'static str,
        fields: impl Iterator<Item = &'a Field<String>>,
        complete: bool,
    ) -> Names {
        let names: Vec<_> = fields.map(|field| field.given().cloned()).collect();
        for (index, name) in names.iter().enumerate() {
            let Some(name) = name else { continue };
            let first = names[..index].iter().flatten().find(|first| *first == name);
            if let Some(first) = first {
                reader.report(
                    name.problem(format!("there are two {kind}s named {:?}", name.get()))
                        .label("the second one")
                        .and(first.span(), "the first one")
                        .help("give each a name of its own"),
                );
            }
        }
        let complete = complete && names.iter().all(Option::is_some);
        Names { table, kind, list: names, complete }
    }

    /// Collects names that the router checks.
    pub(super) fn of_router<'a>(
        table: &'static str,
        kind: &'static str,
        names: impl Iterator<Item = &'a Located<String>>,
        complete: bool,
    ) -> Names {
        Names { table, kind, list: names.cloned().map(Some).collect(), complete }
    }

    /// The index of what is referred to.
    pub(super) fn resolve(&self, reader: &mut Reader<'_>, name: &Located<String>) -> Option<usize> {
        let index = self.list.iter().position(|known| known.as_ref() == Some(name));
        if index.is_none() && self.complete {
            reader.report(self.dangling(name));
        }
        index
    }

    /// How something is called in messages: by its name, if it has one.
    pub(super) fn of(&self, index: usize) -> &str {
        self.list[index].as_ref().map_or("?", |name| name.get())
    }

    fn dangling(&self, name: &Located<String>) -> Problem {
        let Names { table, kind, list, .. } = self;
        let known = list.iter().flatten().map(|name| name.get().as_str());
        let none = format!("this file has no [[{table}]]; add one with name = {:?}", name.get());
        name.problem(format!("there is no {kind} {:?}", name.get()))
            .label(format!("no [[{table}]] has this name"))
            .help(suggestion(name, known, &none))
    }
}
