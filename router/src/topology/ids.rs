//! Dense indices for the resources of a topology, and the places that packets pass.

/// An index that counts one kind of resource in the order of the file.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u16);

        impl $name {
            /// What an unresolved reference holds while a topology is checked. No topology has it.
            pub(crate) const UNRESOLVED: $name = $name(u16::MAX);

            /// The id of the resource at this index. Which topology it belongs to is for the
            /// caller to remember.
            pub const fn from_index(index: u16) -> $name {
                $name(index)
            }

            /// Its index: 0 is the first of its kind in the file.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl Id for $name {
            fn from_position(position: usize) -> $name {
                u16::try_from(position).map_or($name::UNRESOLVED, $name)
            }

            fn is_resolved(self) -> bool {
                self != $name::UNRESOLVED
            }
        }
    };
}

/// What the kinds of ids have in common, for the checks.
pub(crate) trait Id: Copy {
    /// The id at a position, unresolved if there is no room for it.
    fn from_position(position: usize) -> Self;

    /// Whether it refers to anything.
    fn is_resolved(self) -> bool;
}

id! {
    /// A VPC.
    VpcId
}
id! {
    /// A subnet.
    SubnetId
}
id! {
    /// An internet gateway.
    GatewayId
}
id! {
    /// A Gateway Load Balancer endpoint.
    EndpointId
}
id! {
    /// A route table; those of the file first, then one implicit table for each VPC.
    TableId
}

id! {
    /// A network interface or a NAT gateway; the interfaces of the file first.
    InterfaceId
}
id! {
    /// A way out of a VPC other than an internet gateway: the virtual private gateways of the file
    /// first, then the egress-only internet gateways, then what is opaque.
    EdgeId
}
id! {
    /// A transit gateway.
    TransitGatewayId
}
id! {
    /// A table of a transit gateway.
    TransitTableId
}
id! {
    /// One VPC at a transit gateway.
    TransitAttachmentId
}
id! {
    /// A prefix list.
    PrefixListId
}
id! {
    /// A group of endpoints.
    GroupId
}

/// The most resources of one kind: every id but the unresolved one.
pub(crate) const MOST: usize = u16::MAX as usize;

/// Where a packet leaves the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attachment {
    /// To the internet.
    InternetGateway(GatewayId),
    /// To a machine in a subnet.
    Subnet(SubnetId),
    /// To the machine with this interface, or to a NAT gateway.
    Interface(InterfaceId),
    /// Out of the VPC by another way.
    Edge(EdgeId),
}

/// Where a packet enters the router, which decides the table that it is looked up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// From the internet: the gateway table.
    InternetGateway(GatewayId),
    /// From a machine in a subnet: the subnet's table.
    Subnet(SubnetId),
    /// Back from an appliance: the table of the endpoint's own subnet.
    Endpoint(EndpointId),
    /// From the machine with this interface, or from a NAT gateway: the table of its subnet.
    Interface(InterfaceId),
    /// Into the VPC by another way: the gateway table of a virtual private gateway.
    Edge(EdgeId),
}

impl Entry {
    /// The attachment that packets come from which enter here. `None` for an endpoint, whose packets
    /// come from appliances.
    pub fn attachment(self) -> Option<Attachment> {
        match self {
            Entry::InternetGateway(id) => Some(Attachment::InternetGateway(id)),
            Entry::Subnet(id) => Some(Attachment::Subnet(id)),
            Entry::Interface(id) => Some(Attachment::Interface(id)),
            Entry::Edge(id) => Some(Attachment::Edge(id)),
            Entry::Endpoint(_) => None,
        }
    }
}

impl From<Attachment> for Entry {
    fn from(attachment: Attachment) -> Entry {
        match attachment {
            Attachment::InternetGateway(id) => Entry::InternetGateway(id),
            Attachment::Subnet(id) => Entry::Subnet(id),
            Attachment::Interface(id) => Entry::Interface(id),
            Attachment::Edge(id) => Entry::Edge(id),
        }
    }
}

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// Out of the router.
    Deliver(Attachment),
    /// To be inspected.
    Endpoint(EndpointId),
    /// To be inspected by the member of this group that is chosen for it.
    EndpointGroup(GroupId),
    /// To the transit gateway, from the VPC of this attachment: [`super::Topology::transit_target`].
    Transit(TransitAttachmentId),
    /// Nowhere: a route says so.
    Blackhole,
    /// Nowhere: no route has the address.
    NoRoute,
    /// Nowhere: the endpoint that it came back from would get it again. [`super::Topology::build`]
    /// refuses tables that do this; the answer is here so that a packet cannot circle even so.
    Loop,
    /// Nowhere: the address is the VPC's, but no subnet holds it.
    NoSubnet,
}
