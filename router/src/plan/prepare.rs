//! What cannot be changed where it is, and so is made anew beside the old, under a name for the
//! meantime: an endpoint in another subnet, and whatever is bound to it for life.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::is_ipv6;
use super::kind::{Kind, Place, Resource, rename};
use super::network::Network;
use super::operation::Operation;
use crate::config::{RouterFile, Subnet};
use crate::source::Located;
use crate::topology::derived_wire_id;

/// The network to come, with names for the meantime.
pub(super) struct Prepared {
    /// Its forms.
    pub file: RouterFile,
    /// What remains to be done with them when all else is done: the ids of endpoints.
    pub late: Vec<Operation>,
    /// And then their names.
    pub renames: Vec<Operation>,
    /// The names for the meantime, and those that follow.
    pub aliases: BTreeMap<Place, Place>,
}

/// Prepares the change from one network to another, with these route tables made anew.
pub(super) fn prepare(old: &Network, new: &Network, anew: &BTreeSet<String>) -> Prepared {
    let before: BTreeMap<Place, Resource> =
        Resource::all(old.file()).into_iter().map(|it| (it.place(), it)).collect();
    let mut file = new.file().clone();
    let mut aliases = BTreeMap::new();
    // What refers to a thing for life has to be made anew with it.
    while let Some(place) = next_to_rename(&before, &file, anew) {
        let taken: BTreeSet<Place> = Resource::all(&file).iter().map(Resource::place).collect();
        let free = |name: &String| {
            let place = Place::new(place.kind, name.as_str());
            !taken.contains(&place) && !before.contains_key(&place)
        };
        let Some(name) = names(&place.name).find(free) else { break };
        rename(&mut file, &place, &name);
        aliases.insert(Place::new(place.kind, name), place);
    }
    let late = wire_ids(old, &mut file, &aliases);
    let renames = aliases
        .iter()
        .map(|(place, to)| Operation::Rename { resource: place.clone(), to: to.name.clone() });
    Prepared { late, renames: renames.collect(), aliases, file }
}

/// Names for the meantime: as long as names may be.
fn names(name: &str) -> impl Iterator<Item = String> {
    const LONGEST: usize = 64;
    (1u32..).map(move |number| {
        let suffix = if number == 1 { ".new".to_owned() } else { format!(".new{number}") };
        let kept: String = name.chars().take(LONGEST - suffix.len()).collect();
        kept + &suffix
    })
}

fn next_to_rename(
    before: &BTreeMap<Place, Resource>,
    file: &RouterFile,
    anew: &BTreeSet<String>,
) -> Option<Place> {
    Resource::all(file).into_iter().find_map(|after| {
        let place = after.place();
        let before = before.get(&place)?;
        let anew = place.kind == Kind::RouteTable && anew.contains(&place.name);
        (anew || !is_same_for_life(before, &after)).then_some(place)
    })
}

/// Whether one becomes the other by changes that the clouds have (semantics 1c, 1d, 2c).
fn is_same_for_life(before: &Resource, after: &Resource) -> bool {
    use Resource as R;
    match (before, after) {
        (R::Subnet(a), R::Subnet(b)) => {
            let of_ipv4 = |it: &Subnet| -> Vec<Located<String>> {
                it.cidrs.iter().filter(|cidr| !is_ipv6(cidr)).cloned().collect()
            };
            (&a.vpc, &a.zone, of_ipv4(a)) == (&b.vpc, &b.zone, of_ipv4(b))
        }
        (R::InternetGateway(a), R::InternetGateway(b)) => a.vpc == b.vpc,
        (R::VirtualPrivateGateway(a), R::VirtualPrivateGateway(b)) => a.vpc == b.vpc,
        (R::RouteTable(a), R::RouteTable(b)) => a.vpc == b.vpc,
        (R::TransitGatewayRouteTable(a), R::TransitGatewayRouteTable(b)) => {
            a.transit_gateway == b.transit_gateway
        }
        (R::TransitGatewayAttachment(a), R::TransitGatewayAttachment(b)) => {
            (&a.transit_gateway, &a.vpc) == (&b.transit_gateway, &b.vpc)
        }
        (R::Endpoint(a), R::Endpoint(b)) => {
            (&a.subnet, &a.service, &a.address) == (&b.subnet, &b.service, &b.address)
        }
        (R::Vpc(_), R::Vpc(_)) | (R::PrefixList(_), R::PrefixList(_)) => true,
        (a, b) => a == b,
    }
}

/// No two endpoints have the same id: one for the meantime has its own, until the old one is gone.
fn wire_ids(
    old: &Network,
    file: &mut RouterFile,
    aliases: &BTreeMap<Place, Place>,
) -> Vec<Operation> {
    let mut late = Vec::new();
    for endpoint in &mut file.endpoints {
        let endpoint = endpoint.get_mut();
        let name = endpoint.name.get().clone();
        let taken = old.file().endpoints.iter().any(|it| it.wire_id == endpoint.wire_id);
        if !taken || !aliases.contains_key(&Place::new(Kind::Endpoint, name.as_str())) {
            continue;
        }
        let meantime = Located::nowhere(format!("{:#018x}", derived_wire_id(&name)));
        let wire_id = endpoint.wire_id.replace(meantime).map(Located::into_inner);
        let (subnet, service) = (None, None);
        late.push(Operation::ModifyEndpoint { endpoint: name, subnet, service, wire_id });
    }
    late
}
