//! Internet gateways: their tables, and the addresses that they translate.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use super::super::ids::Id;
use super::super::{AddressMapping, InternetGateway, TableId, VpcId};
use super::cidr::{is_reserved, parse_address};
use super::space::list;
use super::{Draft, names};
use crate::config;
use crate::rules::Rule;
use crate::source::{Located, Problem};

impl Draft<'_> {
    /// All gateways. Their mappings take private addresses, which endpoints then cannot have.
    pub(super) fn add_gateways(&mut self) {
        let file = self.file;
        for gateway in &file.internet_gateways {
            let vpc: VpcId =
                names::resolve(names::VPC, &self.names.vpcs, &gateway.vpc, &mut self.problems);
            let table = match &gateway.route_table {
                Some(reference) => {
                    let user = format!("internet gateway \"{}\"", gateway.name.get());
                    self.edge_table(vpc, &user, reference)
                }
                None if vpc.is_resolved() => self.implicit_table(vpc),
                None => TableId::UNRESOLVED,
            };
            let addresses =
                gateway.addresses.iter().filter_map(|mapping| self.mapping(vpc, mapping)).collect();
            let name = gateway.name.get().clone();
            self.gateways.push(InternetGateway { name, vpc, table, addresses });
        }
    }

    /// The table that a gateway uses for packets that come in.
    pub(super) fn edge_table(
        &mut self,
        vpc: VpcId,
        user: &str,
        reference: &Located<String>,
    ) -> TableId {
        let id = self.table_of(vpc, reference, user);
        if !id.is_resolved() {
            return id;
        }
        let file = self.file;
        let table = &file.route_tables[id.index()];
        let main = table.main.as_ref().filter(|flag| ***flag && Rule::EdgeMain.is_in(self.rules));
        if let Some(main) = main {
            // semantics 1d: "main cannot be deleted and cannot be a gateway table"
            self.problems.push(
                reference
                    .problem("a main table cannot be a gateway table")
                    .label(format!("{user} uses the main table of its VPC"))
                    .and(main.span(), "the main table")
                    .help("give the gateway a table of its own")
                    .rule(Rule::EdgeMain, self.rules),
            );
        }
        let propagating = table.propagating.first();
        if let Some(first) = propagating.filter(|_| Rule::EdgePropagation.is_in(self.rules)) {
            self.problems.push(
                reference
                    .problem("a table with propagated routes cannot be a gateway table")
                    .label(format!("{user} uses it"))
                    .and(first.span(), "its routes are in it")
                    .help("give the gateway a table of its own, without `propagating`")
                    .rule(Rule::EdgePropagation, self.rules),
            );
        }
        self.edge[id.index()].get_or_insert(reference.span());
        id
    }

    fn mapping(&mut self, vpc: VpcId, mapping: &config::AddressMapping) -> Option<AddressMapping> {
        let outside = self.public_address(vpc, &mapping.public);
        let inside = self.accept(mapped_address(&mapping.private));
        let (outside, inside) = (outside?, inside?);
        if vpc.is_resolved() && self.whole[vpc.index()] {
            let problem = self.wrong_private(vpc, inside.into(), &mapping.private);
            self.problems.extend(problem);
            let text = &mapping.private;
            if let Some(first) = self.mapped.get(&(vpc, inside.into())) {
                let problem = taken(inside.into(), text, first, "a second public address for it");
                self.problems.push(problem);
            }
            self.mapped.entry((vpc, inside.into())).or_insert(text.span());
        }
        Some(AddressMapping { public: outside.into(), private: inside.into() })
    }

    /// An address that the internet sees, for one private address of a VPC. The internet is one
    /// address space, whatever the VPC.
    pub(super) fn public_address(
        &mut self,
        vpc: VpcId,
        text: &Located<String>,
    ) -> Option<Ipv4Addr> {
        let address = self.accept(mapped_address(text))?;
        if let Some(first) = self.public.get(&address) {
            self.problems.push(
                text.problem(format!("the public address {address} stands for two private ones"))
                    .label("used again here")
                    .and(first.clone(), "first used here"),
            );
        }
        self.public.entry(address).or_insert(text.span());
        if vpc.is_resolved() && self.whole[vpc.index()] {
            let problem = self.wrong_public(vpc, address.into(), text);
            self.problems.extend(problem);
        }
        Some(address)
    }

    /// Notes that somebody has an address; a problem if somebody else does already. What a public
    /// address stands for is a machine's: its interface has it, and nothing else can.
    pub(super) fn take(
        &mut self,
        vpc: VpcId,
        address: IpAddr,
        text: &Located<String>,
        label: &str,
        is_machine: bool,
    ) {
        let key = (vpc, address);
        let of_machine = self.mapped.get(&key).filter(|_| !is_machine);
        let problem = self.taken.get(&key).or(of_machine);
        let problem = problem.map(|first| taken(address, text, first, label));
        self.problems.extend(problem);
        self.taken.entry(key).or_insert(text.span());
    }

    fn wrong_public(&self, vpc: VpcId, address: IpAddr, text: &Located<String>) -> Option<Problem> {
        let owner = &self.vpcs[vpc.index()];
        let cidr = owner.cidrs.iter().find(|cidr| cidr.contains(&address))?;
        Some(
            text.problem(format!("{address} is not public: it belongs to VPC \"{}\"", owner.name))
                .label(format!("within {cidr}"))
                .help("a public address is one that the VPC's own machines do not have"),
        )
    }

    fn wrong_private(
        &self,
        vpc: VpcId,
        address: IpAddr,
        text: &Located<String>,
    ) -> Option<Problem> {
        let owner = &self.vpcs[vpc.index()];
        let Some((range, subnet)) = self.subnet_of[vpc.index()].get_lpm(&address.into()) else {
            return Some(
                text.problem(format!("no subnet of VPC \"{}\" holds {address}", owner.name))
                    .label("not in any subnet of the gateway's VPC")
                    .help(format!("VPC \"{}\" has {}", owner.name, list(&owner.cidrs))),
            );
        };
        let name = &self.subnets[subnet.index()].name;
        is_reserved(&range, address).then(|| {
            text.problem(format!("{address} is reserved in subnet \"{name}\""))
                .label("no machine can have this address")
                .help(format!("the first four addresses of {range} and the last are reserved"))
        })
    }
}

fn taken(address: IpAddr, text: &Located<String>, first: &Range<usize>, label: &str) -> Problem {
    text.problem(format!("the address {address} is taken"))
        .label(label)
        .and(first.clone(), "taken here")
}

/// semantics 1d: "IPv6: no NAT".
fn mapped_address(text: &Located<String>) -> Result<Ipv4Addr, Problem> {
    let address = match parse_address(text)? {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => {
            return Err(text
                .problem("an internet gateway translates only IPv4 addresses")
                .label("an IPv6 address")
                .help("IPv6 addresses are public as they are: they need no mapping"));
        }
    };
    let nobody = address.is_unspecified()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast();
    if nobody {
        return Err(text
            .problem(format!("{address} is not the address of one machine"))
            .label("unspecified, loopback, link-local, multicast or broadcast"));
    }
    Ok(address)
}
