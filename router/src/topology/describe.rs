//! A topology as data with names instead of ids: for listings and JSON.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    AddressMapping, EdgeKind, Entry, GroupMode, InterfaceKind, RouteLine, TableId, Topology,
    TransitTable, TransitTarget,
};
use crate::rules::RuleSet;

/// Everything in a topology, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Description {
    /// Whose rules the tables are held to.
    pub rules: RuleSet,
    /// All VPCs.
    pub vpcs: Vec<VpcLine>,
    /// All subnets.
    pub subnets: Vec<SubnetLine>,
    /// All internet gateways.
    pub internet_gateways: Vec<GatewayLine>,
    /// All other ways out of VPCs.
    pub edges: Vec<EdgeLine>,
    /// All network interfaces and NAT gateways.
    pub interfaces: Vec<InterfaceLine>,
    /// All attachments to transit gateways.
    pub transit_gateway_attachments: Vec<TransitAttachmentLine>,
    /// All tables of transit gateways.
    pub transit_gateway_route_tables: Vec<TransitTableLine>,
    /// All prefix lists.
    pub prefix_lists: Vec<PrefixListLine>,
    /// All endpoints.
    pub endpoints: Vec<EndpointLine>,
    /// All groups of endpoints.
    pub endpoint_groups: Vec<GroupLine>,
    /// The tables of the file, and those implicit ones that somebody uses.
    pub route_tables: Vec<TableLine>,
}

/// A VPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct VpcLine {
    /// Its name.
    pub name: String,
    /// Its address ranges.
    #[schemars(with = "Vec<String>")]
    pub cidrs: Vec<IpNet>,
    /// The table of subnets that name none.
    pub main_table: String,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SubnetLine {
    /// Its name.
    pub name: String,
    /// Its VPC.
    pub vpc: String,
    /// Its zone.
    pub zone: String,
    /// Its address ranges.
    #[schemars(with = "Vec<String>")]
    pub cidrs: Vec<IpNet>,
    /// The table for packets that leave it.
    pub route_table: String,
}

/// An internet gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GatewayLine {
    /// Its name.
    pub name: String,
    /// Its VPC.
    pub vpc: String,
    /// The table for packets that come in.
    pub route_table: String,
    /// What it translates.
    pub addresses: Vec<AddressMapping>,
}

/// A way out of a VPC other than an internet gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct EdgeLine {
    /// Its name.
    pub name: String,
    /// `virtual_private_gateway`, `egress_only_internet_gateway`, or what something opaque is said to
    /// be.
    pub kind: String,
    /// Its VPC.
    pub vpc: String,
    /// The table for packets that come in.
    pub route_table: String,
    /// What it has learned.
    #[schemars(with = "Vec<String>")]
    pub learned: Vec<IpNet>,
}

/// A network interface or a NAT gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InterfaceLine {
    /// Its name.
    pub name: String,
    /// `network_interface` or `nat_gateway`.
    pub kind: &'static str,
    /// Its subnet.
    pub subnet: String,
    /// Its zone.
    pub zone: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// What stands for a NAT gateway at the internet gateway.
    pub public_address: Option<IpAddr>,
}

/// One VPC at a transit gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TransitAttachmentLine {
    /// Its name.
    pub name: String,
    /// The transit gateway.
    pub transit_gateway: String,
    /// The VPC.
    pub vpc: String,
    /// Its subnets, by zone.
    pub subnets: Vec<String>,
    /// The transit gateway's table for what comes from the VPC.
    pub route_table: String,
    /// Whether one zone is chosen for a flow.
    pub appliance_mode: bool,
}

/// A table of a transit gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TransitTableLine {
    /// Its name.
    pub name: String,
    /// The transit gateway.
    pub transit_gateway: String,
    /// Its routes, those of propagations included.
    pub routes: Vec<RouteLine>,
}

