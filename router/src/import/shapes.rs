//! What the EC2 API says of each kind of resource, as far as it bears on routing.
//!
//! Members that do not are listed by name. One that is neither read nor listed is told: it may be
//! new, and it may matter.

#![expect(clippy::struct_field_names, reason = "they are the names of the API's members")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

/// A kind of resource that the API describes.
pub(in crate::import) trait Shape: DeserializeOwned + PartialEq + Clone {
    /// The member of the output that lists them, such as `Vpcs`.
    const KEY: &'static str;
    /// What one is called.
    const NOUN: &'static str;
    /// Members that have nothing to do with routing.
    const IRRELEVANT: &'static [&'static str];

    /// What it is known by.
    fn id(&self) -> &str;

    /// Its tags, which another account does not see.
    fn tags(&mut self) -> &mut Vec<Tag>;

    /// Members that are not read.
    fn others(&self) -> &BTreeSet<String>;

    /// What all accounts see of it, as far as it is read.
    fn essence(&self) -> Self;
}

#[expect(clippy::zero_sized_map_values, reason = "serde flattens maps, not sets")]
fn names_of_members<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeSet<String>, D::Error> {
    let members: BTreeMap<String, IgnoredAny> = BTreeMap::deserialize(deserializer)?;
    Ok(members.into_keys().collect())
}

/// Declares a shape with its trait.
macro_rules! shape {
    (
        $name:ident in $key:literal, $noun:literal, id $id:ident, tags $tags:ident,
        { $($(#[$meta:meta])* $field:ident: $type:ty,)* }
        irrelevant $irrelevant:expr
    ) => {
        #[derive(Clone, Debug, PartialEq, Deserialize)]
        #[serde(rename_all = "PascalCase")]
        pub(in crate::import) struct $name {
            pub(in crate::import) $id: String,
            #[serde(default)]
            pub(in crate::import) $tags: Vec<Tag>,
            $($(#[$meta])* pub(in crate::import) $field: $type,)*
            #[serde(flatten, deserialize_with = "names_of_members")]
            pub(in crate::import) others: BTreeSet<String>,
        }

        impl Shape for $name {
            const KEY: &'static str = $key;
            const NOUN: &'static str = $noun;
            const IRRELEVANT: &'static [&'static str] = $irrelevant;

            fn id(&self) -> &str {
                &self.$id
            }

            fn tags(&mut self) -> &mut Vec<Tag> {
                &mut self.$tags
            }

            fn others(&self) -> &BTreeSet<String> {
                &self.others
            }

            fn essence(&self) -> Self {
                Self { $tags: Vec::new(), others: BTreeSet::new(), ..self.clone() }
            }
        }
    };
}

mod transit;

pub(in crate::import) use transit::*;

/// A tag. That of the key `Name` is what people call the thing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::import) struct Tag {
    pub(in crate::import) key: String,
    #[serde(default)]
    pub(in crate::import) value: Option<String>,
}

shape! {
    Vpc in "Vpcs", "VPC", id vpc_id, tags tags,
    {
        #[serde(default)]
        cidr_block: Option<IpNet>,
        #[serde(default)]
        cidr_block_association_set: Vec<Ipv4Range>,
        #[serde(default)]
        ipv6_cidr_block_association_set: Vec<Ipv6Range>,
    }
    irrelevant &[
        "BlockPublicAccessStates", "DhcpOptionsId", "EncryptionControl", "InstanceTenancy",
        "IsDefault", "OwnerId", "State",
    ]
}

/// An IPv4 range of a VPC.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::import) struct Ipv4Range {
    pub(in crate::import) cidr_block: IpNet,
    #[serde(default)]
    pub(in crate::import) cidr_block_state: Option<State>,
}

/// An IPv6 range of a VPC or of a subnet.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::import) struct Ipv6Range {
    pub(in crate::import) ipv6_cidr_block: IpNet,
    #[serde(default)]
    pub(in crate::import) ipv6_cidr_block_state: Option<State>,
}

/// How far something has come.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::import) struct State {
    pub(in crate::import) state: String,
}

impl State {
    /// Old outputs say it only where it is not "associated".
    pub(in crate::import) fn is_associated(state: Option<&State>) -> bool {
        state.is_none_or(|state| state.state == "associated")
    }
}

