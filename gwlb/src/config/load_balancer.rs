//! `[[load_balancer]]` and its nodes.

use std::net::IpAddr;
use std::ops::Range;

use router::source::{Located, Problem};

use super::address::{family, one_host};
use super::field::Field;
use super::form::{LoadBalancerForm, NodeForm};
use super::names::Names;
use super::preset::Preset;
use super::reader::{Reader, Table};
use super::settings::{FlowTimers, LoadBalancer, Node, TrafficMode, UnknownFlow};
use super::timers;
use super::values::{Name, NetnsName, OutOfRange};

/// As many as a zone of a group has targets at most.
const MAX_SPILL_OVER: i64 = 300;

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
    pub(super) spill_over_below: u32,
    /// Where spill-over was asked for.
    pub(super) spill_over: Option<Range<usize>>,
    /// Where it was asked to let packets pass uninspected.
    pub(super) bypass: Option<Range<usize>>,
    /// Where outer packets were asked not to be fragmented.
    pub(super) dont_fragment: Option<Range<usize>>,
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
    timers: FlowTimers,
    tcp_unknown_flow: UnknownFlow,
    adopt_after_start: bool,
    tcp_mss_clamp: bool,
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
    let fields = timers::Fields {
        tcp_idle: form.tcp_idle_timeout_seconds,
        tcp_half_open: form.tcp_half_open_timeout_seconds,
        tcp_half_closed: form.tcp_half_closed_timeout_seconds,
        tcp_closed: form.tcp_closed_timeout_seconds,
        other_idle: form.other_idle_timeout_seconds,
    };
    let timers = timers::check(reader, fields, preset, extended);
    let reset = asked(&form.send_tcp_reset_on_idle_timeout, &true);
    reader.or_default("send_tcp_reset_on_idle_timeout", form.send_tcp_reset_on_idle_timeout, false);
    let bypass = asked(&form.traffic_mode, &TrafficMode::Bypass);
    reader.or_default("traffic_mode", form.traffic_mode, TrafficMode::default());
    let dont_fragment = asked(&form.outer_dont_fragment, &true);
    reader.or_default("outer_dont_fragment", form.outer_dont_fragment, false);
    let spill_over = reader.number(
        "spill_over_below_healthy_targets",
        form.spill_over_below_healthy_targets,
        |number| OutOfRange::check::<u32>(number, 0, MAX_SPILL_OVER),
        Some("0 keeps each zone to itself; 1 helps a zone that has no healthy target"),
    );
    LoadBalancerDraft {
        span: table.span,
        name,
        target_group,
        nodes,
        nodes_complete,
        cross_zone: reader.or_default("cross_zone", form.cross_zone, preset.cross_zone),
        spill_over_below: spill_over.as_ref().map_or(preset.spill_over_below, |n| *n.get()),
        spill_over: spill_over.filter(|number| *number.get() > 0).map(|number| number.span()),
        bypass,
        dont_fragment,
        netns,
        custom_tcp_idle_timeout: timers.custom_tcp_idle,
        reset,
        settled: Settled {
            timers: timers.timers,
            tcp_unknown_flow: reader.or_default(
                "tcp_unknown_flow",
                form.tcp_unknown_flow,
                UnknownFlow::default(),
            ),
            adopt_after_start: reader.or_default("adopt_after_start", form.adopt_after_start, true),
            tcp_mss_clamp: reader.or_default("tcp_mss_clamp", form.tcp_mss_clamp, false),
        },
    }
}

/// Where a field has this value.
fn asked<T: PartialEq>(field: &Field<T>, value: &T) -> Option<Range<usize>> {
    field.given().filter(|given| given.get() == value).map(Located::span)
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
                one_host,
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
            spill_over_below: self.spill_over_below,
            timers: self.settled.timers,
            send_tcp_reset_on_idle_timeout: self.reset.is_some(),
            tcp_unknown_flow: self.settled.tcp_unknown_flow,
            adopt_after_start: self.settled.adopt_after_start,
            traffic_mode: match self.bypass {
                Some(_) => TrafficMode::Bypass,
                None => TrafficMode::LoadBalance,
            },
            outer_dont_fragment: self.dont_fragment.is_some(),
            tcp_mss_clamp: self.settled.tcp_mss_clamp,
        })
    }
}
