//! Turns the form of a file into a topology, or into everything that is wrong with it.
//!
//! Each check goes on where another failed: what a broken reference should have been is not known,
//! so the checks that need it are left out, and no problem is told that is only the shadow of
//! another. The rules are AWS's, as `semantics.md` 1c and 1d tell them.

mod cidr;
mod endpoints;
mod gateways;
mod intents;
mod loops;
mod names;
mod routes;
mod rules;
mod space;
mod tables;

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::ids::Id;
use super::{
    Endpoint, Intent, InternetGateway, Names, RouteTable, Subnet, SubnetId, TableId, Topology, Vpc,
    VpcId,
};
use crate::config::RouterFile;
use crate::source::{Problem, Problems, Source};

pub use endpoints::derived_wire_id;

impl Topology {
    /// Checks the tables of a file against each other and against the clouds' rules.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the file. `source` is the text that the file was
    /// read from.
    pub fn build(file: &RouterFile, source: &Source) -> Result<Topology, Problems> {
        let mut draft = Draft::new(file);
        draft.add_vpcs();
        draft.add_subnets();
        draft.add_tables();
        draft.add_gateways();
        draft.add_endpoints();
        draft.add_routes();
        draft.find_loops();
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
            vpcs: draft.vpcs,
            subnets: draft.subnets,
            gateways: draft.gateways,
            tables: draft.tables,
            endpoints: draft.endpoints,
            intents: draft.intents,
            names: draft.names,
            subnet_of: draft.subnet_of,
            fibs: Vec::new(),
        };
        topology.fibs = topology.tables.iter().map(|table| topology.fib(table)).collect();
        Ok(topology)
    }
}

/// A topology in the making. As long as there are problems, ids in it may be unresolved.
struct Draft<'f> {
    file: &'f RouterFile,
    problems: Vec<Problem>,
    names: Names,
    vpcs: Vec<Vpc>,
    subnets: Vec<Subnet>,
    gateways: Vec<InternetGateway>,
    tables: Vec<RouteTable>,
    endpoints: Vec<Endpoint>,
    intents: Vec<Intent>,
    subnet_of: Vec<JointPrefixMap<IpNet, SubnetId>>,
    /// For each VPC, whether all ranges of it and of its subnets are understood. Where they are
    /// not, nothing can be said to lie outside.
    whole: Vec<bool>,
    /// For each table, the gateway's reference that makes it a gateway table.
    edge: Vec<Option<Range<usize>>>,
    /// For each table, the places of its routes.
    route_places: Vec<HashMap<IpNet, Range<usize>>>,
    /// The addresses that somebody has, with the place that says so.
    taken: HashMap<(VpcId, IpAddr), Range<usize>>,
}

impl<'f> Draft<'f> {
    fn new(file: &'f RouterFile) -> Draft<'f> {
        let mut problems = Vec::new();
        Draft {
            names: names::collect(file, &mut problems),
            file,
            problems,
            vpcs: Vec::new(),
            subnets: Vec::new(),
            gateways: Vec::new(),
            tables: Vec::new(),
            endpoints: Vec::new(),
            intents: Vec::new(),
            subnet_of: vec![JointPrefixMap::new(); file.vpcs.len()],
            whole: vec![true; file.vpcs.len()],
            edge: vec![None; file.route_tables.len()],
            route_places: vec![HashMap::new(); file.route_tables.len()],
            taken: HashMap::new(),
        }
    }

    /// Notes a problem, or gives the value.
    fn accept<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }
}