shape! {
    Subnet in "Subnets", "subnet", id subnet_id, tags tags,
    {
        vpc_id: String,
        availability_zone: String,
        #[serde(default)]
        availability_zone_id: Option<String>,
        #[serde(default)]
        cidr_block: Option<IpNet>,
        #[serde(default)]
        ipv6_cidr_block_association_set: Vec<Ipv6Range>,
    }
    irrelevant &[
        "AssignIpv6AddressOnCreation", "AvailableIpAddressCount", "BlockPublicAccessStates",
        "CustomerOwnedIpv4Pool", "DefaultForAz", "EnableDns64", "EnableLniAtDeviceIndex",
        "Ipv6Native", "MapCustomerOwnedIpOnLaunch", "MapPublicIpOnLaunch", "OutpostArn", "OwnerId",
        "PrivateDnsNameOptionsOnLaunch", "State", "SubnetArn", "Type",
    ]
}

shape! {
    RouteTable in "RouteTables", "route table", id route_table_id, tags tags,
    {
        vpc_id: String,
        #[serde(default)]
        associations: Vec<Association>,
        #[serde(default)]
        propagating_vgws: Vec<PropagatingVgw>,
        #[serde(default)]
        routes: Vec<Route>,
    }
    irrelevant &["OwnerId"]
}

/// What uses a route table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::import) struct Association {
    #[serde(default)]
    pub(in crate::import) main: bool,
    #[serde(default)]
    pub(in crate::import) subnet_id: Option<String>,
    #[serde(default)]
    pub(in crate::import) gateway_id: Option<String>,
    #[serde(default)]
    pub(in crate::import) route_table_association_id: Option<String>,
    #[serde(default)]
    pub(in crate::import) association_state: Option<State>,
}

/// A virtual private gateway that propagates to a route table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::import) struct PropagatingVgw {
    pub(in crate::import) gateway_id: String,
}

/// A route. Its target is in one of the other members, named for what it leads to.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::import) struct Route {
    #[serde(default)]
    pub(in crate::import) destination_cidr_block: Option<IpNet>,
    #[serde(default)]
    pub(in crate::import) destination_ipv6_cidr_block: Option<IpNet>,
    #[serde(default)]
    pub(in crate::import) destination_prefix_list_id: Option<String>,
    #[serde(default)]
    pub(in crate::import) state: Option<String>,
    #[serde(default)]
    pub(in crate::import) origin: Option<String>,
    #[serde(flatten)]
    pub(in crate::import) others: BTreeMap<String, serde_json::Value>,
}

shape! {
    VpcEndpoint in "VpcEndpoints", "VPC endpoint", id vpc_endpoint_id, tags tags,
    {
        vpc_id: String,
        service_name: String,
        // Of an endpoint of the first kind that there was, nothing is said.
        #[serde(default)]
        vpc_endpoint_type: Option<String>,
        #[serde(default)]
        state: Option<String>,
        #[serde(default)]
        subnet_ids: Vec<String>,
        #[serde(default)]
        network_interface_ids: Vec<String>,
    }
    irrelevant &[
        "CreationTimestamp", "DnsEntries", "DnsOptions", "FailureReason", "Groups",
        "IpAddressType", "Ipv4Prefixes", "Ipv6Prefixes", "LastError", "OwnerId",
        "PayerResponsibilities", "PolicyDocument", "PrivateDnsEnabled", "RequesterManaged",
        "ResourceConfigurationArn", "RouteTableIds", "ServiceNetworkArn", "ServiceRegion",
    ]
}

shape! {
    InternetGateway in "InternetGateways", "internet gateway", id internet_gateway_id, tags tags,
    {
        #[serde(default)]
        attachments: Vec<VpcAttachment>,
    }
    irrelevant &["OwnerId"]
}

shape! {
    EgressOnlyInternetGateway in "EgressOnlyInternetGateways", "egress-only internet gateway",
    id egress_only_internet_gateway_id, tags tags,
    {
        #[serde(default)]
        attachments: Vec<VpcAttachment>,
    }
    irrelevant &[]
}

shape! {
    VpnGateway in "VpnGateways", "virtual private gateway", id vpn_gateway_id, tags tags,
    {
        #[serde(default)]
        vpc_attachments: Vec<VpcAttachment>,
    }
    irrelevant &["AmazonSideAsn", "AvailabilityZone", "State", "Type"]
}

/// The VPC that a gateway is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::import) struct VpcAttachment {
    pub(in crate::import) vpc_id: String,
    #[serde(default)]
    pub(in crate::import) state: Option<String>,
}

