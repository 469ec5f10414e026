//! What leaves a worker: datagrams to appliances, and packets through attachments. What is to
//! leave was noted with its verdict; what left has to be that.

use std::net::{IpAddr, SocketAddr};

use geneve::{Inner, protocol};
use gwlb::control::TunnelRequest;
use gwlb::dataplane::snapshot::{Snapshot, TargetSlot};
use gwlb::dataplane::verdict::{DropReason, Hop, ReplyCause, Side, WorkerId};
use netio::offload::Offload;
use router::Attachment;

use super::placing::Change;
use super::plane::Plane;
use super::seen::Seen;
use super::translating::Way;
use super::tuple::Tuple;
use super::view::View;
use super::wire::{clamped, piece_of, same_but_for_zero};
use super::worker::{Cut, Leaving, Outbound, OwnReset, Worker};
use super::{Clause, Wrong, hold, wrong};
use crate::gateway::{Delivered, Sent};

impl Worker {
    /// A packet is to go to an appliance.
    pub(super) fn send(&mut self, side: Side, seen: &Seen, view: &View, hop: &Hop, change: Change) {
        let from = view.pool(hop.pool).address;
        let cut = match change {
            Change::Cut(mtu) => Some(Cut { mtu, sent: 0, pieces: 0 }),
            _ => None,
        };
        let partial = seen.offload.checksum.is_some();
        for mut packet in clamped_first(seen, change).packets() {
            if let Change::Clamp(mtu) = change
                && partial
                && seen.segments > 1
            {
                packet = clamped(&packet, &seen.inner, mtu, false);
            }
            self.out.push_back(Outbound {
                side,
                slot: hop.target,
                from,
                port: hop.port,
                to: hop.address,
                header: hop.header.as_bytes().to_vec(),
                packet,
                zero_at: computed(seen, change),
                cut,
            });
        }
    }

    /// A packet is to leave through an attachment.
    pub(super) fn leave(&mut self, at: Attachment, bypass: bool, seen: &Seen, view: &View) {
        for packet in seen.packets() {
            let addresses = view.routes.addresses(at).to_vec();
            let zero_at = computed(seen, Change::None);
            self.leaving.push(Leaving { at, bypass, packet, zero_at, addresses });
        }
    }

    /// The same for a packet that needs nothing done.
    pub(super) fn leave_plain(&mut self, at: Attachment, packet: Vec<u8>, view: &View) {
        let addresses = view.routes.addresses(at).to_vec();
        let (bypass, zero_at) = (false, None);
        self.leaving.push(Leaving { at, bypass, packet, zero_at, addresses });
    }
}

/// The packet as it is when its SYN offers what fits.
fn clamped_first(seen: &Seen, change: Change) -> Seen {
    let partial = seen.offload.checksum.is_some();
    let bytes = match change {
        Change::Clamp(mtu) => clamped(&seen.bytes, &seen.inner, mtu, partial),
        _ => seen.bytes.clone(),
    };
    let Seen { inner, offload, segments, largest, .. } = *seen;
    Seen { inner, bytes, offload, segments, largest }
}

/// Where the transport checksum lies, if the gateway computes it.
fn computed(seen: &Seen, change: Change) -> Option<usize> {
    let left = seen.offload != Offload::NONE;
    let at = match seen.inner.protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return None,
    };
    (left || matches!(change, Change::Clamp(_))).then_some(seen.inner.header_len + at)
}

impl Outbound {
    /// Where from and where to, and in which ledger.
    fn way(&self) -> (Side, TargetSlot, IpAddr, SocketAddr) {
        (self.side, self.slot, self.from, self.to)
    }

    /// Whether this is it, or the next piece of it, on its way.
    fn is(&self, way: (Side, TargetSlot, IpAddr, SocketAddr), datagram: &[u8]) -> bool {
        let Some(packet) = datagram.strip_prefix(&self.header[..]) else { return false };
        let right = match &self.cut {
            Some(cut) => piece_of(&self.packet, packet, cut.sent, cut.mtu).is_ok(),
            None => {
                self.packet == packet
                    || self.zero_at.is_some_and(|at| same_but_for_zero(&self.packet, packet, at))
            }
        };
        right && self.way() == way
    }
}

impl Plane {
    /// A datagram was sent to an appliance.
    pub(super) fn sent(&mut self, worker: WorkerId, side: Side, sent: &Sent) -> Result<(), Wrong> {
        let view = self.generation(worker);
        let worker = &mut self.workers[usize::from(worker.0)];
        let way = (side, sent.target, sent.from.ip(), sent.to);
        let Some(at) = worker.out.iter().position(|out| out.is(way, &sent.bytes)) else {
            let due = worker.out.iter().find(|out| out.way() == way).or(worker.out.front());
            return wrong(Clause::Transparency, || {
                format!("{way:?} {sent:02x?} is sent, and due is {due:02x?}")
            });
        };
        // What goes the same way from the same port stays in order, and so do flows.
        let port = worker.out[at].port;
        let overtaken = worker.out.iter().take(at).find(|it| (it.way(), it.port) == (way, port));
        hold(overtaken.is_none(), Clause::Transparency, || {
            format!("{sent:02x?} has overtaken {overtaken:02x?}")
        })?;
        let out = &mut worker.out[at];
        let packet = &sent.bytes[out.header.len()..];
        let ledger = self.books.ledger(side);
        ledger.flow.encapsulated += 1;
        let mut done = true;
        if let Some(cut) = &mut out.cut
            && let Ok(piece) = piece_of(&out.packet, packet, cut.sent, cut.mtu)
        {
            (cut.sent, cut.pieces) = (cut.sent + piece, cut.pieces + 1);
            let header = usize::from(out.packet[0] & 0xf) * 4;
            done = header + cut.sent == out.packet.len();
            if done {
                ledger.flow.generated += cut.pieces - 1;
            }
        }
        if done {
            worker.out.remove(at);
        }
        let target = self.books.target(sent.target, view);
        target.sent_packets += 1;
        target.sent_bytes += packet.len() as u64;
        Ok(())
    }

