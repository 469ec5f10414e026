//! One change of a network, as a call to a cloud would make it, or in its file alone, as data.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use super::kind::{Kind, Place, Resource};
use super::network::{destination, target, transit_target};
use crate::config::{Learned, Route, TransitRoute};
use crate::source::Located;

/// One change, in the clouds' terms. In JSON, `operation` says which; things are written as
/// `kind:name`, and what is created, replaced or deleted in the form of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum Operation {
    /// Makes something. A table is empty at first, and nobody uses it; a subnet uses the main
    /// table; a gateway has no table, no addresses and has learned nothing.
    Create(Box<Resource>),
    /// Removes something that nobody needs any more, with what is in it: the routes of a table, the
    /// addresses of a gateway.
    Delete {
        /// What.
        resource: Place,
    },
    /// Gives something another name. Names are labels: no packet sees the difference.
    Rename {
        /// What.
        resource: Place,
        /// Its name from now on.
        to: String,
    },
    /// Adds a range of addresses to a VPC. Every table gets a local route for it.
    AssociateVpcCidr {
        /// The VPC.
        vpc: String,
        /// The range.
        cidr: String,
    },
    /// Takes it away.
    DisassociateVpcCidr {
        /// The VPC.
        vpc: String,
        /// The range.
        cidr: String,
    },
    /// Adds a range of IPv6 addresses to a subnet. That of IPv4 is there for life.
    AssociateSubnetCidr {
        /// The subnet.
        subnet: String,
        /// The range.
        cidr: String,
    },
    /// Takes it away.
    DisassociateSubnetCidr {
        /// The subnet.
        subnet: String,
        /// The range.
        cidr: String,
    },
    /// Has a subnet or a gateway, or by `vpc:NAME` all subnets without an association, use a table.
    AssociateRouteTable {
        /// Who.
        user: Place,
        /// The table.
        route_table: String,
    },
    /// Has it use another table than before, in one step.
    ReplaceRouteTableAssociation {
        /// Who.
        user: Place,
        /// The table before.
        from: String,
        /// The table afterwards.
        to: String,
    },
    /// Has it use none: a subnet the main table, a gateway and a VPC the local routes alone.
    DisassociateRouteTable {
        /// Who.
        user: Place,
        /// The table before.
        route_table: String,
    },
    /// Adds a route. In a gateway table of Alibaba Cloud: edits the system entry, which is local.
    CreateRoute {
        /// The table.
        route_table: String,
        /// The route.
        route: Box<Route>,
    },
    /// Has a route lead elsewhere, in one step.
    ReplaceRoute {
        /// The table.
        route_table: String,
        /// The route before.
        from: Box<Route>,
        /// The route afterwards, for the same destination.
        to: Box<Route>,
    },
    /// Removes a route. In a gateway table of Alibaba Cloud: edits the entry back to local.
    DeleteRoute {
        /// The table.
        route_table: String,
        /// The route.
        route: Box<Route>,
    },
    /// Has what a virtual private gateway learns come into a table.
    EnableRoutePropagation {
        /// The table.
        route_table: String,
        /// The virtual private gateway.
        gateway: String,
    },
    /// Has it leave the table.
    DisableRoutePropagation {
        /// The table.
        route_table: String,
        /// The virtual private gateway.
        gateway: String,
    },
    /// A virtual private gateway learns a range, which the other side has to announce.
    LearnRoute {
        /// The virtual private gateway.
        gateway: String,
        /// The range.
        destination: String,
        /// Over what.
        learned: Learned,
    },
    /// It learns it no more.
    ForgetRoute {
        /// The virtual private gateway.
        gateway: String,
        /// The range.
        destination: String,
        /// Over what.
        learned: Learned,
    },
    /// Has a public address stand for a private one. If it stood for another one, that is replaced
    /// in the same step.
    AssociateAddress {
        /// The internet gateway.
        gateway: String,
        /// The public address.
        public: String,
        /// The private address.
        private: String,
    },
    /// Has it stand for none.
    DisassociateAddress {
        /// The internet gateway.
        gateway: String,
        /// The public address.
        public: String,
        /// The private address before.
        private: String,
    },
    /// Adds ranges to a prefix list and removes others, in one step, in all tables that use it.
    ModifyPrefixList {
        /// The list.
        prefix_list: String,
        /// The ranges that come.
        add: Vec<String>,
        /// The ranges that go.
        remove: Vec<String>,
    },
    /// Changes an endpoint. The clouds let neither its subnet nor its service change.
    ModifyEndpoint {
        /// The endpoint.
        endpoint: String,
        /// Another subnet.
        #[serde(skip_serializing_if = "Option::is_none")]
        subnet: Option<String>,
        /// Another service.
        #[serde(skip_serializing_if = "Option::is_none")]
        service: Option<String>,
        /// Another id in the Geneve option.
        #[serde(skip_serializing_if = "Option::is_none")]
        wire_id: Option<String>,
    },
    /// Changes the subnets of an attachment to a transit gateway, or its appliance mode.
    ModifyTransitGatewayAttachment {
        /// The attachment.
        attachment: String,
        /// The subnets that come.
        add_subnets: Vec<String>,
        /// The subnets that go.
        remove_subnets: Vec<String>,
        /// The appliance mode afterwards.
        appliance_mode: bool,
    },
    /// Has what comes from an attachment looked up in another table of the transit gateway.
    ReplaceTransitGatewayRouteTableAssociation {
        /// The attachment.
        attachment: String,
        /// The table before.
        from: String,
        /// The table afterwards.
        to: String,
    },
    /// Has the ranges of an attachment's VPC come into a table of the transit gateway.
    EnableTransitGatewayRouteTablePropagation {
        /// The table.
        route_table: String,
        /// The attachment.
        attachment: String,
    },
    /// Has them leave the table.
    DisableTransitGatewayRouteTablePropagation {
        /// The table.
        route_table: String,
        /// The attachment.
        attachment: String,
    },
    /// Adds a route to a transit gateway.
    CreateTransitGatewayRoute {
        /// The table.
        route_table: String,
        /// The route.
        route: TransitRoute,
    },
    /// Has a route of a transit gateway lead elsewhere, in one step.
    ReplaceTransitGatewayRoute {
        /// The table.
        route_table: String,
        /// The route before.
        from: TransitRoute,
        /// The route afterwards, for the same destination.
        to: TransitRoute,
    },
    /// Removes a route from a transit gateway.
    DeleteTransitGatewayRoute {
        /// The table.
        route_table: String,
        /// The route.
        route: TransitRoute,
    },
}

