//! Turns the form of a file into a topology, or into everything that is wrong with it.
//!
//! Each check goes on where another failed: what a broken reference should have been is not known,
//! so the checks that need it are left out, and no problem is told that is only the shadow of
//! another. Whose rules hold, the file says ([`RouterFile::rules`]).

mod addresses;
mod cidr;
mod edges;
mod endpoints;
mod gateways;
mod groups;
mod intents;
mod interfaces;
mod lists;
mod loops;
mod names;
mod routes;
mod rules;
mod space;
mod tables;
mod transit;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::ids::Id;
use super::{
    Edge, Endpoint, EndpointGroup, Intent, Interface, InterfaceId, InternetGateway, Names,
    PrefixList, PrefixListId, RouteTable, Subnet, SubnetId, TableId, Topology, TransitAttachment,
    TransitGateway, TransitTable, Vpc, VpcId,
};
use crate::config::RouterFile;
use crate::rules::{Rule, RuleSet};
use crate::source::{Problem, Problems, Source};

pub use endpoints::derived_wire_id;

/// What becomes of tables in which a packet would circle between endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circles {
    /// They are refused, as by who moves packets.
    Refused,
    /// They are kept, as by who explains networks as they are.
    Kept,
}

impl Topology {
    /// Checks the tables of a file against each other and against the rules that they are held to.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the file. `source` is the text that the file was
    /// read from.
    pub fn build(file: &RouterFile, source: &Source) -> Result<Topology, Problems> {
        Topology::build_with(file, source, Circles::Refused)
    }

    /// The same, for circles as they are wanted.
    ///
    /// # Errors
    /// As for [`Topology::build`].
    pub fn build_with(
        file: &RouterFile,
        source: &Source,
        circles: Circles,
    ) -> Result<Topology, Problems> {
        Topology::of(Draft::new(file), source, circles).map(|(topology, _)| topology)
    }

    /// The topology of a network that is being changed, circles kept. What is left over in it is
    /// told apart: whether somebody refuses it depends on the change.
    pub(crate) fn build_between(
        file: &RouterFile,
        source: &Source,
    ) -> Result<(Topology, Vec<Leftover>), Problems> {
        let draft = Draft { leftovers: Some(Vec::new()), ..Draft::new(file) };
        Topology::of(draft, source, Circles::Kept)
    }

    fn of(
        mut draft: Draft<'_>,
        source: &Source,
        circles: Circles,
    ) -> Result<(Topology, Vec<Leftover>), Problems> {
        let file = draft.file;
        draft.add_vpcs();
        draft.add_subnets();
        draft.add_tables();
        draft.add_gateways();
        draft.add_edges();
        // Addresses that are written come before those that are found.
        draft.add_interfaces();
        draft.add_endpoints();
        draft.finish_interfaces();
        draft.add_groups();
        draft.add_prefix_lists();
        draft.add_transit();
        draft.add_routes();
        if circles == Circles::Refused {
            draft.find_loops();
        }
        draft.add_intents();
        Problems::check(source, draft.problems)?;
        // Only now: nothing in a file may refer to them.
        for (index, table) in draft.tables.iter().enumerate().skip(file.route_tables.len()) {
            draft.names.tables.insert(table.name().to_owned(), TableId::from_position(index));
        }
        let table_of_endpoint =
            draft.endpoints.iter().map(|endpoint| draft.subnets[endpoint.subnet.index()].table);
        let mut topology = Topology {
            table_of_endpoint: table_of_endpoint.collect(),
            rules: draft.rules,
            vpcs: draft.vpcs,
            subnets: draft.subnets,
            gateways: draft.gateways,
            edges: draft.edges,
            interfaces: draft.interfaces,
            transit_gateways: draft.transit_gateways,
            transit_tables: draft.transit_tables,
            transit_attachments: draft.transit_attachments,
            prefix_lists: draft.prefix_lists,
            tables: draft.tables,
            endpoints: draft.endpoints,
            groups: draft.groups,
            intents: draft.intents,
            names: draft.names,
            subnet_of: draft.subnet_of,
            interface_of: draft.interface_of,
            fibs: Vec::new(),
        };
        topology.fibs = topology.tables.iter().map(|table| topology.fib(table)).collect();
        Ok((topology, draft.leftovers.unwrap_or_default()))
    }
}