impl VpcAttachment {
    /// The VPC, if the gateway is there. That of an internet gateway is "available", against the
    /// API's own documentation.
    pub(in crate::import) fn vpc(attachments: &[VpcAttachment]) -> Option<&str> {
        let is_there = |attachment: &&VpcAttachment| {
            matches!(attachment.state.as_deref(), None | Some("attached" | "available"))
        };
        attachments.iter().find(is_there).map(|attachment| attachment.vpc_id.as_str())
    }
}

shape! {
    NatGateway in "NatGateways", "NAT gateway", id nat_gateway_id, tags tags,
    {
        // A regional one has none.
        #[serde(default)]
        subnet_id: Option<String>,
        vpc_id: String,
        #[serde(default)]
        state: Option<String>,
        #[serde(default)]
        nat_gateway_addresses: Vec<NatAddress>,
    }
    irrelevant &[
        "AttachedAppliances", "AutoProvisionZones", "AutoScalingIps", "AvailabilityMode",
        "ConnectivityType", "CreateTime", "DeleteTime", "FailureCode", "FailureMessage",
        "ProvisionedBandwidth", "RouteTableId",
    ]
}

/// An address of a NAT gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::import) struct NatAddress {
    #[serde(default)]
    pub(in crate::import) private_ip: Option<Ipv4Addr>,
    #[serde(default)]
    pub(in crate::import) public_ip: Option<Ipv4Addr>,
    #[serde(default)]
    pub(in crate::import) is_primary: Option<bool>,
}

shape! {
    NetworkInterface in "NetworkInterfaces", "network interface", id network_interface_id,
    tags tag_set,
    {
        #[serde(default)]
        subnet_id: Option<String>,
        #[serde(default)]
        vpc_id: Option<String>,
        #[serde(default)]
        interface_type: Option<String>,
        #[serde(default)]
        private_ip_address: Option<Ipv4Addr>,
        #[serde(default)]
        private_ip_addresses: Vec<PrivateAddress>,
        #[serde(default)]
        ipv6_addresses: Vec<Ipv6Address>,
        #[serde(default)]
        source_dest_check: Option<bool>,
    }
    irrelevant &[
        "AssociatedSubnets", "Association", "Attachment", "AvailabilityZone",
        "AvailabilityZoneId", "ConnectionTrackingConfiguration", "DenyAllIgwTraffic",
        "Description", "Groups", "Ipv4Prefixes", "Ipv6Address", "Ipv6Native", "Ipv6Prefixes",
        "MacAddress", "Operator", "OutpostArn", "OwnerId", "PrivateDnsName", "PublicDnsName",
        "PublicIpDnsNameOptions", "RequesterId", "RequesterManaged", "Status",
    ]
}

/// An IPv4 address of a network interface.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::import) struct PrivateAddress {
    pub(in crate::import) private_ip_address: Ipv4Addr,
    #[serde(default)]
    pub(in crate::import) association: Option<PublicAddress>,
}

/// What stands for it at the internet gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::import) struct PublicAddress {
    #[serde(default)]
    pub(in crate::import) public_ip: Option<Ipv4Addr>,
}

/// An IPv6 address of a network interface.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::import) struct Ipv6Address {
    pub(in crate::import) ipv6_address: Ipv6Addr,
}

shape! {
    Address in "Addresses", "elastic address", id public_ip, tags tags,
    {
        #[serde(default)]
        private_ip_address: Option<IpAddr>,
        #[serde(default)]
        network_interface_id: Option<String>,
    }
    irrelevant &[
        "AllocationId", "AssociationId", "CarrierIp", "CustomerOwnedIp", "CustomerOwnedIpv4Pool",
        "Domain", "InstanceId", "NetworkBorderGroup", "NetworkInterfaceOwnerId", "PublicIpv4Pool",
        "ServiceManaged", "SubnetId",
    ]
}

shape! {
    PrefixList in "PrefixLists", "prefix list", id prefix_list_id, tags tags,
    {
        #[serde(default)]
        prefix_list_name: Option<String>,
        // `describe-prefix-lists` has them, `describe-managed-prefix-lists` has not.
        #[serde(default)]
        cidrs: Vec<IpNet>,
    }
    irrelevant &[
        "AddressFamily", "IpamPrefixListResolverSyncEnabled", "IpamPrefixListResolverTargetId",
        "MaxEntries", "OwnerId", "PrefixListArn", "State", "StateMessage", "Version",
    ]
}

/// One range of a prefix list.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::import) struct PrefixListEntry {
    pub(in crate::import) cidr: IpNet,
}