impl Operation {
    /// Whether it changes the file alone, and no cloud has a call for it: names are what the file
    /// calls things by, and ids in the Geneve option what this gateway does.
    pub fn is_in_file_alone(&self) -> bool {
        match self {
            Operation::Rename { .. } => true,
            Operation::ModifyEndpoint { subnet, service, .. } => {
                subnet.is_none() && service.is_none()
            }
            _ => false,
        }
    }
}

/// What is said of it.
const ALONE: &str = " (in the file alone)";

/// One line, such as `replace route 0.0.0.0/0 in route table app-a: endpoint:vpce-a ->
/// endpoint:vpce-b`.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Create(resource) => {
                write!(f, "create {}{}", resource.place().noun(), detail(resource))
            }
            Operation::Delete { resource } => write!(f, "delete {}", resource.noun()),
            Operation::Rename { resource, to } => {
                write!(f, "rename {} to {to}{ALONE}", resource.noun())
            }
            Operation::AssociateVpcCidr { vpc, cidr } => write!(f, "add {cidr} to VPC {vpc}"),
            Operation::DisassociateVpcCidr { vpc, cidr } => {
                write!(f, "remove {cidr} from VPC {vpc}")
            }
            Operation::AssociateSubnetCidr { subnet, cidr } => {
                write!(f, "add {cidr} to subnet {subnet}")
            }
            Operation::DisassociateSubnetCidr { subnet, cidr } => {
                write!(f, "remove {cidr} from subnet {subnet}")
            }
            Operation::AssociateRouteTable { user, route_table } => {
                write!(f, "associate route table {route_table} with {}", used_by(user))
            }
            Operation::ReplaceRouteTableAssociation { user, from, to } => {
                write!(f, "replace the route table of {}: {from} -> {to}", used_by(user))
            }
            Operation::DisassociateRouteTable { user, route_table } => {
                write!(f, "disassociate route table {route_table} from {}", used_by(user))
            }
            Operation::CreateRoute { route_table, route } => write!(
                f,
                "create route {} in route table {route_table}: {}",
                destination(route),
                target(route)
            ),
            Operation::ReplaceRoute { route_table, from, to } => write!(
                f,
                "replace route {} in route table {route_table}: {} -> {}",
                destination(from),
                target(from),
                target(to)
            ),
            Operation::DeleteRoute { route_table, route } => write!(
                f,
                "delete route {} in route table {route_table}: was {}",
                destination(route),
                target(route)
            ),
            Operation::EnableRoutePropagation { route_table, gateway } => write!(
                f,
                "enable propagation from virtual private gateway {gateway} to route table \
                 {route_table}"
            ),
            Operation::DisableRoutePropagation { route_table, gateway } => write!(
                f,
                "disable propagation from virtual private gateway {gateway} to route table \
                 {route_table}"
            ),
            Operation::LearnRoute { gateway, destination, learned } => write!(
                f,
                "have virtual private gateway {gateway} learn {destination} over {}",
                over(*learned)
            ),
            Operation::ForgetRoute { gateway, destination, learned } => write!(
                f,
                "have virtual private gateway {gateway} no more learn {destination} over {}",
                over(*learned)
            ),
            Operation::AssociateAddress { gateway, public, private } => {
                write!(f, "associate address {public} with {private} at internet gateway {gateway}")
            }
            Operation::DisassociateAddress { gateway, public, private } => write!(
                f,
                "disassociate address {public} from {private} at internet gateway {gateway}"
            ),
            Operation::ModifyPrefixList { prefix_list, add, remove } => {
                write!(f, "modify prefix list {prefix_list}:{}", coming_and_going(add, remove))
            }
            Operation::ModifyEndpoint { endpoint, subnet, service, wire_id } => {
                write!(f, "modify endpoint {endpoint}:")?;
                let changes = [("subnet", subnet), ("service", service), ("wire id", wire_id)];
                let mut changes =
                    changes.into_iter().filter_map(|(what, to)| Some((what, to.as_ref()?)));
                changes.try_for_each(|(what, to)| write!(f, " {what} {to}"))?;
                f.write_str(if self.is_in_file_alone() { ALONE } else { "" })
            }
            Operation::ModifyTransitGatewayAttachment {
                attachment,
                add_subnets,
                remove_subnets,
                appliance_mode,
            } => write!(
                f,
                "modify transit gateway attachment {attachment}:{} appliance mode {}",
                coming_and_going(add_subnets, remove_subnets),
                if *appliance_mode { "on" } else { "off" }
            ),
            Operation::ReplaceTransitGatewayRouteTableAssociation { attachment, from, to } => {
                write!(
                    f,
                    "replace the transit gateway route table of attachment {attachment}: {from} -> {to}"
                )
            }
            Operation::EnableTransitGatewayRouteTablePropagation { route_table, attachment } => {
                write!(
                    f,
                    "enable propagation from attachment {attachment} to transit gateway route \
                     table {route_table}"
                )
            }
            Operation::DisableTransitGatewayRouteTablePropagation { route_table, attachment } => {
                write!(
                    f,
                    "disable propagation from attachment {attachment} to transit gateway route \
                     table {route_table}"
                )
            }
            Operation::CreateTransitGatewayRoute { route_table, route } => write!(
                f,
                "create route {} in transit gateway route table {route_table}: {}",
                route.destination.get(),
                transit_target(route)
            ),
            Operation::ReplaceTransitGatewayRoute { route_table, from, to } => write!(
                f,
                "replace route {} in transit gateway route table {route_table}: {} -> {}",
                from.destination.get(),
                transit_target(from),
                transit_target(to)
            ),
            Operation::DeleteTransitGatewayRoute { route_table, route } => write!(
                f,
                "delete route {} in transit gateway route table {route_table}: was {}",
                route.destination.get(),
                transit_target(route)
            ),
        }
    }
}

