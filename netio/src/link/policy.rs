//! Policy routing: rules that send what came in by a link to a routing table of its own.

use std::net::IpAddr;

use rtnetlink::packet_route::rule::RuleAction;

use super::{LinkError, Links};

impl Links {
    /// Has IPv4 or IPv6 packets, whichever `version` is an address of, that came in by the link
    /// `name` be routed by `table` first, as `ip rule add iif NAME lookup TABLE` does. Where that
    /// table has no route for a packet, the others follow, the main table among them.
    pub fn add_rule(&self, version: IpAddr, name: &str, table: u32) -> Result<(), LinkError> {
        let rule = self.handle.rule().add().action(RuleAction::ToTable);
        let rule = rule.input_interface(name).table_id(table);
        let added = match version {
            IpAddr::V4(_) => self.wait(rule.v4().execute()),
            IpAddr::V6(_) => self.wait(rule.v6().execute()),
        };
        added.map_err(|error| self.error(format!("add rule iif {name} lookup {table}"), error))
    }
}
