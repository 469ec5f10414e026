//! What must always hold, as far as it can be seen end to end and from the journals, without a
//! model of the gateway.

use std::net::IpAddr;
use std::time::Duration;

use geneve::{Inner, Transport};
use gwlb::dataplane::snapshot::Fate;
use gwlb::dataplane::stats::LedgerTotals;
use gwlb::dataplane::verdict::{DropReason, ReplyCause, ReturnVerdict, Side, Way, WorkerId};
use netio::offload::Offload;
use router::{Attachment, Entry};

use super::appliances::{LetOut, opened};
use super::configuration::Policy;
use super::coverage::{Coverage, Kind};
use super::hosts::Hosts;
use crate::describe::describe;
use crate::gateway::Gateway;
use crate::gateway::journal::{Happened, Judgement, Stage, Step};

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub clause: String,
    pub text: String,
}

impl Wrong {
    pub fn new(clause: impl Into<String>, text: impl Into<String>) -> Wrong {
        Wrong { clause: clause.into(), text: text.into() }
    }
}

/// What a judge looks at, besides the journal.
pub(super) struct Sight<'a> {
    pub gateway: &'a Gateway,
    pub now: Duration,
    pub policy: &'a Policy,
    /// The soonest that any flow may be forgotten.
    pub soonest: Duration,
    pub let_out: &'a LetOut,
}

/// The judge of one gateway.
#[derive(Debug)]
pub(super) struct Judge {
    /// What was let out and has not left yet.
    leaving: Vec<(Attachment, Option<Vec<u8>>)>,
    /// Whether packets may go past the appliances: the configuration or a command said so once.
    pub may_bypass: bool,
    /// Whether flows may go where they like: the table was full, or the gateway is not what it was.
    pub loose: bool,
    /// The VPC of the packet that was judged last.
    vpc: Option<u8>,
}

impl Judge {
    pub fn new(may_bypass: bool, loose: bool) -> Judge {
        Judge { leaving: Vec::new(), may_bypass, loose, vpc: None }
    }

