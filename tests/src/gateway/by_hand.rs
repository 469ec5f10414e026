//! What can be done to a gateway of which nothing goes by itself ([`Setup::by_hand`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use geneve::{IpVersion, outer};
use gwlb::control::{Input, ProbeRequest, TunnelOutcome, TunnelRequest, recognise};
use gwlb::dataplane::snapshot::Snapshot;
use gwlb::dataplane::verdict::WorkerId;

#[cfg(doc)]
use super::Setup;
use super::{Gateway, Sent, exits};

impl Gateway {
    /// A worker empties the queue of what others have handed over to it.
    pub fn serve_inbox(&mut self, worker: u16) {
        let now = self.now();
        self.workers[usize::from(worker)].take_inbox(now, &mut self.exits);
        // It may have taken up a view on the way.
        self.acknowledge();
    }

    /// How many packets are in the queue to a worker.
    pub fn waiting(&self, worker: u16) -> usize {
        self.exits.inboxes[usize::from(worker)].len()
    }

    /// A worker takes up the latest view, if it does not hold that already.
    pub fn take_up(&mut self, worker: u16) {
        let now = self.now();
        if self.workers[usize::from(worker)].take_up(now, &mut self.exits) {
            self.acknowledge();
        }
    }

    /// The view that a worker works with.
    pub fn view(&self, worker: WorkerId) -> &Arc<Snapshot> {
        &self.workers[usize::from(worker.0)].snapshot
    }

    /// Health probes that are to be made, if [`Setup::by_hand`] is set. Each is answered by one
    /// [`Input::Probe`], within its timeout.
    pub fn take_probes(&mut self) -> Vec<ProbeRequest> {
        std::mem::take(&mut self.probes)
    }

    /// The calendar is set.
    pub fn set_wall_clock(&mut self, wall_clock: Duration) {
        self.wall_clock = (wall_clock, self.elapsed);
        self.control(Input::WallClock(wall_clock));
    }

    /// Sends a probe through the tunnel as the runtime does, and waits for it to come back.
    pub(super) fn send_tunnel_probe(&mut self, request: &TunnelRequest) {
        let now = self.now();
        let (check, sequence) = (request.check, request.sequence);
        let target = self.exits.snapshot.target(request.target);
        let version = IpVersion::of(request.address.ip());
        let len = version.header_len() + outer::UDP_LEN + request.packet.len();
        if len > usize::from(target.path_mtu) {
            let outcome = TunnelOutcome::TooLong;
            return self.tell(Input::TunnelProbe { check, sequence, outcome });
        }
        let port = exits::source_port(WorkerId(0), 0, self.setup.workers);
        self.exits.sent.push(Sent {
            time: self.elapsed,
            from: SocketAddr::new(request.source, port),
            to: request.address,
            target: request.target,
            bytes: request.packet.clone(),
        });
        self.tunnels.insert((check, sequence), request.target);
        let outcome = TunnelOutcome::Lost;
        let input = Input::TunnelProbe { check, sequence, outcome };
        self.unanswered.push((now + request.timeout, input));
    }

    /// Tells the control plane which probes through the tunnel have come back.
    pub(super) fn recognise_probes(&mut self) {
        let came_back = std::mem::take(&mut self.exits.probes);
        for (by, payload) in came_back {
            let Some(found) = recognise(&self.exits.snapshot.keys, &payload) else { continue };
            let (check, sequence) = (found.check, found.sequence);
            // Nobody can vouch for another.
            if self.tunnels.get(&(check, sequence)) != Some(&by) {
                continue;
            }
            self.tunnels.remove(&(check, sequence));
            self.unanswered.retain(|(_, input)| {
                !matches!(input, Input::TunnelProbe { check: other, sequence: number, .. }
                    if (*other, *number) == (check, sequence))
            });
            let outcome = TunnelOutcome::Returned;
            self.control(Input::TunnelProbe { check, sequence, outcome });
        }
    }
}
