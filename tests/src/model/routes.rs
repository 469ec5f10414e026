//! Where packets go, by looking at every route of the table in turn.

use std::net::IpAddr;

use gwlb::config::Settings;
use gwlb::dataplane::verdict::DropReason;
use ipnet::IpNet;
use router::{AddressMapping, Attachment, EndpointId, Entry, GroupId, Target};
use router::{EdgeId, GatewayId, InterfaceId, SubnetId};

/// The route tables of one configuration, as lists.
#[derive(Debug)]
pub(super) struct Routes {
    tables: Vec<Table>,
    gateways: Vec<Gateway>,
    subnets: Vec<Subnet>,
    endpoints: Vec<Endpoint>,
    /// The members of each group.
    groups: Vec<Vec<EndpointId>>,
    interfaces: Vec<Interface>,
    edges: Vec<Edge>,
    attached: Vec<Attachment>,
}

#[derive(Debug)]
struct Table {
    vpc: usize,
    routes: Vec<(IpNet, Target)>,
}

#[derive(Debug)]
struct Gateway {
    name: String,
    table: usize,
    addresses: Vec<AddressMapping>,
}

#[derive(Debug)]
struct Subnet {
    name: String,
    vpc: usize,
    table: usize,
    cidrs: Vec<IpNet>,
}

#[derive(Debug)]
struct Endpoint {
    wire_id: u64,
    subnet: usize,
}

/// A network interface or a NAT gateway.
#[derive(Debug)]
struct Interface {
    /// With its kind.
    name: String,
    subnet: usize,
    addresses: Vec<IpAddr>,
}

/// A way out that is no internet gateway.
#[derive(Debug)]
struct Edge {
    /// With its kind.
    name: String,
    table: usize,
}

/// Where a packet goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Out, through this attachment.
    Deliver(Attachment),
    /// To be inspected.
    Endpoint(EndpointId),
    /// To be inspected by one of these.
    Group(GroupId),
    /// Nowhere.
    Drop(DropReason),
}

/// Where packets can leave: "An interface or a NAT gateway without an attachment of its own is
/// reached through its subnet's, if there is one."
fn attached(settings: &Settings) -> Vec<Attachment> {
    let own: Vec<Attachment> = settings.attachments.iter().map(|it| it.at).collect();
    let interfaces = settings.topology.interfaces();
    let through =
        interfaces.filter(|(_, it)| own.contains(&Attachment::Subnet(it.subnet))).map(|(id, _)| id);
    own.iter().copied().chain(through.map(Attachment::Interface)).collect()
}

impl Routes {
    pub(super) fn of(settings: &Settings) -> Routes {
        let topology = &settings.topology;
        let tables = topology.tables().map(|(_, table)| Table {
            vpc: table.vpc().index(),
            routes: table.routes().map(|route| (route.destination, route.target)).collect(),
        });
        let gateways = topology.gateways().map(|(_, gateway)| Gateway {
            name: gateway.name.clone(),
            table: gateway.table.index(),
            addresses: gateway.addresses.clone(),
        });
        let subnets = topology.subnets().map(|(_, subnet)| Subnet {
            name: subnet.name.clone(),
            vpc: subnet.vpc.index(),
            table: subnet.table.index(),
            cidrs: subnet.cidrs.clone(),
        });
        let endpoints = topology.endpoints().map(|(_, endpoint)| Endpoint {
            wire_id: endpoint.wire_id,
            subnet: endpoint.subnet.index(),
        });
        let interfaces = topology.interfaces().map(|(id, interface)| Interface {
            name: topology.entry_name(Entry::Interface(id)),
            subnet: interface.subnet.index(),
            addresses: interface.addresses.clone(),
        });
        let edges = topology.edges().map(|(id, edge)| Edge {
            name: topology.entry_name(Entry::Edge(id)),
            table: edge.table.index(),
        });
        let groups = topology.endpoint_groups().map(|(_, group)| {
            let members = group.members.iter();
            members.map(|(member, _)| *member).collect()
        });
        Routes {
            groups: groups.collect(),
            interfaces: interfaces.collect(),
            edges: edges.collect(),
            tables: tables.collect(),
            gateways: gateways.collect(),
            subnets: subnets.collect(),
            endpoints: endpoints.collect(),
            attached: attached(settings),
        }
    }

