//! Names and references: each name of a kind once, each reference to something that is there.

use std::collections::HashMap;

use super::super::Names;
use super::super::ids::{Id, MOST};
use crate::config::RouterFile;
use crate::source::{Located, Problem, nearest};

/// A kind of thing that has names.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// As in "there is no route table".
    noun: &'static str,
    /// As in "the name of a route table".
    article: &'static str,
    /// As in `[[route_table]]`.
    table: &'static str,
}

pub(super) const VPC: Kind = Kind { noun: "VPC", article: "a", table: "vpc" };
pub(super) const SUBNET: Kind = Kind { noun: "subnet", article: "a", table: "subnet" };
pub(super) const GATEWAY: Kind =
    Kind { noun: "internet gateway", article: "an", table: "internet_gateway" };
pub(super) const TABLE: Kind = Kind { noun: "route table", article: "a", table: "route_table" };
pub(super) const ENDPOINT: Kind = Kind { noun: "endpoint", article: "an", table: "endpoint" };

/// The longest name.
const LONGEST: usize = 64;

/// Takes all names of a file.
pub(super) fn collect(file: &RouterFile, problems: &mut Vec<Problem>) -> Names {
    // Each VPC has an implicit table besides those of the file.
    let tables = MOST.saturating_sub(file.vpcs.len());
    Names {
        vpcs: index(VPC, MOST, file.vpcs.iter().map(|vpc| &vpc.name), problems),
        subnets: index(SUBNET, MOST, file.subnets.iter().map(|subnet| &subnet.name), problems),
        gateways: index(
            GATEWAY,
            MOST,
            file.internet_gateways.iter().map(|gateway| &gateway.name),
            problems,
        ),
        tables: index(TABLE, tables, file.route_tables.iter().map(|table| &table.name), problems),
        endpoints: index(
            ENDPOINT,
            MOST,
            file.endpoints.iter().map(|endpoint| &endpoint.name),
            problems,
        ),
    }
}

/// What a reference refers to; unresolved, with a problem, if there is no such thing.
pub(super) fn resolve<I: Id>(
    kind: Kind,
    ids: &HashMap<String, I>,
    reference: &Located<String>,
    problems: &mut Vec<Problem>,
) -> I {
    if let Some(id) = ids.get(reference.get()) {
        return *id;
    }
    let Kind { noun, table, .. } = kind;
    let mut names: Vec<&str> = ids.keys().map(String::as_str).collect();
    names.sort_unstable();
    let help = if let Some(near) = nearest(reference, names.iter().copied()) {
        format!("did you mean \"{near}\"?")
    } else if names.is_empty() {
        format!("this file has no [[{table}]] yet")
    } else {
        format!("there {}", shortened(&names))
    };
    problems.push(
        reference
            .problem(format!("there is no {noun} \"{}\"", reference.get()))
            .label(format!("no [[{table}]] has this name"))
            .help(help),
    );
    I::from_position(usize::MAX)
}

/// "is a" or "are a, b and c", as far as a reader wants to read.
fn shortened(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    match names {
        [one] => format!("is \"{one}\""),
        names if names.len() <= SHOWN => format!("are {}", names.join(", ")),
        names => {
            let more = names.len() - SHOWN;
            format!("are {} and {more} more", names[..SHOWN].join(", "))
        }
    }
}

fn index<'f, I: Id>(
    kind: Kind,
    most: usize,
    names: impl Iterator<Item = &'f Located<String>>,
    problems: &mut Vec<Problem>,
) -> HashMap<String, I> {
    let mut first: HashMap<&str, &Located<String>> = HashMap::new();
    let mut ids = HashMap::new();
    for (position, name) in names.enumerate() {
        if position == most {
            let Kind { noun, table, .. } = kind;
            problems.push(
                name.problem(format!("there is room for {most} tables [[{table}]]"))
                    .label(format!("this {noun} is one too many")),
            );
        }
        check_name(kind, name, problems);
        if let Some(first) = first.get(name.as_str()) {
            problems.push(
                name.problem(format!("there are two {}s named \"{}\"", kind.noun, name.get()))
                    .label("used again here")
                    .and(first.span(), "first used here")
                    .help("references would not know which one is meant: rename one of them"),
            );
        } else {
            first.insert(name, name);
            ids.insert(name.get().clone(), I::from_position(position));
        }
    }
    ids
}

/// Names are written in references, in `kind:name` on the command line, and in patterns with `*`.
fn check_name(kind: Kind, name: &Located<String>, problems: &mut Vec<Problem>) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let help = format!("a name has 1 to {LONGEST} letters, digits, hyphens, underscores and dots");
    let wrong = if name.is_empty() {
        Some("it is empty".to_owned())
    } else if name.len() > LONGEST {
        Some(format!("it has {} characters", name.chars().count()))
    } else {
        name.chars().find(|c| !allowed(*c)).map(|c| format!("it has {c:?} in it"))
    };
    if let Some(wrong) = wrong {
        problems.push(
            name.problem(format!(
                "this cannot be the name of {} {}: {wrong}",
                kind.article, kind.noun
            ))
            .label("not a name")
            .help(help),
        );
    }
}
