//! A packet on its way to an appliance: what stands in front of it, and where it is sent from.

use std::sync::Arc;

use geneve::{Header, IpVersion, ProtocolType, Tags};
use gwlb::dataplane::snapshot::PoolId;
use gwlb::dataplane::verdict::Hop;

use super::flow::FlowId;
use super::placing::Change;
use super::plane::{Judged, Plane};
use super::seen::Seen;
use super::tuple::Tuple;
use super::view::View;
use super::{Clause, Wrong, hold};

impl Plane {
    /// A packet goes to an appliance: its header says what it must, and its cookie is the flow's.
    pub(super) fn send(
        &mut self,
        it: &Judged<'_>,
        seen: &Seen,
        view: &Arc<View>,
        hop: &Hop,
        (endpoint, change): (u64, Change),
    ) -> Result<(), Wrong> {
        let target = &view.snapshot.targets[hop.target.0 as usize];
        let wrong_header =
            |why: String| Wrong::new(Clause::Determinism, format!("the Geneve header {why}"));
        let header = hop.header.as_bytes();
        let (parsed, _) =
            Header::parse(header).map_err(|error| wrong_header(format!("is none: {error}")))?;
        let tags = target
            .dialect
            .read(&parsed)
            .map_err(|error| wrong_header(format!("is not of the dialect: {error}")))?;
        let protocol = match seen.inner.version {
            IpVersion::V4 => ProtocolType::IPV4,
            IpVersion::V6 => ProtocolType::IPV6,
        };
        let mut right = vec![0; target.dialect.header_len()];
        let expected = Tags { endpoint, attachment: 0, ..tags };
        let written = target.dialect.write(&expected, protocol, &mut right).is_ok();
        if !written || right != header {
            return Err(wrong_header(format!("is {header:02x?}")));
        }
        let key = match change {
            Change::Cut(_) => Tuple::of(&seen.inner).without_ports(),
            _ => Tuple::of(&seen.inner),
        };
        let epoch = view.snapshot.keys.cookie.epoch();
        let purpose = (tags.endpoint, target.id.get(), key.flow());
        self.fleet.issue(purpose, epoch, tags.cookie)?;
        hold(hop.address == target.address, Clause::Determinism, || {
            format!("it goes to {}, and the target is {}", hop.address, target.address)
        })?;
        self.worker(it.worker).send(it.origin.side, seen, view, hop, change);
        Ok(())
    }

    /// A flow is sent by the node that serves its endpoint, from one port for its whole life, and
    /// from one of those that there are.
    pub(super) fn hold_port(
        &mut self,
        it: &Judged<'_>,
        view: &View,
        hop: &Hop,
        (id, pool): (FlowId, PoolId),
    ) -> Result<(), Wrong> {
        hold(hop.pool == pool, Clause::Determinism, || {
            format!("endpoint {:#x} is served by {pool:?}, and {:?} sends", id.0, hop.pool)
        })?;
        hold(hop.port < view.snapshot.source_ports, Clause::Bounded, || {
            format!("port {} of {}", hop.port, view.snapshot.source_ports)
        })?;
        let Some(lot) = self.lots.get_mut(&id) else { return Ok(()) };
        let port = *lot.port.get_or_insert(hop.port);
        hold(port == hop.port, Clause::Stability, || {
            let worker = it.worker.0;
            format!("{} is sent from port {} of worker {worker}, it was {port}", id.1, hop.port)
        })
    }
}