    /// Where a packet for `to` goes from here: the longest prefix of the table that governs the
    /// place wins ("the gateway table for the IGW, the subnet's table for a subnet", and for what
    /// came back from an appliance "the table of the endpoint's own subnet").
    pub(super) fn next(&self, from: Entry, to: IpAddr) -> Next {
        let table = &self.tables[match from {
            Entry::InternetGateway(id) => self.gateways[id.index()].table,
            Entry::Subnet(id) => self.subnets[id.index()].table,
            Entry::Endpoint(id) => self.subnets[self.endpoints[id.index()].subnet].table,
            Entry::Interface(id) => self.subnets[self.interfaces[id.index()].subnet].table,
            Entry::Edge(id) => self.edges[id.index()].table,
        }];
        let holds = table.routes.iter().filter(|(destination, _)| destination.contains(&to));
        let Some((_, target)) = holds.max_by_key(|(destination, _)| destination.prefix_len())
        else {
            return Next::Drop(DropReason::NoRoute);
        };
        let out = match *target {
            Target::Blackhole => return Next::Drop(DropReason::Blackhole),
            Target::Endpoint(id) if from == Entry::Endpoint(id) => {
                return Next::Drop(DropReason::RoutingLoop);
            }
            Target::Endpoint(id) => return Next::Endpoint(id),
            Target::InternetGateway(id) => Attachment::InternetGateway(id),
            Target::Interface(id) => Attachment::Interface(id),
            Target::Edge(id) => Attachment::Edge(id),
            // Whichever member it would go to now, it has been inspected by one.
            Target::EndpointGroup(id)
                if self.groups[id.index()]
                    .iter()
                    .any(|member| from == Entry::Endpoint(*member)) =>
            {
                return Next::Drop(DropReason::RoutingLoop);
            }
            Target::EndpointGroup(id) => return Next::Group(id),
            // What this version of the gateway does not carry.
            Target::Transit(_) => return Next::Drop(DropReason::NoRoute),
            Target::Local => {
                match (self.interface_of(table.vpc, to), self.subnet_of(table.vpc, to)) {
                    (Some(id), _) => Attachment::Interface(id),
                    (None, Some(id)) => Attachment::Subnet(id),
                    (None, None) => return Next::Drop(DropReason::NoSubnet),
                }
            }
        };
        if self.attached.contains(&out) {
            Next::Deliver(out)
        } else {
            Next::Drop(DropReason::NotAttached)
        }
    }

    /// Whether there is a device.
    pub(super) fn is_attached(&self, at: Attachment) -> bool {
        self.attached.contains(&at)
    }

    /// The endpoint with this id on the wire.
    pub(super) fn endpoint(&self, wire_id: u64) -> Option<EndpointId> {
        let found = self.endpoints.iter().position(|endpoint| endpoint.wire_id == wire_id)?;
        Some(EndpointId::from_index(found as u16))
    }

    /// What an attachment translates.
    pub(super) fn addresses(&self, at: Attachment) -> &[AddressMapping] {
        match at {
            Attachment::InternetGateway(id) => &self.gateways[id.index()].addresses,
            Attachment::Subnet(_) | Attachment::Interface(_) | Attachment::Edge(_) => &[],
        }
    }

    /// A place of another configuration, as this one counts: by its name, endpoints by their id on
    /// the wire.
    pub(super) fn place(&self, of: &Routes, place: Entry) -> Option<Entry> {
        match place {
            Entry::InternetGateway(id) => {
                let name = &of.gateways[id.index()].name;
                let found = self.gateways.iter().position(|it| it.name == *name)?;
                Some(Entry::InternetGateway(GatewayId::from_index(found as u16)))
            }
            Entry::Subnet(id) => {
                let name = &of.subnets[id.index()].name;
                let found = self.subnets.iter().position(|it| it.name == *name)?;
                Some(Entry::Subnet(SubnetId::from_index(found as u16)))
            }
            Entry::Endpoint(id) => {
                self.endpoint(of.endpoints[id.index()].wire_id).map(Entry::Endpoint)
            }
            Entry::Interface(id) => {
                let name = &of.interfaces[id.index()].name;
                let found = self.interfaces.iter().position(|it| it.name == *name)?;
                Some(Entry::Interface(InterfaceId::from_index(found as u16)))
            }
            Entry::Edge(id) => {
                let name = &of.edges[id.index()].name;
                let found = self.edges.iter().position(|it| it.name == *name)?;
                Some(Entry::Edge(EdgeId::from_index(found as u16)))
            }
        }
    }

    /// Whether both count their places alike.
    pub(super) fn counts_as(&self, other: &Routes) -> bool {
        let names = |routes: &Routes| {
            let gateways = routes.gateways.iter().map(|it| it.name.clone());
            let subnets = routes.subnets.iter().map(|it| it.name.clone());
            let interfaces = routes.interfaces.iter().map(|it| it.name.clone());
            let edges = routes.edges.iter().map(|it| it.name.clone());
            let all: [Vec<String>; 4] =
                [gateways.collect(), subnets.collect(), interfaces.collect(), edges.collect()];
            all
        };
        let ids =
            |routes: &Routes| routes.endpoints.iter().map(|it| it.wire_id).collect::<Vec<_>>();
        names(self) == names(other) && ids(self) == ids(other)
    }

    fn interface_of(&self, vpc: usize, address: IpAddr) -> Option<InterfaceId> {
        let has = |interface: &Interface| {
            self.subnets[interface.subnet].vpc == vpc && interface.addresses.contains(&address)
        };
        let found = self.interfaces.iter().position(has)?;
        Some(InterfaceId::from_index(found as u16))
    }

    fn subnet_of(&self, vpc: usize, address: IpAddr) -> Option<SubnetId> {
        let holds = |subnet: &Subnet| {
            subnet.vpc == vpc && subnet.cidrs.iter().any(|cidr| cidr.contains(&address))
        };
        self.subnets.iter().position(holds).map(|found| SubnetId::from_index(found as u16))
    }
}
