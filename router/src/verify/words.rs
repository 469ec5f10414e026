//! Faults in words.

use super::Finding;
use super::Hop;
use super::collect::{Cause, Draft, Fate};
use super::judge::Judge;
use crate::Entry;
use crate::space::say;

/// A list is cut after so many names.
const MOST_NAMES: usize = 8;

impl Judge<'_> {
    /// What is wrong, in one sentence.
    pub fn text(&self, draft: &Draft, finding: &Finding) -> String {
        let topology = self.topology;
        let (from, to) = (list(&finding.from), list(&finding.to));
        let addresses = say(&finding.addresses);
        let first = passed(&finding.path);
        let back = passed(&finding.way_back);
        match &draft.cause {
            Cause::Ingress { ipv6_only, .. } => {
                let (ipv6, though) = ipv6_words(*ipv6_only);
                format!(
                    "{ipv6}packets from {from} reach {to} ({addresses}) without passing an \
                     endpoint{though}"
                )
            }
            Cause::Egress { ipv6_only, .. } => {
                let (ipv6, though) = ipv6_words(*ipv6_only);
                format!(
                    "{ipv6}packets from {from} leave by {to} without passing an endpoint{though}"
                )
            }
            Cause::Intent { index } => {
                let service = topology.intents()[*index].inspected_by.as_deref().unwrap_or("");
                let number = index + 1;
                format!(
                    "packets from {from} to {to} ({addresses}) pass no endpoint of service \
                     {service}, which intent {number} asks for"
                )
            }
            Cause::SharedSubnet { .. } if finding.path.is_empty() => {
                format!("an application shares {from} with an endpoint")
            }
            Cause::SharedSubnet { subnet } => {
                let place = topology.entry_name(Entry::Subnet(*subnet));
                format!(
                    "an application shares {place} with an endpoint, and not all of its packets \
                     pass one"
                )
            }
            Cause::OneWay { answers: true, .. } => {
                format!(
                    "packets from {from} to {to} pass {first}, but the answers pass no endpoint"
                )
            }
            Cause::OneWay { answers: false, .. } => {
                format!("packets from {from} to {to} pass no endpoint, but the answers pass {back}")
            }
            Cause::Different { .. } => {
                format!("packets from {from} to {to} pass {first}, but the answers pass {back}")
            }
            Cause::ApplianceMode { attachment } => {
                let name = &topology.transit_attachment(*attachment).name;
                format!(
                    "packets from {from} to {to} pass {first}, but the answers pass {back}: \
                     transit_gateway_attachment:{name} has no appliance mode, so each direction \
                     stays in the zone that it comes from"
                )
            }
            Cause::Circle { hops, answers } => {
                let mut names: Vec<String> =
                    hops.iter().map(|hop| topology.entry_name(*hop)).collect();
                names.extend(names.first().cloned());
                let (way, too) = (names.join(" -> "), self.answers_too(draft));
                if *answers {
                    format!("answers to packets from {from} to {to} circle: {way}")
                } else {
                    format!("packets from {from} to {addresses} circle: {way}{too}")
                }
            }
            Cause::LostAfter { at, reason } => {
                let (at, reason) = (self.spot_name(*at), topology.next_hop_name(*reason));
                let too = self.answers_too(draft);
                format!(
                    "packets from {from} to {addresses} end after inspection at {at}: {reason}{too}"
                )
            }
            Cause::LostBehindGateway { at, reason } => {
                let (at, reason) = (self.spot_name(*at), topology.next_hop_name(*reason));
                format!(
                    "packets from {from} to {addresses} are led to a gateway and end at {at}: {reason}"
                )
            }
            Cause::LostReturn { at, fate } => {
                let at = self.spot_name(*at);
                let end = match fate {
                    Fate::Lost(reason) => {
                        format!("lost at {at}: {}", topology.next_hop_name(*reason))
                    }
                    Fate::Circles => "in a circle".to_owned(),
                    Fate::Astray(place) | Fate::Unknown(place) => {
                        format!("delivered to {} instead", topology.entry_name(*place))
                    }
                    Fate::Translated(id) => {
                        let nat = topology.entry_name(Entry::Interface(*id));
                        format!("no answers any more: {nat} gives them its own address")
                    }
                };
                format!("packets from {from} reach {to}, but the answers are {end}")
            }
            Cause::EgressOnly { .. } => {
                format!("IPv6 packets from {from} come from {first} to {to}, which drops them")
            }
            Cause::Blackhole { table, route } => {
                let table = topology.table(*table).name();
                format!(
                    "route {route} of table {table} is a blackhole, and packets between {from} \
                     and {} meet it",
                    if to.is_empty() { &addresses } else { &to }
                )
            }
            Cause::Crossing { endpoint, .. } => {
                let zone = &topology.endpoint(*endpoint).zone;
                let name = topology.entry_name(Entry::Endpoint(*endpoint));
                format!(
                    "packets between {from} and {to} pass {name} of zone {zone}, though its \
                     service has an endpoint in their own zone"
                )
            }
            Cause::ImplicitMain { vpc } => {
                let vpc = &topology.vpc(*vpc).name;
                let has = if finding.from.len() == 1 { "names" } else { "name" };
                format!(
                    "{from} {has} no table, and VPC {vpc} has no main table in the file: nothing \
                     but local routes"
                )
            }
            Cause::Unused { .. } => format!("no route leads to {from}"),
            Cause::NotFollowed { to } => {
                let to = topology.entry_name(*to);
                format!(
                    "packets between {from} and {addresses} are handed to {to}; what becomes of \
                     them is not known here"
                )
            }
        }
    }

    /// That answers end as packets do, if they do.
    fn answers_too(&self, draft: &Draft) -> String {
        let answers = self.names(draft.answers.iter().copied());
        if answers.is_empty() {
            return String::new();
        }
        format!("; so do answers to packets from {}", list(&answers))
    }
}

fn ipv6_words(ipv6_only: bool) -> (&'static str, &'static str) {
    if ipv6_only { ("IPv6 ", ", though IPv4 packets pass one") } else { ("", "") }
}

/// The endpoints that a way passes.
pub(super) fn passed(way: &[Hop]) -> String {
    let at: Vec<String> =
        way.iter().map(|hop| &hop.at).filter(|at| at.starts_with("endpoint:")).cloned().collect();
    list(&at)
}

/// Names, for a reader.
pub(super) fn list(names: &[String]) -> String {
    match names.len().saturating_sub(MOST_NAMES) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..MOST_NAMES].join(", ")),
    }
}
