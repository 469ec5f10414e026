//! Intents: the places that their patterns mean, and the service that they ask for.

use super::super::ids::Id;
use super::super::{EdgeId, Entry, GatewayId, Intent, InterfaceId, SubnetId};
use super::Draft;
use crate::source::{Located, Problem, nearest};

impl Draft<'_> {
    /// All intents. Whether they hold is for [`crate::verify`].
    pub(super) fn add_intents(&mut self) {
        let file = self.file;
        for intent in &file.intents {
            let places = [&intent.from, &intent.to].map(|text| {
                let places = self.places(text);
                self.accept(places)
            });
            let uninspected = intent.uninspected.as_ref().filter(|flag| ***flag);
            let problem = match (&intent.inspected_by, uninspected) {
                (Some(service), None) => self.unknown_service(service),
                (None, Some(_)) => None,
                (None, None) => Some(
                    Problem::at(intent.span(), "this intent asks for nothing")
                        .label("neither inspected nor uninspected")
                        .help("add inspected_by = \"SERVICE\", or uninspected = true"),
                ),
                (Some(service), Some(flag)) => Some(
                    service
                        .problem("these paths cannot be inspected and uninspected")
                        .label("one")
                        .and(flag.span(), "the other")
                        .help("keep one of them"),
                ),
            };
            self.problems.extend(problem);
            if let [Some(from), Some(to)] = places {
                let inspected_by = intent.inspected_by.as_ref().map(|it| it.get().clone());
                self.intents.push(Intent { from, to, inspected_by });
            }
        }
    }

    fn places(&self, text: &Located<String>) -> Result<Vec<Entry>, Problem> {
        let file = self.file;
        let help = "write internet_gateway:NAME, virtual_private_gateway:NAME, \
                    egress_only_internet_gateway:NAME, opaque:NAME, interface:NAME or subnet:NAME; \
                    * stands for anything";
        // The ids of edges count all three kinds, in this order.
        let private = file.virtual_private_gateways.len();
        let egress_only = private + file.egress_only_internet_gateways.len();
        let edges = |first: usize| move |index| Entry::Edge(EdgeId::from_position(first + index));
        let places: Vec<Entry> = match text.split_once(':') {
            Some(("internet_gateway", pattern)) => {
                let names = file.internet_gateways.iter().map(|gateway| &gateway.name);
                matching(pattern, names)
                    .map(|index| Entry::InternetGateway(GatewayId::from_position(index)))
                    .collect()
            }
            Some(("virtual_private_gateway", pattern)) => {
                let names = file.virtual_private_gateways.iter().map(|gateway| &gateway.name);
                matching(pattern, names).map(edges(0)).collect()
            }
            Some(("egress_only_internet_gateway", pattern)) => {
                let names = file.egress_only_internet_gateways.iter().map(|gateway| &gateway.name);
                matching(pattern, names).map(edges(private)).collect()
            }
            Some(("opaque", pattern)) => {
                let names = file.opaques.iter().map(|opaque| &opaque.name);
                matching(pattern, names).map(edges(egress_only)).collect()
            }
            Some(("interface", pattern)) => {
                let names = file.network_interfaces.iter().map(|interface| &interface.name);
                matching(pattern, names)
                    .map(|index| Entry::Interface(InterfaceId::from_position(index)))
                    .collect()
            }
            Some(("subnet", pattern)) => {
                let names = file.subnets.iter().map(|subnet| &subnet.name);
                matching(pattern, names)
                    .map(|index| Entry::Subnet(SubnetId::from_position(index)))
                    .collect()
            }
            _ => {
                return Err(text
                    .problem(format!("\"{}\" names no place", text.get()))
                    .label("not a place where packets enter or leave")
                    .help(help));
            }
        };
        if places.is_empty() {
            return Err(text
                .problem(format!("nothing is named \"{}\"", text.get()))
                .label("an intent about nothing always holds")
                .help(help));
        }
        Ok(places)
    }

    /// The router knows services only as what endpoints connect to.
    fn unknown_service(&self, text: &Located<String>) -> Option<Problem> {
        let services = || self.file.endpoints.iter().map(|endpoint| endpoint.service.as_str());
        if services().any(|service| service == text.get()) {
            return None;
        }
        let near = nearest(text, services()).map(|near| format!("did you mean \"{near}\"?"));
        Some(
            text.problem(format!("no endpoint connects to a service \"{}\"", text.get()))
                .label("nothing can be inspected by it")
                .help_if(near),
        )
    }
}

fn matching<'a>(
    pattern: &str,
    names: impl Iterator<Item = &'a Located<String>>,
) -> impl Iterator<Item = usize> {
    names.enumerate().filter(move |(_, name)| matches(pattern, name)).map(|(index, _)| index)
}

/// Whether a name is of a pattern in which `*` stands for any characters, or none.
fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        // The leftmost find leaves the most for the others.
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name) in [
            ("app-a", "app-a"),
            ("app-*", "app-a"),
            ("app-*", "app-"),
            ("*", "x"),
            ("*", ""),
            ("*-a", "app-a"),
            ("a*-*a", "app-a"),
            ("**", "x"),
            ("a*b*a", "abba"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("app-a", "app-b"),
            ("app", "app-a"),
            ("a*a", "a"),
            ("*-b", "app-a"),
            ("", "x"),
            ("a*b*a", "aba-"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
