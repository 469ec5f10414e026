//! Places by the names that people write: `kind:name`.

use thiserror::Error;

use super::{EdgeKind, Entry, Interface, InterfaceKind, Topology};
use crate::source::nearest;

/// The kinds of places that a packet can enter at.
const KINDS: &str = "internet_gateway, subnet, endpoint, interface, nat_gateway, \
                     virtual_private_gateway, egress_only_internet_gateway or opaque";

/// Why a text does not name a place in a topology.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnknownEntry {
    /// It is not of the form `kind:name`.
    #[error("\"{0}\" names no place: write KIND:NAME, where the kind is {KINDS}")]
    Form(String),
    /// There is none of that kind and name.
    #[error("there is no {kind} \"{name}\"{}", did_you_mean(near.as_deref()))]
    Name {
        /// The kind asked for.
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// A name that there is, and that is near.
        near: Option<String>,
    },
}

impl Topology {
    /// Finds a place that is written `internet_gateway:NAME`, `subnet:NAME`, `endpoint:NAME`,
    /// `interface:NAME`, `nat_gateway:NAME`, `virtual_private_gateway:NAME`,
    /// `egress_only_internet_gateway:NAME` or `opaque:NAME`.
    ///
    /// # Errors
    /// If the text has another form, or there is no such place.
    pub fn entry(&self, text: &str) -> Result<Entry, UnknownEntry> {
        let form = || UnknownEntry::Form(text.to_owned());
        let (kind, name) = text.split_once(':').ok_or_else(form)?;
        let edges = |of: fn(&EdgeKind) -> bool| {
            self.edges.iter().filter(move |edge| of(&edge.kind)).map(|edge| edge.name.as_str())
        };
        let interfaces = |nat: bool| {
            let is = move |it: &&Interface| (it.kind != InterfaceKind::NetworkInterface) == nat;
            self.interfaces.iter().filter(is).map(|interface| interface.name.as_str())
        };
        match kind {
            "internet_gateway" => {
                let id = self.gateway_by_name(name).map(Entry::InternetGateway);
                let names = self.gateways().map(|(_, gateway)| gateway.name.as_str());
                id.ok_or_else(|| unknown("internet gateway", name, names))
            }
            "subnet" => {
                let id = self.subnet_by_name(name).map(Entry::Subnet);
                let names = self.subnets().map(|(_, subnet)| subnet.name.as_str());
                id.ok_or_else(|| unknown("subnet", name, names))
            }
            "endpoint" => {
                let id = self.endpoint_by_name(name).map(Entry::Endpoint);
                let names = self.endpoints().map(|(_, endpoint)| endpoint.name.as_str());
                id.ok_or_else(|| unknown("endpoint", name, names))
            }
            "interface" => self
                .network_interface_by_name(name)
                .map(Entry::Interface)
                .ok_or_else(|| unknown("network interface", name, interfaces(false))),
            "nat_gateway" => self
                .nat_gateway_by_name(name)
                .map(Entry::Interface)
                .ok_or_else(|| unknown("NAT gateway", name, interfaces(true))),
            "virtual_private_gateway" => {
                self.virtual_private_gateway_by_name(name).map(Entry::Edge).ok_or_else(|| {
                    let of = |kind: &EdgeKind| *kind == EdgeKind::VirtualPrivateGateway;
                    unknown("virtual private gateway", name, edges(of))
                })
            }
            "egress_only_internet_gateway" => {
                self.egress_only_internet_gateway_by_name(name).map(Entry::Edge).ok_or_else(|| {
                    let of = |kind: &EdgeKind| *kind == EdgeKind::EgressOnlyInternetGateway;
                    unknown("egress-only internet gateway", name, edges(of))
                })
            }
            "opaque" => self.opaque_by_name(name).map(Entry::Edge).ok_or_else(|| {
                unknown("opaque", name, edges(|kind| matches!(kind, EdgeKind::Opaque(_))))
            }),
            _ => Err(form()),
        }
    }
}

fn unknown<'a>(
    kind: &'static str,
    name: &str,
    names: impl Iterator<Item = &'a str>,
) -> UnknownEntry {
    let near = nearest(name, names).map(str::to_owned);
    UnknownEntry::Name { kind, name: name.to_owned(), near }
}

fn did_you_mean(near: Option<&str>) -> String {
    near.map(|near| format!(": did you mean \"{near}\"?")).unwrap_or_default()
}
