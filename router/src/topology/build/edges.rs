//! Virtual private gateways, egress-only internet gateways, and what is opaque.

use super::super::ids::Id;
use super::super::{Edge, EdgeKind, Learned, TableId, VpcId};
use super::cidr::parse_cidr;
use super::{Draft, names};
use crate::source::Located;

impl Draft<'_> {
    /// All of them, in the order of their ids.
    pub(super) fn add_edges(&mut self) {
        let file = self.file;
        for gateway in &file.virtual_private_gateways {
            let vpc = self.vpc_for(&gateway.vpc);
            let table = match &gateway.route_table {
                Some(reference) => {
                    let user = format!("virtual private gateway \"{}\"", gateway.name.get());
                    self.edge_table(vpc, &user, reference)
                }
                None => self.local_table(vpc),
            };
            let mut learned = Vec::new();
            for route in &gateway.routes {
                let over = route.learned.as_deref().copied().unwrap_or(Learned::VpnBgp);
                let range = self.accept(parse_cidr(&route.destination));
                learned.extend(range.map(|range| (range, over)));
            }
            let kind = EdgeKind::VirtualPrivateGateway;
            self.edges.push(Edge { name: gateway.name.get().clone(), kind, vpc, table, learned });
        }
        for gateway in &file.egress_only_internet_gateways {
            let vpc = self.vpc_for(&gateway.vpc);
            let kind = EdgeKind::EgressOnlyInternetGateway;
            self.add_edge(&gateway.name, kind, vpc);
        }
        for opaque in &file.opaques {
            let vpc = self.vpc_for(&opaque.vpc);
            if opaque.kind.trim().is_empty() {
                self.problems.push(
                    opaque
                        .kind
                        .problem(format!("\"{}\" is of no kind", opaque.name.get()))
                        .label("the kind is empty")
                        .help("any word will do, such as \"vpc_peering_connection\""),
                );
            }
            self.add_edge(&opaque.name, EdgeKind::Opaque(opaque.kind.get().clone()), vpc);
        }
    }

    fn add_edge(&mut self, name: &Located<String>, kind: EdgeKind, vpc: VpcId) {
        let (name, table) = (name.get().clone(), self.local_table(vpc));
        self.edges.push(Edge { name, kind, vpc, table, learned: Vec::new() });
    }

    fn vpc_for(&mut self, reference: &Located<String>) -> VpcId {
        names::resolve(names::VPC, &self.names.vpcs, reference, &mut self.problems)
    }

    fn local_table(&self, vpc: VpcId) -> TableId {
        if vpc.is_resolved() { self.implicit_table(vpc) } else { TableId::UNRESOLVED }
    }
}
