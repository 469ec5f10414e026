//! Circles of endpoints: tables that hand a packet from one endpoint to the next and back.
//!
//! The search is exact. Where a table's answer changes from one address to the next, a destination
//! of it begins or has just ended; so it is enough to follow one address for each such place.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::ops::Range;

use super::super::ids::Id;
use super::super::{RouteTable, TableId, Target};
use super::Draft;
use super::cidr::successor;
use crate::source::Problem;

impl Draft<'_> {
    /// A problem for each circle, whichever endpoint it is entered at.
    pub(super) fn find_loops(&mut self) {
        let mut told = HashSet::new();
        for address in self.telling_addresses() {
            let next: Vec<Vec<usize>> =
                (0..self.endpoints.len()).map(|from| self.next(from, address)).collect();
            for circle in circles(&next) {
                if !told.contains(&circle) {
                    let problem = self.circle(&circle, address);
                    self.problems.push(problem);
                    told.insert(circle);
                }
            }
        }
    }

    /// The endpoints that an address goes to when it comes back from an endpoint.
    fn next(&self, from: usize, address: IpAddr) -> Vec<usize> {
        match self.table_of_endpoint(from).and_then(|table| table.target(address)) {
            Some(Target::Endpoint(id)) => vec![id.index()],
            // Any member may be the one, at one time or another.
            Some(Target::EndpointGroup(id)) => {
                let members = self.groups[id.index()].members.iter();
                let members = members.map(|(member, _)| member.index());
                // Back to a group that it is of, a packet would come to it again.
                let own = members.clone().find(|member| *member == from);
                own.map_or_else(|| members.collect(), |own| vec![own])
            }
            _ => Vec::new(),
        }
    }

    fn table_of_endpoint(&self, endpoint: usize) -> Option<&RouteTable> {
        let subnet = self.endpoints[endpoint].subnet;
        let table = self.subnets.get(subnet.index())?.table;
        self.tables.get(table.index())
    }

    /// The first address of each destination in these tables, and the first one behind it.
    fn telling_addresses(&self) -> BTreeSet<IpAddr> {
        let tables: BTreeSet<TableId> = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.subnet.is_resolved())
            .map(|endpoint| self.subnets[endpoint.subnet.index()].table)
            .filter(|table| table.is_resolved())
            .collect();
        let destinations = tables.iter().flat_map(|table| self.tables[table.index()].routes());
        destinations
            .map(|route| route.destination)
            .flat_map(|net| [Some(net.network()), successor(net.broadcast())])
            .flatten()
            .collect()
    }

    fn circle(&self, circle: &[usize], address: IpAddr) -> Problem {
        let name = |endpoint: usize| self.endpoints[endpoint].name.as_str();
        let mut around: Vec<&str> = circle.iter().map(|endpoint| name(*endpoint)).collect();
        let mut problem = if let [alone] = circle {
            Problem::at(
                self.route_place(*alone, address),
                format!("endpoint \"{}\" would get its own packets back", name(*alone)),
            )
            .label("the table of its own subnet leads back to it")
        } else {
            around.push(name(circle[0]));
            let message = format!("endpoints in a circle: {}", around.join(" -> "));
            Problem::at(self.route_place(circle[0], address), message)
                .label(format!("leads from \"{}\" to \"{}\"", around[0], around[1]))
        };
        for (step, endpoint) in circle.iter().enumerate().skip(1) {
            let label = format!("leads from \"{}\" to \"{}\"", around[step], around[step + 1]);
            problem = problem.and(self.route_place(*endpoint, address), label);
        }
        problem.help(format!(
            "a packet to {address} would never get out: the subnet of an endpoint leads on to \
             where inspected packets go, such as an internet gateway"
        ))
    }

    /// The route that an endpoint's table has for an address.
    fn route_place(&self, endpoint: usize, address: IpAddr) -> Range<usize> {
        let table = self.subnets[self.endpoints[endpoint].subnet.index()].table.index();
        self.tables[table]
            .candidates(address)
            .first()
            .and_then(|route| {
                let of = |places: &[HashMap<_, Range<usize>>]| {
                    places.get(table)?.get(&route.destination).cloned()
                };
                of(&self.route_places).or_else(|| of(&self.other_places))
            })
            // Only a route of the file leads to an endpoint, and each of them has its place.
            .unwrap_or_default()
    }
}

/// The circles in "each leads to these", from their lowest member on: for each such member the
/// shortest, since a group makes many of one mistake.
fn circles(next: &[Vec<usize>]) -> Vec<Vec<usize>> {
    (0..next.len()).filter_map(|lowest| circle_through(next, lowest)).collect()
}

/// The shortest circle of which this is the lowest member.
fn circle_through(next: &[Vec<usize>], lowest: usize) -> Option<Vec<usize>> {
    let mut came_from = HashMap::new();
    let mut reached = VecDeque::from([lowest]);
    while let Some(at) = reached.pop_front() {
        for &onward in next[at].iter().filter(|onward| **onward >= lowest) {
            if onward == lowest {
                let back = |at: &usize| came_from.get(at).copied();
                let mut circle: Vec<usize> = std::iter::successors(Some(at), back).collect();
                circle.reverse();
                return Some(circle);
            }
            came_from.entry(onward).or_insert_with(|| {
                reached.push_back(onward);
                at
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(next: &[&[usize]]) -> Vec<Vec<usize>> {
        circles(&next.iter().map(|next| next.to_vec()).collect::<Vec<_>>())
    }

    #[test]
    fn circles_are_found_once_from_their_lowest_member() {
        assert_eq!(found(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(found(&[&[], &[0], &[1]]), Vec::<Vec<usize>>::new());
        assert_eq!(found(&[&[0]]), [[0]]);
        assert_eq!(found(&[&[2], &[2], &[1]]), [[1, 2]]);
        assert_eq!(found(&[&[1], &[2], &[0], &[3], &[0]]), [vec![0, 1, 2], vec![3]]);
    }

    #[test]
    fn circles_through_a_group_are_found_whichever_member_they_go_through() {
        assert_eq!(found(&[&[1, 2], &[], &[0]]), [[0, 2]]);
        assert_eq!(found(&[&[1, 2], &[0], &[0]]), [[0, 1]], "one of both is told");
        assert_eq!(found(&[&[1, 2], &[], &[]]), Vec::<Vec<usize>>::new());
        assert_eq!(found(&[&[1], &[2, 3], &[], &[0]]), [[0, 1, 3]]);
    }
}
