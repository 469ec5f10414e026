//! `[[load_balancer]]` and its nodes.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use router::source::{Located, Problem};

use super::address::{family, underlay};
use super::field::Field;
use super::form::{LoadBalancerForm, NodeForm};
use super::names::Names;
use super::preset::Preset;
use super::reader::{Reader, Table};
use super::settings::{LoadBalancer, Node, UnknownFlow};
use super::values::{Name, NetnsName};

/// A load balancer as far as it was understood, with the places that others point to.
#[derive(Debug)]
pub(super) struct LoadBalancerDraft {
    pub(super) span: Range<usize>,
    pub(super) name: Option<Name>,
    pub(super) target_group: Option<Located<usize>>,
    pub(super) nodes: Vec<NodeDraft>,
    /// Whether `nodes` are all that the file has.
    pub(super) nodes_complete: bool,
    pub(super) cross_zone: bool,
    pub(super) netns: Option<NetnsName>,
    /// Where the TCP idle timeout was given, if it is not the default.
    pub(super) custom_tcp_idle_timeout: Option<Range<usize>>,
    /// Where resets were asked for.
    pub(super) reset: Option<Range<usize>>,
    settled: Settled,
}

/// What nobody else asks for.
#[derive(Debug)]
struct Settled {
    tcp_idle_timeout: Duration,
    other_idle_timeout: Duration,
    tcp_unknown_flow: UnknownFlow,
}

/// A node as far as it was understood.
#[derive(Debug)]
pub(super) struct NodeDraft {
    pub(super) zone: Option<Located<String>>,
    pub(super) address: Option<Located<IpAddr>>,
}

/// Checks one table by itself.
pub(super) fn check(
    reader: &mut Reader<'_>,
    form: Located<LoadBalancerForm>,
    groups: &Names,
    preset: &Preset,
) -> LoadBalancerDraft {
    let table = Table { name: "[[load_balancer]]", span: form.span() };
    let form = form.into_inner();
    let name = reader.name(form.name, &table);
    let group = reader.required("target_group", form.target_group, &table, "\"fw\"");
    let target_group =
        group.and_then(|group| Some(Located::new(groups.resolve(reader, &group)?, group.span())));
    let example = "[{ zone = \"az1\", address = \"192.0.2.1\" }]";
    let nodes = reader.required("nodes", form.nodes, &table, example);
    let (nodes, nodes_complete) =
        nodes.map_or((Vec::new(), false), |list| check_nodes(reader, list));
    let netns = reader.netns(form.netns);
    let extended = reader.or_default("extended_ranges", form.extended_ranges, false);
    let mut timeout = |key, field, limit| reader.limited(key, field, limit, preset, extended);
    let tcp = form.tcp_idle_timeout_seconds;
    let tcp = timeout("tcp_idle_timeout_seconds", tcp, &preset.tcp_idle_timeout);
    let other = form.other_idle_timeout_seconds;
    let other = timeout("other_idle_timeout_seconds", other, &preset.other_idle_timeout);
    let reset = form.send_tcp_reset_on_idle_timeout;
    let reset_span = reset.given().filter(|reset| ***reset).map(Located::span);
    reader.or_default("load_balancer.send_tcp_reset_on_idle_timeout", reset, false);
    LoadBalancerDraft {
        span: table.span,
        name,
        target_group,
        nodes,
        nodes_complete,
        cross_zone: reader.or_default("cross_zone", form.cross_zone, preset.cross_zone),
        netns,
        custom_tcp_idle_timeout: tcp.given_unlike(&preset.tcp_idle_timeout),
        reset: reset_span,
        settled: Settled {
            tcp_idle_timeout: tcp.seconds(),
            other_idle_timeout: other.seconds(),
            tcp_unknown_flow: reader.or_default(
                "tcp_unknown_flow",
                form.tcp_unknown_flow,
                UnknownFlow::default(),
            ),
        },
    }
}

