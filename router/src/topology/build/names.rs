//! Names and references: each name of a kind once, each reference to something that is there.

use std::collections::HashMap;
use std::ops::Range;

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

pub(super) const VIRTUAL_PRIVATE_GATEWAY: Kind =
    Kind { noun: "virtual private gateway", article: "a", table: "virtual_private_gateway" };
pub(super) const EGRESS_ONLY: Kind = Kind {
    noun: "egress-only internet gateway",
    article: "an",
    table: "egress_only_internet_gateway",
};
pub(super) const OPAQUE: Kind = Kind { noun: "opaque target", article: "an", table: "opaque" };
pub(super) const INTERFACE: Kind =
    Kind { noun: "network interface", article: "a", table: "network_interface" };
pub(super) const NAT_GATEWAY: Kind =
    Kind { noun: "NAT gateway", article: "a", table: "nat_gateway" };
pub(super) const TRANSIT_GATEWAY: Kind =
    Kind { noun: "transit gateway", article: "a", table: "transit_gateway" };
pub(super) const TRANSIT_TABLE: Kind = Kind {
    noun: "transit gateway route table",
    article: "a",
    table: "transit_gateway_route_table",
};
pub(super) const TRANSIT_ATTACHMENT: Kind =
    Kind { noun: "transit gateway attachment", article: "a", table: "transit_gateway_attachment" };
pub(super) const PREFIX_LIST: Kind =
    Kind { noun: "prefix list", article: "a", table: "prefix_list" };
pub(super) const GROUP: Kind =
    Kind { noun: "endpoint group", article: "an", table: "endpoint_group" };

/// The longest name.
const LONGEST: usize = 64;

/// Takes all names of a file.
pub(super) fn collect(file: &RouterFile, problems: &mut Vec<Problem>) -> Names {
    let mut taker = Taker { problems };
    // Each VPC has an implicit table besides those of the file.
    let tables = 0..MOST.saturating_sub(file.vpcs.len());
    // Kinds that share their ids stand behind each other.
    let [vgws, egress_only] =
        [file.virtual_private_gateways.len(), file.egress_only_internet_gateways.len()];
    let interfaces = file.network_interfaces.len();
    Names {
        vpcs: taker.take(VPC, 0..MOST, &file.vpcs, |it| &it.name),
        subnets: taker.take(SUBNET, 0..MOST, &file.subnets, |it| &it.name),
        gateways: taker.take(GATEWAY, 0..MOST, &file.internet_gateways, |it| &it.name),
        virtual_private_gateways: taker.take(
            VIRTUAL_PRIVATE_GATEWAY,
            0..MOST,
            &file.virtual_private_gateways,
            |it| &it.name,
        ),
        egress_only_internet_gateways: taker.take(
            EGRESS_ONLY,
            vgws..MOST,
            &file.egress_only_internet_gateways,
            |it| &it.name,
        ),
        opaques: taker.take(OPAQUE, vgws + egress_only..MOST, &file.opaques, |it| &it.name),
        network_interfaces: taker.take(INTERFACE, 0..MOST, &file.network_interfaces, |it| &it.name),
        nat_gateways: taker.take(NAT_GATEWAY, interfaces..MOST, &file.nat_gateways, |it| &it.name),
        transit_gateways: taker
            .take(TRANSIT_GATEWAY, 0..MOST, &file.transit_gateways, |it| &it.name),
        transit_tables: taker.take(
            TRANSIT_TABLE,
            0..MOST,
            &file.transit_gateway_route_tables,
            |it| &it.name,
        ),
        transit_attachments: taker.take(
            TRANSIT_ATTACHMENT,
            0..MOST,
            &file.transit_gateway_attachments,
            |it| &it.name,
        ),
        prefix_lists: taker.take(PREFIX_LIST, 0..MOST, &file.prefix_lists, |it| &it.name),
        tables: taker.take(TABLE, tables, &file.route_tables, |it| &it.name),
        endpoints: taker.take(ENDPOINT, 0..MOST, &file.endpoints, |it| &it.name),
        groups: taker.take(GROUP, 0..MOST, &file.endpoint_groups, |it| &it.name),
    }
}

struct Taker<'p> {
    problems: &'p mut Vec<Problem>,
}

impl Taker<'_> {
    /// The names of one kind, whose ids are these.
    fn take<'f, T, I: Id>(
        &mut self,
        kind: Kind,
        ids: Range<usize>,
        all: &'f [Located<T>],
        name: impl Fn(&'f T) -> &'f Located<String>,
    ) -> HashMap<String, I> {
        index(kind, ids, all.iter().map(|it| name(it.get())), self.problems)
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
    room: Range<usize>,
    names: impl Iterator<Item = &'f Located<String>>,
    problems: &mut Vec<Problem>,
) -> HashMap<String, I> {
    let mut first: HashMap<&str, &Located<String>> = HashMap::new();
    let mut ids = HashMap::new();
    for (position, name) in names.enumerate().map(|(at, name)| (room.start + at, name)) {
        if position == room.end {
            let Kind { noun, table, .. } = kind;
            let most = room.len();
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