    /// A packet has left through an attachment.
    pub(super) fn delivered(
        &mut self,
        worker: WorkerId,
        delivered: &Delivered,
    ) -> Result<(), Wrong> {
        let leaving = &mut self.workers[usize::from(worker.0)].leaving;
        let same = |it: &Leaving| {
            it.at == delivered.at
                && (Way::Out.is_translated(&it.packet, &delivered.packet, &it.addresses)
                    || it.zero_at.is_some_and(|at| {
                        it.addresses.is_empty()
                            && same_but_for_zero(&it.packet, &delivered.packet, at)
                    }))
        };
        let Some(found) = leaving.iter().position(same) else {
            let due = leaving.first().map(|it| (it.at, &it.packet));
            return wrong(Clause::Transparency, || {
                format!("{delivered:02x?} has left, and due is {due:02x?}")
            });
        };
        leaving.remove(found);
        Ok(())
    }

    /// A worker has reset an end of its own accord.
    pub(super) fn replied(
        &mut self,
        id: WorkerId,
        at: Attachment,
        packet: &[u8],
        cause: ReplyCause,
    ) -> Result<(), Wrong> {
        let view = self.view(id)?;
        let worker = self.worker(id);
        let is = |it: &OwnReset| {
            let ends = ((it.from.ip(), it.from.port()), (it.to.ip(), it.to.port()));
            (it.at, it.cause) == (at, cause)
                && super::wire::hold_reset(packet, ends.0, ends.1, it.numbers).is_ok()
        };
        let Some(found) = worker.replies.iter().position(is) else {
            let due = worker.replies.first();
            return wrong(Clause::Conservation, || {
                format!("{cause:?} has {packet:02x?} leave by {at:?}, and due is {due:02x?}")
            });
        };
        worker.replies.remove(found);
        worker.leave_plain(at, packet.to_vec(), &view);
        self.books.tun.flow.generated += 1;
        self.books.tun.flow.delivered += 1;
        self.books.reset(cause);
        Ok(())
    }
}

impl Plane {
    /// A packet cannot be cut as its device said, or what it says of its checksum is wrong: it was
    /// expected to leave, and does not.
    pub(super) fn cannot_leave(
        &mut self,
        id: WorkerId,
        side: Side,
        (reason, segments): (DropReason, u64),
    ) -> Result<(), Wrong> {
        let worker = &mut self.workers[usize::from(id.0)];
        hold(worker.contradictory, Clause::Conservation, || {
            format!("a packet like any other does not leave: {reason:?}")
        })?;
        let count = segments as usize;
        let nothing = || Wrong::new(Clause::Conservation, "nothing was to leave".to_owned());
        if reason == DropReason::DeliveryFailed {
            let kept = worker.leaving.len().checked_sub(count).ok_or_else(nothing)?;
            let bypass = worker.leaving.drain(kept..).any(|leaving| leaving.bypass);
            let flow = &mut self.books.ledger(side).flow;
            let counter = if bypass { &mut flow.bypassed } else { &mut flow.delivered };
            *counter -= segments;
        } else {
            let kept = worker.out.len().checked_sub(count).ok_or_else(nothing)?;
            worker.out.truncate(kept);
        }
        Ok(())
    }

    /// A probe goes through the tunnel: it carries a cookie, too.
    pub(super) fn probe(
        &mut self,
        request: &TunnelRequest,
        latest: Option<&Snapshot>,
        late: bool,
    ) -> Result<(), Wrong> {
        let unfit = || Wrong::new(Clause::Conservation, format!("no probe: {request:02x?}"));
        let snapshot = latest.ok_or_else(unfit)?;
        let target = snapshot.targets.get(request.target.0 as usize).ok_or_else(unfit)?;
        let (header, packet) = geneve::Header::parse(&request.packet).map_err(|_| unfit())?;
        let tags = target.dialect.read(&header).map_err(|_| unfit())?;
        let inner = Inner::parse(packet).map_err(|_| unfit())?;
        let purpose = (tags.endpoint, target.id.get(), Tuple::of(&inner).flow());
        let present = snapshot.keys.cookie.epoch();
        // Of what is late, it may have been stamped before the keys turned, in the same moment. The
        // upper two bits of a cookie say in which epoch it was.
        let before = late && u64::from(tags.cookie >> 30) != present & 0b11;
        self.fleet.issue(purpose, present - u64::from(before), tags.cookie)
    }
}