/// A route that could not be made where it is: its destination is no range of the VPC or of a subnet
/// (any more). A cloud looks at that when the route is made, and lets it be when the subnet goes: no
/// source says otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Leftover {
    /// The name of its table.
    pub table: String,
    /// What it is for.
    pub destination: IpNet,
    /// Why it could not be made.
    pub problem: Problem,
}

/// The rules about destinations by which routes are made.
const OF_MAKING: [Rule; 2] = [Rule::EdgeDestination, Rule::LocalDestination];

/// A topology in the making. As long as there are problems, ids in it may be unresolved.
struct Draft<'f> {
    file: &'f RouterFile,
    rules: RuleSet,
    problems: Vec<Problem>,
    /// Where they are told apart: the routes that could not be made.
    leftovers: Option<Vec<Leftover>>,
    names: Names,
    vpcs: Vec<Vpc>,
    subnets: Vec<Subnet>,
    gateways: Vec<InternetGateway>,
    edges: Vec<Edge>,
    interfaces: Vec<Interface>,
    transit_gateways: Vec<TransitGateway>,
    transit_tables: Vec<TransitTable>,
    transit_attachments: Vec<TransitAttachment>,
    prefix_lists: Vec<PrefixList>,
    tables: Vec<RouteTable>,
    endpoints: Vec<Endpoint>,
    groups: Vec<EndpointGroup>,
    intents: Vec<Intent>,
    subnet_of: Vec<JointPrefixMap<IpNet, SubnetId>>,
    interface_of: Vec<HashMap<IpAddr, InterfaceId>>,
    /// For each VPC, whether all ranges of it and of its subnets are understood. Where they are
    /// not, nothing can be said to lie outside.
    whole: Vec<bool>,
    /// For each table, the gateway's reference that makes it a gateway table.
    edge: Vec<Option<Range<usize>>>,
    /// For each table, the places of its routes.
    route_places: Vec<HashMap<IpNet, Range<usize>>>,
    /// For each table, the places of what it has for prefix lists and by propagation.
    other_places: Vec<HashMap<IpNet, Range<usize>>>,
    /// Which prefix lists a table has a route for.
    listed: HashMap<(usize, PrefixListId), Range<usize>>,
    /// The addresses that somebody has, with the place that says so.
    taken: HashMap<(VpcId, IpAddr), Range<usize>>,
    /// The private addresses that a public one stands for, with the place that says so.
    mapped: HashMap<(VpcId, IpAddr), Range<usize>>,
    /// The public addresses that stand for somebody.
    public: HashMap<Ipv4Addr, Range<usize>>,
}

impl<'f> Draft<'f> {
    fn new(file: &'f RouterFile) -> Draft<'f> {
        let mut problems = Vec::new();
        Draft {
            names: names::collect(file, &mut problems),
            file,
            rules: file.rules(),
            problems,
            leftovers: None,
            vpcs: Vec::new(),
            subnets: Vec::new(),
            gateways: Vec::new(),
            edges: Vec::new(),
            interfaces: Vec::new(),
            transit_gateways: Vec::new(),
            transit_tables: Vec::new(),
            transit_attachments: Vec::new(),
            prefix_lists: Vec::new(),
            tables: Vec::new(),
            endpoints: Vec::new(),
            groups: Vec::new(),
            intents: Vec::new(),
            subnet_of: vec![JointPrefixMap::new(); file.vpcs.len()],
            interface_of: vec![HashMap::new(); file.vpcs.len()],
            whole: vec![true; file.vpcs.len()],
            edge: vec![None; file.route_tables.len()],
            route_places: vec![HashMap::new(); file.route_tables.len()],
            other_places: vec![HashMap::new(); file.route_tables.len()],
            listed: HashMap::new(),
            taken: HashMap::new(),
            mapped: HashMap::new(),
            public: HashMap::new(),
        }
    }

    /// Notes the problem with a route.
    fn refuse(&mut self, table: &str, destination: IpNet, problem: Problem) {
        let is_of_making = problem.broken_rule().is_some_and(|(rule, _)| OF_MAKING.contains(&rule));
        match &mut self.leftovers {
            Some(leftovers) if is_of_making => {
                leftovers.push(Leftover { table: table.to_owned(), destination, problem });
            }
            _ => self.problems.push(problem),
        }
    }

    /// Notes a problem, or gives the value.
    fn accept<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }
}
