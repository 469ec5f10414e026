//! The counters of endpoints, which outlive views, reloads, and as long as they have flows the
//! endpoints themselves.

use std::collections::BTreeMap;

use ahash::AHashMap;
use router::Topology;

use crate::dataplane::stats::EndpointCounts;

/// The counters of all endpoints, by their ids on the wire.
#[derive(Debug)]
pub(super) struct Counts {
    workers: u16,
    known: BTreeMap<u64, Known>,
}

#[derive(Debug)]
struct Known {
    counts: EndpointCounts,
    /// The first view without the endpoint, if it is not there any more.
    left: Option<u64>,
}

impl Counts {
    /// Of no endpoint yet.
    pub fn new(workers: u16) -> Self {
        Self { workers, known: BTreeMap::new() }
    }

    /// These are the endpoints from the view `next` on. One that comes back goes on where it was, as
    /// long as flows have kept its counters.
    pub fn take(&mut self, topology: &Topology, next: u64) {
        for known in self.known.values_mut() {
            known.left = known.left.or(Some(next));
        }
        for (_, endpoint) in topology.endpoints() {
            let new = || Known { counts: EndpointCounts::new(self.workers), left: None };
            self.known.entry(endpoint.wire_id).or_insert_with(new).left = None;
        }
    }

    /// Forgets endpoints that are gone and have no flows, once every worker holds a view without them.
    pub fn prune(&mut self, acknowledged: u64) {
        self.known.retain(|_, known| match known.left {
            Some(left) => acknowledged < left || known.counts.totals().active_flows() > 0,
            None => true,
        });
    }

    /// Those of an endpoint.
    pub fn of(&self, wire_id: u64) -> EndpointCounts {
        let known = self.known.get(&wire_id).map(|known| known.counts.clone());
        known.unwrap_or_else(|| EndpointCounts::new(self.workers))
    }

    /// Those of all endpoints that are not there any more.
    pub fn departed(&self) -> AHashMap<u64, EndpointCounts> {
        let gone = self.known.iter().filter(|(_, known)| known.left.is_some());
        gone.map(|(wire_id, known)| (*wire_id, known.counts.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use crate::control::Input;
    use crate::control::testing::{World, settings};

    /// One zone with endpoints of these names, of which routes lead to the first.
    fn file(endpoints: &[&str]) -> String {
        let mut text = include_str!("../../examples/two-zones.toml").to_owned();
        for name in endpoints {
            let at = "subnet = \"gwlbe-a\"\nservice = \"inspection\"";
            let _ = writeln!(text, "[[endpoint]]\nname = \"{name}\"\n{at}");
        }
        text
    }

    #[test]
    fn counters_outlive_reloads_and_endpoints_that_have_flows() {
        let mut world = World::new(&file(&["vpce-x", "vpce-y"]));
        world.run_until(10);
        let counts = |world: &World, name: &str| {
            let view = world.control.snapshot();
            let id = view.topology.endpoints().find(|(_, it)| it.name == name)?.0;
            Some(view.endpoint(id).counters.clone())
        };
        let [x, y] = ["vpce-x", "vpce-y"].map(|name| counts(&world, name).unwrap());
        for it in [&x, &y] {
            it.of(0).new_flows.add(2);
        }
        y.of(0).ended_flows.add(2);
        // Numbered anew, and both gone.
        let reload = |world: &mut World, names: &[&str]| {
            let now = world.now();
            world.control.reload(settings(&file(names)), now);
            world.run_until(world.ms + 10);
        };
        reload(&mut world, &["vpce-a-new", "vpce-x"]);
        assert_eq!(counts(&world, "vpce-x").unwrap().totals().new_flows, 2);
        reload(&mut world, &[]);
        assert!(counts(&world, "vpce-x").is_none());
        let generation = world.control.snapshot().generation;
        world.handle(Input::Acknowledged(generation));
        reload(&mut world, &["vpce-z"]);
        let departed = world.control.snapshot();
        assert_eq!(departed.departed.len(), 1, "only one has flows: {departed:?}");
        // A worker counts on where it was.
        departed.departed.values().next().unwrap().of(0).ended_flows.add(1);
        reload(&mut world, &["vpce-x", "vpce-y"]);
        let view = world.control.snapshot();
        // The last to go has no flows, but a worker may hold an older view.
        assert_eq!(view.departed.len(), 1, "{:?}", view.departed);
        let [x, y] = ["vpce-x", "vpce-y"].map(|name| counts(&world, name).unwrap().totals());
        assert_eq!((x.new_flows, x.active_flows(), y.new_flows), (2, 1, 0));
    }
}
