//! The table of `docs/seeded-faults.md`: which fault is found by what.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use gwlb::fault::Fault;

use super::hunt::{Breach, Finds};

/// The document, which is all made from its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table(BTreeMap<Fault, Row>);

/// What has found a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub fault: Fault,
    pub finds: Finds,
}

const INTRODUCTION: &str = include_str!("introduction.md");

const HEAD: &str = "\
| fault | what is wrong | what it breaks | expected otherwise | does not hold in a scenario | in a history | in a simulation |
|---|---|---|---|---|---|---|
";

/// In a cell: this search finds nothing.
const NOTHING: &str = "–";

impl Table {
    pub(crate) fn path() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/seeded-faults.md")
    }

    /// The rows of a document, as far as there are any.
    pub(crate) fn read(text: &str) -> Table {
        let rows = text.lines().filter_map(Row::read);
        Table(rows.map(|row| (row.fault, row)).collect())
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.0.values()
    }

    pub(crate) fn row(&self, fault: Fault) -> Option<&Row> {
        self.0.get(&fault)
    }

    pub(crate) fn put(&mut self, row: Row) {
        self.0.insert(row.fault, row);
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{INTRODUCTION}\n{HEAD}")?;
        self.rows().try_for_each(|row| writeln!(f, "{row}"))
    }
}

impl Row {
    fn read(line: &str) -> Option<Row> {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let &["", name, _, _, expectation, scenario, history, seed, ""] = cells.as_slice() else {
            return None;
        };
        let name = name.trim_matches('`');
        let fault = *Fault::ALL.iter().find(|fault| fault.name() == name)?;
        let finds = Finds {
            expectation: read_expectation(expectation),
            scenario: read_breach(scenario),
            history: read_breach(history),
            seed: read_breach(seed),
        };
        Some(Row { fault, finds })
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { fault, finds: Finds { expectation, scenario, history, seed } } = self;
        let (about, breaks) = (fault.about(), fault.breaks());
        write!(f, "| `{fault}` | {about} | {breaks} | ")?;
        match expectation {
            Some((name, 1)) => write!(f, "`{name}`")?,
            Some((name, of)) => write!(f, "`{name}` and {} more", of - 1)?,
            None => f.write_str(NOTHING)?,
        }
        let (scenario, history, seed) =
            (breach(scenario.as_ref()), breach(history.as_ref()), breach(seed.as_ref()));
        write!(f, " | {scenario} | {history} | {seed} |")
    }
}

fn breach<T: Display>(found: Option<&(T, Breach)>) -> String {
    found.map_or(NOTHING.to_owned(), |(place, Breach(what))| format!("`{place}`: {what}"))
}

fn read_breach<T: std::str::FromStr>(cell: &str) -> Option<(T, Breach)> {
    let (place, what) = cell.strip_prefix('`')?.split_once("`: ")?;
    Some((place.parse().ok()?, Breach(what.to_owned())))
}

fn read_expectation(cell: &str) -> Option<(String, usize)> {
    let (name, more) = cell.strip_prefix('`')?.split_once('`')?;
    let more = more.strip_prefix(" and ").and_then(|more| more.strip_suffix(" more"));
    Some((name.to_owned(), 1 + more.map_or(Some(0), |more| more.parse().ok())?))
}

#[test]
fn a_table_reads_as_it_was_written() {
    let breach = || Breach("symmetry".to_owned());
    let finds = [
        Finds::default(),
        Finds { expectation: Some(("routes".to_owned(), 1)), ..Finds::default() },
        Finds {
            expectation: Some(("icmp-ipv4".to_owned(), 12)),
            scenario: Some(("icmp-ipv6".to_owned(), breach())),
            history: Some((7, breach())),
            seed: Some((3, breach())),
        },
    ];
    let mut table = Table::default();
    for (&fault, finds) in Fault::ALL.iter().zip(finds) {
        table.put(Row { fault, finds });
    }
    assert_eq!(Table::read(&table.to_string()), table);
}