/// The nodes, and whether each was understood.
fn check_nodes(
    reader: &mut Reader<'_>,
    list: Located<Vec<Field<NodeForm>>>,
) -> (Vec<NodeDraft>, bool) {
    let (span, count) = (list.span(), list.len());
    let forms = reader.items("nodes", list.into_inner());
    if count == 0 {
        reader.report(
            Problem::at(span, "a load balancer needs a node in at least one zone")
                .label("no node")
                .help("for example: nodes = [{ zone = \"az1\", address = \"192.0.2.1\" }]"),
        );
    }
    let whole = forms.len() == count;
    let nodes: Vec<NodeDraft> = forms
        .into_iter()
        .map(|form| {
            let table = Table { name: "node", span: form.span() };
            let form = form.into_inner();
            let zone = reader.required("zone", form.zone, &table, "\"az1\"");
            let address = reader.required("address", form.address, &table, "\"192.0.2.1\"");
            let address = reader.checked(
                "address",
                address,
                underlay,
                "a node has one outer address, which its targets answer to",
            );
            NodeDraft { zone, address }
        })
        .collect();
    for (index, node) in nodes.iter().enumerate() {
        check_node(reader, node, &nodes[..index]);
    }
    let complete = whole && nodes.iter().all(|node| node.zone.is_some() && node.address.is_some());
    (nodes, complete && count > 0)
}

/// Compares a node with those before it.
fn check_node(reader: &mut Reader<'_>, node: &NodeDraft, before: &[NodeDraft]) {
    if let Some(zone) = &node.zone
        && let Some(first) =
            before.iter().filter_map(|node| node.zone.as_ref()).find(|z| *z == zone)
    {
        reader.report(
            zone.problem(format!("this load balancer has two nodes in zone {:?}", zone.get()))
                .label("the second one")
                .and(first.span(), "the first one")
                .help("a load balancer has one node in each zone"),
        );
    }
    if let Some(address) = &node.address
        && let Some(first) = before.iter().find_map(|node| node.address.as_ref())
        && first.is_ipv4() != address.is_ipv4()
    {
        reader.report(
            address
                .problem("the nodes of a load balancer are of one address family")
                .label(format!("{} here", family(**address)))
                .and(first.span(), format!("{} there", family(**first)))
                .help("the packets inside can be IPv4 and IPv6, whatever the outer family is"),
        );
    }
}

/// Compares all load balancers: an address in a namespace is one node's.
pub(super) fn check_together(reader: &mut Reader<'_>, drafts: &[LoadBalancerDraft]) {
    let mut seen: Vec<(&Located<IpAddr>, Option<&NetnsName>)> = Vec::new();
    for draft in drafts {
        for address in draft.nodes.iter().filter_map(|node| node.address.as_ref()) {
            let netns = draft.netns.as_ref();
            match seen.iter().find(|(other, at)| *other == address && *at == netns) {
                Some((first, _)) => reader.report(
                    address
                        .problem(format!("two nodes have the address {}", address.get()))
                        .label("the second one")
                        .and(first.span(), "the first one")
                        .help("an answer is told apart by the node's address that it comes to"),
                ),
                None => seen.push((address, netns)),
            }
        }
    }
}

impl LoadBalancerDraft {
    /// The first address, which says what family the outer packets have.
    pub(super) fn any_address(&self) -> Option<&Located<IpAddr>> {
        self.nodes.iter().find_map(|node| node.address.as_ref())
    }

    /// The zones that it has a node in, in the order of the nodes.
    pub(super) fn zones(&self) -> impl Iterator<Item = &str> + Clone {
        self.nodes.iter().filter_map(|node| node.zone.as_ref().map(|zone| zone.get().as_str()))
    }

    /// The settings, if everything was understood.
    pub(super) fn finish(self) -> Option<LoadBalancer> {
        let node = |node: NodeDraft| {
            Some(Node { zone: node.zone?.into_inner(), address: *node.address?.get() })
        };
        Some(LoadBalancer {
            name: self.name?,
            target_group: *self.target_group?.get(),
            nodes: self.nodes.into_iter().map(node).collect::<Option<_>>()?,
            netns: self.netns,
            cross_zone: self.cross_zone,
            tcp_idle_timeout: self.settled.tcp_idle_timeout,
            other_idle_timeout: self.settled.other_idle_timeout,
            send_tcp_reset_on_idle_timeout: self.reset.is_some(),
            tcp_unknown_flow: self.settled.tcp_unknown_flow,
        })
    }
}
