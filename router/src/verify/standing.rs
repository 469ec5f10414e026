//! What is wrong with the tables themselves, whatever packets there are.

use super::Severity;
use super::collect::Cause;
use super::judge::Judge;
use crate::{Entry, Target};

impl Judge<'_> {
    pub fn add_standing(&mut self) {
        let topology = self.topology;
        let targets: Vec<Target> = topology
            .tables()
            .flat_map(|(_, table)| table.routes().map(|route| route.target))
            .collect();
        for (id, _) in topology.endpoints() {
            let leads = |target: &Target| match target {
                Target::Endpoint(to) => *to == id,
                Target::EndpointGroup(group) => {
                    topology.endpoint_group(*group).members.iter().any(|(to, _)| *to == id)
                }
                _ => false,
            };
            if !targets.iter().any(leads) {
                self.found.draft(Cause::Unused { endpoint: id }, Severity::Info);
            }
        }
        for (id, subnet) in topology.subnets() {
            if let Some(cause) = self.shared(Entry::Subnet(id)) {
                self.found.draft(cause, Severity::Warning);
            }
            if topology.table(subnet.table).is_implicit() && self.roles.inspects(subnet.vpc) {
                let cause = Cause::ImplicitMain { vpc: subnet.vpc };
                self.found.draft(cause, Severity::Warning);
            }
        }
    }
}
