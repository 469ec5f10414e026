//! The kinds of things that have names, where the names stand, and who refers to whom.

use std::fmt;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::config::{
    EgressOnlyInternetGateway, Endpoint, EndpointGroup, InternetGateway, NatGateway,
    NetworkInterface, Opaque, PrefixList, RouteTable, RouterFile, Subnet, TransitGateway,
    TransitGatewayAttachment, TransitGatewayRouteTable, VirtualPrivateGateway, Vpc,
};
use crate::source::Located;

/// Declares the kinds: name, key of the file, noun, form, list.
macro_rules! kinds {
    ($($name:ident = $key:literal, $noun:literal, $list:ident;)*) => {
        /// A kind of thing that has names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = concat!("`[[", $key, "]]`")] $name,)*
        }

        impl Kind {
            /// Its key in a file, as in `[[route_table]]`.
            pub fn key(self) -> &'static str {
                match self { $(Kind::$name => $key,)* }
            }

            /// As people call it.
            pub fn noun(self) -> &'static str {
                match self { $(Kind::$name => $noun,)* }
            }
        }

        /// One thing of a network, as its file has it.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum Resource {
            $(#[doc = concat!("`[[", $key, "]]`")] $name($name),)*
        }

        impl Resource {
            /// What it is, and its name.
            pub fn place(&self) -> Place {
                match self { $(Resource::$name(form) => Place::new(Kind::$name, form.name()),)* }
            }

            /// Adds it to a file.
            pub(super) fn add_to(&self, file: &mut RouterFile) {
                match self {
                    $(Resource::$name(form) => file.$list.push(Located::nowhere(form.clone())),)*
                }
            }

            /// All that a file has.
            pub(super) fn all(file: &RouterFile) -> Vec<Resource> {
                let mut all = Vec::new();
                $(all.extend(file.$list.iter().map(|it| Resource::$name(it.get().clone())));)*
                all
            }
        }

        /// Takes it out of a file; says whether it was there.
        pub(super) fn remove(file: &mut RouterFile, place: &Place) -> bool {
            match place.kind {
                $(Kind::$name => {
                    let before = file.$list.len();
                    file.$list.retain(|it| it.name() != place.name);
                    file.$list.len() < before
                })*
            }
        }

        $(impl Named for $name {
            fn name(&self) -> &str {
                self.name.get()
            }
        })*

        fn visit_names(file: &mut RouterFile, visitor: &mut Visitor<'_>) {
            $(for it in &mut file.$list {
                visitor(Kind::$name, Role::Name, it.get_mut().name.get_mut());
            })*
        }
    };
}

kinds! {
    Vpc = "vpc", "VPC", vpcs;
    Subnet = "subnet", "subnet", subnets;
    InternetGateway = "internet_gateway", "internet gateway", internet_gateways;
    VirtualPrivateGateway =
        "virtual_private_gateway", "virtual private gateway", virtual_private_gateways;
    EgressOnlyInternetGateway = "egress_only_internet_gateway", "egress-only internet gateway",
        egress_only_internet_gateways;
    Opaque = "opaque", "opaque target", opaques;
    NatGateway = "nat_gateway", "NAT gateway", nat_gateways;
    NetworkInterface = "interface", "network interface", network_interfaces;
    TransitGateway = "transit_gateway", "transit gateway", transit_gateways;
    TransitGatewayRouteTable = "transit_gateway_route_table", "transit gateway route table",
        transit_gateway_route_tables;
    TransitGatewayAttachment = "transit_gateway_attachment", "transit gateway attachment",
        transit_gateway_attachments;
    PrefixList = "prefix_list", "prefix list", prefix_lists;
    Endpoint = "endpoint", "endpoint", endpoints;
    EndpointGroup = "endpoint_group", "endpoint group", endpoint_groups;
    RouteTable = "route_table", "route table", route_tables;
}

/// A form that has a name.
pub(super) trait Named {
    /// The name.
    fn name(&self) -> &str;
}

/// One thing, by kind and name. Written `kind:name`, as places are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// What it is.
    pub kind: Kind,
    /// Its name among others of its kind.
    pub name: String,
}

impl Place {
    /// What has this name.
    pub fn new(kind: Kind, name: impl Into<String>) -> Place {
        Place { kind, name: name.into() }
    }