/// Where a thing is, as far as that tells it from others.
fn detail(resource: &Resource) -> String {
    match resource {
        Resource::Vpc(it) => format!(" ({})", texts(it.cidrs.iter().map(Located::get))),
        Resource::Subnet(it) => format!(
            " ({} in zone {} of VPC {})",
            texts(it.cidrs.iter().map(Located::get)),
            it.zone.get(),
            it.vpc.get()
        ),
        Resource::Endpoint(it) => {
            format!(" of service {} in subnet {}", it.service.get(), it.subnet.get())
        }
        Resource::NatGateway(it) => format!(" in subnet {}", it.subnet.get()),
        Resource::NetworkInterface(it) => format!(" in subnet {}", it.subnet.get()),
        Resource::EndpointGroup(it) => {
            format!(" of {}", texts(it.members.iter().map(|it| it.endpoint.get())))
        }
        Resource::PrefixList(it) => format!(" ({})", texts(it.entries.iter().map(Located::get))),
        Resource::RouteTable(it) => format!(" in VPC {}", it.vpc.get()),
        Resource::InternetGateway(it) => format!(" of VPC {}", it.vpc.get()),
        Resource::VirtualPrivateGateway(it) => format!(" of VPC {}", it.vpc.get()),
        Resource::EgressOnlyInternetGateway(it) => format!(" of VPC {}", it.vpc.get()),
        Resource::Opaque(it) => format!(" ({}) of VPC {}", it.kind.get(), it.vpc.get()),
        Resource::TransitGateway(_) => String::new(),
        Resource::TransitGatewayRouteTable(it) => {
            format!(" at transit gateway {}", it.transit_gateway.get())
        }
        Resource::TransitGatewayAttachment(it) => {
            format!(" of VPC {} at transit gateway {}", it.vpc.get(), it.transit_gateway.get())
        }
    }
}

fn used_by(user: &Place) -> String {
    match user.kind {
        Kind::Vpc => format!("VPC {} as its main table", user.name),
        _ => user.noun(),
    }
}

fn over(learned: Learned) -> &'static str {
    match learned {
        Learned::DirectConnect => "Direct Connect",
        Learned::VpnStatic => "a VPN, by a static route",
        Learned::VpnBgp => "a VPN, by BGP",
    }
}

fn coming_and_going(add: &[String], remove: &[String]) -> String {
    let add = add.iter().map(|it| format!(" +{it}"));
    add.chain(remove.iter().map(|it| format!(" -{it}"))).collect()
}

fn texts<'a>(texts: impl Iterator<Item = &'a String>) -> String {
    texts.map(String::as_str).collect::<Vec<_>>().join(", ")
}
