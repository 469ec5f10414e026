//! Circles of endpoints: tables that hand a packet from one endpoint to the next and back.
//!
//! The search is exact. Where a table's answer changes from one address to the next, a destination
//! of it begins or has just ended; so it is enough to follow one address for each such place.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::ops::Range;

use super::super::ids::Id;
use super::super::{EndpointId, RouteTable, TableId, Target};
use super::Draft;
use super::cidr::successor;
use crate::source::Problem;

impl Draft<'_> {
    /// A problem for each circle, whichever endpoint it is entered at.
    pub(super) fn find_loops(&mut self) {
        let mut told = HashSet::new();
        for address in self.telling_addresses() {
            let next: Vec<Option<EndpointId>> =
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

    /// Where an address goes when it comes back from an endpoint, if to an endpoint.
    fn next(&self, from: usize, address: IpAddr) -> Option<EndpointId> {
        match self.table_of_endpoint(from)?.target(address)? {
            Target::Endpoint(id) => Some(id),
            // Back to a group that it is of, a packet would come to it again.
            Target::EndpointGroup(id) => {
                let of = EndpointId::from_position(from);
                let members = &self.groups[id.index()].members;
                let own = members.iter().find(|(member, _)| *member == of);
                own.or(members.first()).map(|(member, _)| *member)
            }
            _ => None,
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
            .and_then(|route| self.route_places.get(table)?.get(&route.destination).cloned())
            // Only a route of the file leads to an endpoint, and each of them has its place.
            .unwrap_or_default()
    }
}

/// The circles in "each leads to at most one other", each from its lowest member on.
fn circles(next: &[Option<EndpointId>]) -> Vec<Vec<usize>> {
    let mut seen_from = vec![usize::MAX; next.len()];
    let mut circles = Vec::new();
    for start in 0..next.len() {
        let mut at = start;
        // Ends at a way that is known already, which is a new circle only if it is this one.
        while seen_from[at] == usize::MAX {
            seen_from[at] = start;
            let Some(onward) = next[at] else { break };
            at = onward.index();
            if seen_from[at] == start {
                circles.push(circle_through(next, at));
            }
        }
    }
    circles
}

fn circle_through(next: &[Option<EndpointId>], member: usize) -> Vec<usize> {
    let onward = |at: &usize| next[*at].map(EndpointId::index).filter(|at| *at != member);
    let mut circle: Vec<usize> = std::iter::successors(Some(member), onward).collect();
    let lowest = circle.iter().enumerate().min_by_key(|(_, id)| **id).map_or(0, |(at, _)| at);
    circle.rotate_left(lowest);
    circle
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(next: &[Option<u16>]) -> Vec<Vec<usize>> {
        circles(&next.iter().map(|id| id.map(EndpointId::from_index)).collect::<Vec<_>>())
    }

    #[test]
    fn circles_are_found_once_from_their_lowest_member() {
        assert_eq!(found(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(found(&[None, Some(0), Some(1)]), Vec::<Vec<usize>>::new());
        assert_eq!(found(&[Some(0)]), [[0]]);
        assert_eq!(found(&[Some(2), Some(2), Some(1)]), [[1, 2]]);
        assert_eq!(found(&[Some(1), Some(2), Some(0), Some(3), Some(0)]), [vec![0, 1, 2], vec![3]]);
    }
}