    /// Follows a step.
    pub fn follow(
        &mut self,
        step: &Step,
        sight: &Sight<'_>,
        hosts: &mut Hosts,
        coverage: &mut Coverage,
    ) -> Result<(), Wrong> {
        match &step.what {
            Happened::Judged { worker, origin, packet, offload, verdict, .. } => {
                let vpc = vpc_of(sight, *worker, origin.at);
                self.vpc = Some(vpc);
                let subject = (*worker, origin.side, vpc, packet.as_slice());
                self.judged(subject, offload, verdict, sight, hosts, coverage)
            }
            Happened::Lost { stage, packet, reason, .. } => {
                if (*stage, *reason) == (Stage::Leaving, DropReason::DeliveryFailed) {
                    self.leaving.pop();
                }
                // What cannot leave was judged just before. Of what was in an inbox, or is no packet,
                // nobody knows any more where it came from.
                let vpc = self.vpc.filter(|_| *stage == Stage::Leaving);
                blame(hosts, vpc, packet, |talk| talk.losses += 1);
                Ok(())
            }
            Happened::Returned { bytes, verdict, from, .. } => {
                // A gateway need not know the target of another. The model holds whether it may say so.
                if let ReturnVerdict::Drop(_) = verdict
                    && let Some((_, packet)) = super::appliances::opened(bytes)
                {
                    blame(hosts, None, packet, |talk| talk.losses += 1);
                }
                self.returned(*from, bytes, verdict, sight)
            }
            Happened::Reply { worker, to, packet, .. } => {
                self.leaving.push((*to, seen(*to, packet, sight)));
                if let Some((number, _)) = hosts.find_packet(vpc_at(sight, *worker, *to), packet)
                    && let Some(talk) = hosts.talks.get_mut(&number)
                {
                    talk.harm.get_or_insert("it was reset");
                }
                Ok(())
            }
            Happened::Delivered { delivered, .. } => {
                let at = delivered.at;
                let place = self.leaving.iter().position(|(to, packet)| {
                    *to == at && packet.as_ref().is_none_or(|it| *it == delivered.packet)
                });
                let Some(place) = place else {
                    let what = describe(&delivered.packet);
                    let text = format!("nothing was to leave like this: {what}");
                    return Err(Wrong::new("Transparency", text));
                };
                self.leaving.remove(place);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Holds that everything that was let out has left.
    pub fn settle(&mut self) -> Result<(), Wrong> {
        match self.leaving.pop() {
            None => Ok(()),
            Some((at, packet)) => {
                let what = packet.map_or("one of several segments".to_owned(), |it| describe(&it));
                Err(Wrong::new("Conservation", format!("it was to leave at {at:?}: {what}")))
            }
        }
    }

    fn judged(
        &mut self,
        (worker, side, vpc, packet): (WorkerId, Side, u8, &[u8]),
        offload: &Offload,
        verdict: &Judgement,
        sight: &Sight<'_>,
        hosts: &mut Hosts,
        coverage: &mut Coverage,
    ) -> Result<(), Wrong> {
        match verdict {
            Judgement::Deliver(at) | Judgement::Bypass(at) => {
                let bypass = matches!(verdict, Judgement::Bypass(_));
                let found = hosts.find_packet(vpc, packet);
                if bypass && !self.may_bypass {
                    let text = format!("nothing allows to bypass: {}", describe(packet));
                    return Err(Wrong::new("NoUninspectedPath", text));
                }
                if let Some((number, _)) = found
                    && let Some(talk) = hosts.talks.get_mut(&number)
                {
                    if talk.inspected && !bypass && side == Side::Tun {
                        let text = format!("past its endpoint: {}", describe(packet));
                        return Err(Wrong::new("NoUninspectedPath", text));
                    }
                    if bypass {
                        talk.harm.get_or_insert("it went past the appliances");
                        talk.bypassed = true;
                    }
                } else if bypass {
                    blame(hosts, Some(vpc), packet, |talk| talk.bypassed = true);
                }
                if bypass {
                    coverage.add(Kind::Flow, "bypassed", 1);
                }
                let plain = *offload == Offload::NONE;
                let segments = segments(packet, offload);
                for _ in 0..segments {
                    let packet = if plain { seen(*at, packet, sight) } else { None };
                    self.leaving.push((*at, packet));
                }
                Ok(())
            }
            Judgement::Reply { to, packet: reply, cause } => {
                self.leaving.push((*to, seen(*to, reply, sight)));
                match cause {
                    ReplyCause::PacketTooBig => {}
                    ReplyCause::UnknownTcpFlow | ReplyCause::IdleTimeout => {
                        self.unknown(vpc, packet, hosts);
                    }
                    ReplyCause::TargetGone(_) => blame(hosts, Some(vpc), packet, |talk| {
                        talk.harm.get_or_insert("its target was gone");
                    }),
                }
                Ok(())
            }
            Judgement::Drop(reason) => {
                match reason {
                    DropReason::UnknownTcpFlow => self.unknown(vpc, packet, hosts),
                    DropReason::NoTarget => blame(hosts, Some(vpc), packet, |talk| {
                        talk.harm.get_or_insert("there was no target");
                    }),
                    DropReason::TargetGone => blame(hosts, Some(vpc), packet, |talk| {
                        talk.harm.get_or_insert("its target was gone");
                    }),
                    _ => blame(hosts, Some(vpc), packet, |talk| talk.losses += 1),
                }
                Ok(())
            }
            Judgement::ToAppliance(hop) => {
                let target = sight.gateway.view(worker).target(hop.target).address.ip();
                self.placed(worker, (vpc, packet), target, hop.header.as_bytes(), sight, hosts)
            }
            Judgement::HandOver(..) | Judgement::Held => Ok(()),
        }
    }

    /// A packet went to an appliance: the same that all of its flow went to.
    fn placed(
        &mut self,
        worker: WorkerId,
        (vpc, packet): (u8, &[u8]),
        target: IpAddr,
        header: &[u8],
        sight: &Sight<'_>,
        hosts: &mut Hosts,
    ) -> Result<(), Wrong> {
        let error = |inner: &Inner| matches!(inner.transport, Transport::IcmpError { .. });
        if Inner::parse(packet).is_ok_and(|inner| error(&inner)) {
            // It goes where the flow is, which it does not move.
            return Ok(());
        }
        let Some((number, _)) = hosts.find_packet(vpc, packet) else { return Ok(()) };
        let Some(talk) = hosts.talks.get_mut(&number) else { return Ok(()) };
        let endpoint = opened(&[header, packet].concat()).map_or(0, |(endpoint, _)| endpoint);
        let before = talk.targets.insert(endpoint, (target, sight.now));
        let Some((before, last)) = before.filter(|(before, _)| *before != target) else {
            return Ok(());
        };
        let view = sight.gateway.view(worker);
        let fates = view.targets.iter().enumerate().filter(|(_, it)| it.address.ip() == before);
        let slots: Vec<_> = fates.map(|(slot, _)| slot).collect();
        let leaving = view.pools.iter().any(|pool| {
            slots.iter().any(|&slot| pool.fates.get(slot).is_some_and(|fate| *fate != Fate::Stay))
        });
        let forgotten = sight.now >= last + sight.soonest;
        let harmed = talk.harm.is_some() || talk.losses > 0;
        talk.harm.get_or_insert("it was moved to another target");
        if leaving || forgotten || harmed || self.loose || talk.is_shared(sight.policy) {
            return Ok(());
        }
        let text = format!(
            "it moved from {before} to {target}, and nothing says that it may: {}",
            talk.describe()
        );
        Err(Wrong::new("Stability", text))
    }

    /// A packet of a TCP flow that the gateway does not know.
    fn unknown(&self, vpc: u8, packet: &[u8], hosts: &mut Hosts) {
        let loose = self.loose;
        blame(hosts, Some(vpc), packet, |talk| {
            if loose || talk.is_closing() {
                talk.harm.get_or_insert("its flow was not known any more");
            }
        });
    }

    fn returned(
        &mut self,
        from: std::net::SocketAddr,
        bytes: &[u8],
        verdict: &ReturnVerdict,
        sight: &Sight<'_>,
    ) -> Result<(), Wrong> {
        let ReturnVerdict::Accept(returned) = verdict else { return Ok(()) };
        let packet = &bytes[returned.range.clone()];
        let endpoint = opened(bytes).map_or(0, |(endpoint, _)| endpoint);
        if returned.way != Way::Probe && !sight.let_out.has(endpoint, packet) {
            let text = format!("{from} returned what no appliance let out: {}", describe(packet));
            return Err(Wrong::new("NoUninspectedPath", text));
        }
        if let Way::Deliver(at) = returned.way {
            self.leaving.push((at, seen(at, packet, sight)));
        }
        Ok(())
    }
}

/// What a packet looks like when it leaves, if that can be said without translating it.
fn seen(at: Attachment, packet: &[u8], sight: &Sight<'_>) -> Option<Vec<u8>> {
    sight.gateway.snapshot().translation(at).is_none().then(|| packet.to_vec())
}

/// Holds that a ledger balances.
pub(super) fn balanced(name: &str, ledger: &LedgerTotals) -> Result<(), Wrong> {
    let (entered, left) = ledger.balance();
    if entered == left {
        return Ok(());
    }
    let text = format!("{name}: {entered} entered and {left} left or are queued: {ledger:?}");
    Err(Wrong::new("Conservation", text))
}

/// Tells every conversation that a packet may belong to.
pub(super) fn blame(
    hosts: &mut Hosts,
    vpc: Option<u8>,
    packet: &[u8],
    mut with: impl FnMut(&mut super::hosts::Conversation),
) {
    let vpcs = vpc.map_or(0..=1, |vpc| vpc..=vpc);
    for vpc in vpcs {
        if let Some((number, _)) = hosts.find_packet(vpc, packet) {
            if let Some(talk) = hosts.talks.get_mut(&number) {
                with(talk);
            }
            continue;
        }
        let Ok(inner) = Inner::parse(packet) else { continue };
        for talk in hosts.talks.values_mut() {
            let of = |side: usize| [talk.sides[side].own, talk.sides[side].peer];
            if talk.vpc == vpc
                && (0..2).any(|side| {
                    let both = of(side);
                    both == [inner.src, inner.dst] || both == [inner.dst, inner.src]
                })
            {
                with(talk);
            }
        }
    }
}

fn segments(packet: &[u8], offload: &Offload) -> usize {
    let Ok(inner) = Inner::parse(packet) else { return 1 };
    netio::offload::Segmenter::new(packet, &inner, offload).map_or(0, |it| it.count())
}

fn vpc_of(sight: &Sight<'_>, worker: WorkerId, at: Entry) -> u8 {
    if let Some(at) = at.attachment() {
        vpc_at(sight, worker, at)
    } else {
        let topology = &sight.gateway.view(worker).topology;
        vpc_named(&topology.entry_name(at)["endpoint:".len()..])
    }
}

fn vpc_at(sight: &Sight<'_>, worker: WorkerId, at: Attachment) -> u8 {
    vpc_named(&sight.gateway.device_of(worker, at))
}

/// The number of the VPC that something of this name is in.
pub(super) fn vpc_named(name: &str) -> u8 {
    u8::from(name.starts_with("blue"))
}