/// A prefix list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PrefixListLine {
    /// Its name.
    pub name: String,
    /// Its ranges.
    #[schemars(with = "Vec<String>")]
    pub entries: Vec<IpNet>,
}

/// A group of endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GroupLine {
    /// Its name.
    pub name: String,
    /// `active_standby` or `weighted`.
    pub mode: &'static str,
    /// Its members.
    pub members: Vec<MemberLine>,
}

/// An endpoint in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MemberLine {
    /// The endpoint.
    pub endpoint: String,
    /// Its weight.
    pub weight: u8,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct EndpointLine {
    /// Its name.
    pub name: String,
    /// Its subnet.
    pub subnet: String,
    /// Its zone.
    pub zone: String,
    /// The service that it connects to.
    pub service: String,
    /// Its id in the Geneve option, as `0x` and 16 digits: JSON numbers do not hold 64 bits.
    pub wire_id: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A route table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TableLine {
    /// Its name.
    pub name: String,
    /// Its VPC.
    pub vpc: String,
    /// Whether it is not in the file.
    pub implicit: bool,
    /// The places whose packets it decides about, as `kind:name`.
    pub used_by: Vec<String>,
    /// Its routes, local ones included.
    pub routes: Vec<RouteLine>,
}

impl Topology {
    /// Everything, with names instead of ids.
    pub fn describe(&self) -> Description {
        Description {
            rules: self.rules,
            edges: self.edge_lines(),
            interfaces: self.interface_lines(),
            transit_gateway_attachments: self.attachment_lines(),
            transit_gateway_route_tables: self
                .transit_tables
                .iter()
                .map(|table| self.transit_table_line(table))
                .collect(),
            prefix_lists: self
                .prefix_lists
                .iter()
                .map(|list| PrefixListLine {
                    name: list.name.clone(),
                    entries: list.entries.clone(),
                })
                .collect(),
            endpoint_groups: self.group_lines(),
            vpcs: self
                .vpcs
                .iter()
                .map(|vpc| VpcLine {
                    name: vpc.name.clone(),
                    cidrs: vpc.cidrs.clone(),
                    main_table: self.table(vpc.main_table).name().to_owned(),
                })
                .collect(),
            subnets: self
                .subnets
                .iter()
                .map(|subnet| SubnetLine {
                    name: subnet.name.clone(),
                    vpc: self.vpc(subnet.vpc).name.clone(),
                    zone: subnet.zone.clone(),
                    cidrs: subnet.cidrs.clone(),
                    route_table: self.table(subnet.table).name().to_owned(),
                })
                .collect(),
            internet_gateways: self
                .gateways
                .iter()
                .map(|gateway| GatewayLine {
                    name: gateway.name.clone(),
                    vpc: self.vpc(gateway.vpc).name.clone(),
                    route_table: self.table(gateway.table).name().to_owned(),
                    addresses: gateway.addresses.clone(),
                })
                .collect(),
            endpoints: self
                .endpoints
                .iter()
                .map(|endpoint| EndpointLine {
                    name: endpoint.name.clone(),
                    subnet: self.subnet(endpoint.subnet).name.clone(),
                    zone: endpoint.zone.clone(),
                    service: endpoint.service.clone(),
                    wire_id: format!("{:#018x}", endpoint.wire_id),
                    addresses: endpoint.addresses.clone(),
                })
                .collect(),
            route_tables: self.tables().filter_map(|(id, _)| self.table_line(id)).collect(),
        }
    }

    fn table_line(&self, id: TableId) -> Option<TableLine> {
        let table = self.table(id);
        let used_by = self.users(id);
        (!table.is_implicit() || !used_by.is_empty()).then(|| TableLine {
            name: table.name().to_owned(),
            vpc: self.vpc(table.vpc()).name.clone(),
            implicit: table.is_implicit(),
            used_by,
            routes: (table.routes().chain(table.filtered()))
                .map(|route| self.route_line(&route))
                .collect(),
        })
    }

    fn edge_lines(&self) -> Vec<EdgeLine> {
        let line = |edge: &super::Edge| EdgeLine {
            name: edge.name.clone(),
            kind: match &edge.kind {
                EdgeKind::VirtualPrivateGateway => "virtual_private_gateway".to_owned(),
                EdgeKind::EgressOnlyInternetGateway => "egress_only_internet_gateway".to_owned(),
                EdgeKind::Opaque(kind) => kind.clone(),
            },
            vpc: self.vpc(edge.vpc).name.clone(),
            route_table: self.table(edge.table).name().to_owned(),
            learned: edge.learned.iter().map(|(range, _)| *range).collect(),
        };
        self.edges.iter().map(line).collect()
    }

    fn interface_lines(&self) -> Vec<InterfaceLine> {
        let line = |interface: &super::Interface| {
            let (kind, public_address) = match interface.kind {
                InterfaceKind::NetworkInterface => ("network_interface", None),
                InterfaceKind::NatGateway { public } => ("nat_gateway", public),
            };
            InterfaceLine {
                name: interface.name.clone(),
                kind,
                subnet: self.subnet(interface.subnet).name.clone(),
                zone: interface.zone.clone(),
                addresses: interface.addresses.clone(),
                public_address,
            }
        };
        self.interfaces.iter().map(line).collect()
    }

    fn attachment_lines(&self) -> Vec<TransitAttachmentLine> {
        let line = |attachment: &super::TransitAttachment| TransitAttachmentLine {
            name: attachment.name.clone(),
            transit_gateway: self.transit_gateway(attachment.gateway).name.clone(),
            vpc: self.vpc(attachment.vpc).name.clone(),
            subnets: attachment.subnets.iter().map(|id| self.subnet(*id).name.clone()).collect(),
            route_table: self.transit_table(attachment.table).name.clone(),
            appliance_mode: attachment.appliance_mode,
        };
        self.transit_attachments.iter().map(line).collect()
    }

    fn transit_table_line(&self, table: &TransitTable) -> TransitTableLine {
        let routes = table.routes().map(|(destination, target, origin)| {
            let (target, state) = match target {
                TransitTarget::Attachment(id) => {
                    let name = &self.transit_attachment(id).name;
                    (format!("transit_gateway_attachment:{name}"), super::RouteState::Active)
                }
                TransitTarget::Blackhole => ("blackhole".to_owned(), super::RouteState::Blackhole),
            };
            RouteLine { destination, target, origin, prefix_list: None, state }
        });
        TransitTableLine {
            name: table.name.clone(),
            transit_gateway: self.transit_gateway(table.gateway).name.clone(),
            routes: routes.collect(),
        }
    }

    fn group_lines(&self) -> Vec<GroupLine> {
        let line = |group: &super::EndpointGroup| GroupLine {
            name: group.name.clone(),
            mode: match group.mode {
                GroupMode::ActiveStandby => "active_standby",
                GroupMode::Weighted => "weighted",
            },
            members: (group.members.iter())
                .map(|(id, weight)| MemberLine {
                    endpoint: self.endpoint(*id).name.clone(),
                    weight: *weight,
                })
                .collect(),
        };
        self.groups.iter().map(line).collect()
    }

    /// Gateways and subnets. Endpoints use the table of their subnet, which is named already.
    fn users(&self, table: TableId) -> Vec<String> {
        let gateways = self.gateways().map(|(id, _)| Entry::InternetGateway(id));
        let subnets = self.subnets().map(|(id, _)| Entry::Subnet(id));
        let edges = self.edges().map(|(id, _)| Entry::Edge(id));
        // What is not looked up in a table of the file has the implicit one, which is no news.
        let edges = edges.filter(|_| !self.table(table).is_implicit());
        gateways
            .chain(subnets)
            .chain(edges)
            .filter(|entry| self.table_for(*entry) == table)
            .map(|entry| self.entry_name(entry))
            .collect()
    }
}
