//! The whole way of a packet through the tables, from where it enters to where it leaves.
//!
//! Appliances are taken to give back what they get: what they do with it is not the router's.

use std::fmt;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;
use thiserror::Error;

use super::{EdgeKind, Entry, Explanation, Interface, InterfaceKind, NextHop, Topology};
use crate::source::nearest;

/// The way of a packet, hop by hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Trace {
    /// Where it enters, as `kind:name`.
    pub from: String,
    /// The address that it is for.
    pub to: IpAddr,
    /// The private address that the internet gateway turns a public one into, before the gateway
    /// table is asked.
    pub translated: Option<IpAddr>,
    /// Each lookup on the way; never empty.
    pub hops: Vec<Explanation>,
    /// Whether it leaves the router.
    pub delivered: bool,
    /// Where it leaves, or the name of the drop.
    pub end: String,
    /// The same as `end`, as the last lookup answered it.
    #[serde(skip)]
    #[schemars(skip)]
    pub outcome: NextHop,
}

/// Why a text does not name a place in a topology.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnknownEntry {
    /// It is not of the form `kind:name`.
    #[error("\"{0}\" names no place: write internet_gateway:NAME, subnet:NAME or endpoint:NAME")]
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
    /// Follows a packet for this address from where it enters until it leaves or is dropped.
    pub fn trace(&self, from: Entry, to: IpAddr) -> Trace {
        let translated = self.translate(from, to);
        let destination = translated.unwrap_or(to);
        let mut hops = Vec::new();
        let mut at = from;
        let outcome = loop {
            let hop = self.explain(at, destination);
            let next = hop.next_hop;
            hops.push(hop);
            match next {
                // Every endpoint once, and the way in: more is a circle.
                NextHop::Endpoint(_) if hops.len() > self.endpoints.len() => break NextHop::Loop,
                NextHop::Endpoint(id) => at = Entry::Endpoint(id),
                end => break end,
            }
        };
        Trace {
            from: self.entry_name(from),
            to,
            translated,
            hops,
            delivered: matches!(outcome, NextHop::Deliver(_)),
            end: self.next_hop_name(outcome),
            outcome,
        }
    }

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

    /// The gateway table sees private addresses (semantics 1d: the lookup happens after DNAT).
    fn translate(&self, from: Entry, to: IpAddr) -> Option<IpAddr> {
        let Entry::InternetGateway(id) = from else { return None };
        let mapping = self.gateway(id).addresses.iter().find(|mapping| mapping.public == to)?;
        Some(mapping.private)
    }
}

/// Hop by hop, and a last line that says how it ends.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "to {} from {}", self.to, self.from)?;
        if let Some(private) = self.translated {
            writeln!(f, "  {} translates {} to {private}", self.from, self.to)?;
        }
        for (number, hop) in self.hops.iter().enumerate() {
            for (line, text) in hop.to_string().lines().enumerate() {
                match line {
                    0 => writeln!(f, "{:>3}  {text}", number + 1)?,
                    _ => writeln!(f, "     {text}")?,
                }
            }
        }
        let verb = if self.delivered { "delivered to" } else { "dropped:" };
        write!(f, "{verb} {}", self.end)
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