    /// As in "route table app-a".
    pub(super) fn noun(&self) -> String {
        format!("{} {}", self.kind.noun(), self.name)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.key(), self.name)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Place {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Place".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

/// What a name stands there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// To name something.
    Name,
    /// To refer to it.
    Reference,
}

type Visitor<'v> = dyn FnMut(Kind, Role, &mut String) + 'v;

/// Shows every name in a file and every reference to one.
pub(super) fn visit(file: &mut RouterFile, visitor: &mut Visitor<'_>) {
    visit_names(file, visitor);
    let mut refer = |kind: Kind, text: &mut Located<String>| {
        visitor(kind, Role::Reference, text.get_mut());
    };
    for it in &mut file.subnets {
        let it = it.get_mut();
        refer(Kind::Vpc, &mut it.vpc);
        it.route_table.iter_mut().for_each(|text| refer(Kind::RouteTable, text));
    }
    for it in &mut file.internet_gateways {
        let it = it.get_mut();
        refer(Kind::Vpc, &mut it.vpc);
        it.route_table.iter_mut().for_each(|text| refer(Kind::RouteTable, text));
    }
    for it in &mut file.virtual_private_gateways {
        let it = it.get_mut();
        refer(Kind::Vpc, &mut it.vpc);
        it.route_table.iter_mut().for_each(|text| refer(Kind::RouteTable, text));
    }
    file.egress_only_internet_gateways
        .iter_mut()
        .for_each(|it| refer(Kind::Vpc, &mut it.get_mut().vpc));
    file.opaques.iter_mut().for_each(|it| refer(Kind::Vpc, &mut it.get_mut().vpc));
    file.nat_gateways.iter_mut().for_each(|it| refer(Kind::Subnet, &mut it.get_mut().subnet));
    file.network_interfaces.iter_mut().for_each(|it| refer(Kind::Subnet, &mut it.get_mut().subnet));
    file.endpoints.iter_mut().for_each(|it| refer(Kind::Subnet, &mut it.get_mut().subnet));
    for it in &mut file.endpoint_groups {
        let members = it.get_mut().members.iter_mut();
        members.for_each(|member| refer(Kind::Endpoint, &mut member.get_mut().endpoint));
    }
    for it in &mut file.transit_gateway_attachments {
        let it = it.get_mut();
        refer(Kind::TransitGateway, &mut it.transit_gateway);
        refer(Kind::Vpc, &mut it.vpc);
        refer(Kind::TransitGatewayRouteTable, &mut it.route_table);
        it.subnets.iter_mut().for_each(|text| refer(Kind::Subnet, text));
    }
    for it in &mut file.transit_gateway_route_tables {
        let it = it.get_mut();
        refer(Kind::TransitGateway, &mut it.transit_gateway);
        let routes = it.routes.iter_mut().filter_map(|it| it.get_mut().attachment.as_mut());
        let attachments = it.propagations.iter_mut().chain(routes);
        attachments.for_each(|text| refer(Kind::TransitGatewayAttachment, text));
    }
    for it in &mut file.route_tables {
        let it = it.get_mut();
        refer(Kind::Vpc, &mut it.vpc);
        it.propagating.iter_mut().for_each(|text| refer(Kind::VirtualPrivateGateway, text));
        for route in &mut it.routes {
            let route = route.get_mut();
            for (kind, text) in [
                (Kind::PrefixList, &mut route.prefix_list),
                (Kind::Endpoint, &mut route.endpoint),
                (Kind::EndpointGroup, &mut route.endpoint_group),
                (Kind::InternetGateway, &mut route.internet_gateway),
                (Kind::VirtualPrivateGateway, &mut route.virtual_private_gateway),
                (Kind::EgressOnlyInternetGateway, &mut route.egress_only_internet_gateway),
                (Kind::NatGateway, &mut route.nat_gateway),
                (Kind::NetworkInterface, &mut route.interface),
                (Kind::TransitGateway, &mut route.transit_gateway),
                (Kind::Opaque, &mut route.opaque),
            ] {
                if let Some(text) = text {
                    refer(kind, text);
                }
            }
        }
    }
}

/// Gives something another name, where it is named and wherever it is referred to.
pub(super) fn rename(file: &mut RouterFile, place: &Place, to: &str) {
    visit(file, &mut |kind, _, text| {
        if kind == place.kind && *text == place.name {
            to.clone_into(text);
        }
    });
}
