//! How packets get from one part of the world to another.

use std::hash::Hasher as _;

use gwlb::control::ProbeRequest;
use netio::offload::Offload;
use siphasher::sip::SipHasher13;

use super::{
    About, BRIEFLY, Datagram, Delivered, Dice, Duration, Happening, Hosts, Input, IpAddr, Layout,
    Leg, Packet, ProbeOutcome, Sent, Trouble, Violation, Way, World, corrupted,
};

impl World<'_> {
    pub(super) fn send_from_host(&mut self, number: u32, side: usize, packet: &Packet) {
        let Some(talk) = self.hosts.talks.get_mut(&number) else { return };
        let place = talk.sides[side];
        let name = named(number, side);
        let carried = self.network.carry(Leg::FromHost, name);
        talk.losses += u32::from(carried.harmed);
        let (device, own, peer) = (place.device, place.own, place.peer);
        let Some(gateway) = self.gateway_for(own, peer) else {
            talk_of(&mut self.hosts, number).harm.get_or_insert("there was no gateway");
            return;
        };
        if self.sites[gateway].asleep[0] > self.now + BRIEFLY {
            talk_of(&mut self.hosts, number).harm.get_or_insert("its gateway was stopped");
        }
        for arrival in carried.arrivals.into_iter().flatten() {
            let mut packet = packet.clone();
            // What is left to the device is not on a wire yet.
            if let Some(bit) = arrival.corrupted.filter(|_| packet.offload == Offload::NONE) {
                packet.bytes = corrupted(&packet.bytes, bit);
            }
            let at = self.now + arrival.after;
            self.schedule(at, Happening::Enter { gateway, device, packet });
        }
    }

    /// Packets enter, as many as are waiting at this moment.
    pub(super) fn enter(
        &mut self,
        gateway: usize,
        device: &'static str,
        packet: Packet,
    ) -> Result<(), Violation> {
        let mut batch = vec![packet];
        while let Some(next) = self.queue.first_entry()
            && next.key().0 == self.now
            && matches!(next.get(), Happening::Enter { gateway: other, device: at, .. }
                if (*other, *at) == (gateway, device))
        {
            if let Happening::Enter { packet, .. } = next.remove() {
                batch.push(packet);
            }
        }
        if self.sites[gateway].gateway.is_none() {
            let vpc = Some(super::super::judge::vpc_named(device));
            for packet in batch {
                super::super::judge::blame(&mut self.hosts, vpc, &packet.bytes, |talk| {
                    talk.harm.get_or_insert("its gateway was dead");
                });
            }
            return Ok(());
        }
        self.at(gateway, |it| {
            if let Some(at) = it.attachment(device) {
                it.enter(at, &batch, None);
            }
        })
    }

    pub(super) fn deliver(&mut self, delivered: &Delivered) {
        let devices = self.pairs.iter().flat_map(|pair| [pair.near.0, pair.far.0]);
        let Some(device) = devices.into_iter().find(|known| *known == &*delivered.device) else {
            return;
        };
        let vpc = super::super::judge::vpc_named(device);
        let name = self.name(Some(vpc), &delivered.packet);
        let carried = self.network.carry(Leg::ToHost, name);
        if carried.harmed {
            super::super::judge::blame(&mut self.hosts, Some(vpc), &delivered.packet, |talk| {
                talk.losses += 1;
            });
        }
        for arrival in carried.arrivals.into_iter().flatten() {
            let mut delivered = delivered.clone();
            if let Some(bit) = arrival.corrupted {
                delivered.packet = corrupted(&delivered.packet, bit);
            }
            let at = self.now + arrival.after;
            self.schedule(at, Happening::Leave { delivered, vpc, device });
        }
    }

    pub(super) fn send_to_appliance(&mut self, gateway: usize, sent: &Sent) {
        let Some(appliance) = self.appliance_at(sent.to.ip()) else { return };
        let name = self.name_of_datagram(&sent.bytes);
        let carried = self.network.carry(Leg::ToAppliance, name);
        let cut = self.network.is_cut(gateway, appliance, Way::There);
        if carried.harmed || cut || self.appliances[appliance].harms() {
            let partitioned = cut || self.appliances[appliance].harms();
            self.blame_datagram(&sent.bytes, partitioned.then_some("its appliance was in trouble"));
        }
        if self.overheard.len() == 16 {
            self.overheard.remove(0);
        }
        self.overheard.push(sent.clone());
        if cut {
            return;
        }
        for arrival in carried.arrivals.into_iter().flatten() {
            let mut sent = sent.clone();
            if let Some(bit) = arrival.corrupted {
                sent.bytes = corrupted(&sent.bytes, bit);
            }
            let at = self.now + arrival.after;
            self.schedule(at, Happening::ToAppliance { gateway, appliance, sent });
        }
    }

    pub(super) fn appliance_gets(
        &mut self,
        gateway: usize,
        appliance: usize,
        sent: Sent,
    ) -> Result<(), Violation> {
        self.trace.note(2, self.now, &sent.bytes);
        let name = self.name_of_datagram(&sent.bytes);
        let mut dice = self.network.dice(Leg::Appliance, name);
        if self.appliances[appliance].harms() {
            self.blame_datagram(&sent.bytes, Some("its appliance was in trouble"));
        }
        if self.appliances[appliance].trouble == Some(Trouble::Crash) {
            // Nobody listens on the port: an ICMP error tells the gateway's socket.
            let target = sent.to.ip();
            return self.happen(Happening::Refused(gateway, target));
        }
        let out = self.appliances[appliance].take(
            (gateway, sent),
            self.now,
            &mut dice,
            &mut self.let_out,
        );
        for (after, datagram) in out {
            self.send_from_appliance(gateway, appliance, after, &datagram);
        }
        Ok(())
    }

    pub(super) fn send_from_appliance(
        &mut self,
        gateway: usize,
        appliance: usize,
        after: Duration,
        datagram: &Datagram,
    ) {
        let name = self.name_of_datagram(&datagram.bytes);
        let carried = self.network.carry(Leg::FromAppliance, name);
        let cut = self.network.is_cut(gateway, appliance, Way::Back);
        if carried.harmed || cut {
            let why = cut.then_some("its appliance was cut off");
            self.blame_datagram(&datagram.bytes, why);
        }
        if cut {
            return;
        }
        let elsewhere = self.elsewhere(gateway, name);
        if elsewhere != gateway && self.plan.world.layout == Layout::Chained {
            // On its way to the next endpoint it comes to a gateway that does not know its flow.
            self.blame_datagram(&datagram.bytes, Some("it came back to another gateway"));
        }
        if elsewhere != gateway && self.sites[elsewhere].asleep[0] > self.now + BRIEFLY {
            self.blame_datagram(
                &datagram.bytes,
                Some("it came back to a gateway that was stopped"),
            );
        }
        if self.epoch(elsewhere).abs_diff(self.epoch(gateway)) > 1 {
            // "The previous epoch stays valid", and the next; no gateway knows of more.
            self.blame_datagram(&datagram.bytes, None);
        }
        for arrival in carried.arrivals.into_iter().flatten() {
            let mut datagram = datagram.clone();
            if let Some(bit) = arrival.corrupted {
                datagram.bytes = corrupted(&datagram.bytes, bit);
                self.let_out.note_datagram(&datagram.bytes);
            }
            let at = self.now + after + arrival.after;
            self.schedule(at, Happening::FromAppliance { gateway: elsewhere, datagram });
        }
    }

    pub(super) fn gateway_gets(
        &mut self,
        gateway: usize,
        datagram: Datagram,
    ) -> Result<(), Violation> {
        let mut batch = vec![datagram];
        while let Some(next) = self.queue.first_entry()
            && next.key().0 == self.now
            && matches!(next.get(), Happening::FromAppliance { gateway: other, .. }
                if *other == gateway)
        {
            if let Happening::FromAppliance { datagram, .. } = next.remove() {
                batch.push(datagram);
            }
        }
        if self.sites[gateway].gateway.is_none() {
            for datagram in batch {
                self.blame_datagram(&datagram.bytes, Some("its gateway was dead"));
            }
            return Ok(());
        }
        self.at(gateway, |it| it.receive(&batch, None))
    }

    /// A returned datagram may come to any gateway of the cluster, as the underlay has it.
    fn elsewhere(&mut self, gateway: usize, name: u64) -> usize {
        let alive: Vec<_> =
            (0..self.sites.len()).filter(|&it| self.sites[it].gateway.is_some()).collect();
        let mut dice = self.network.dice(Leg::Underlay, name);
        let here = self.sites[gateway].gateway.is_some();
        if alive.is_empty() || (here && !dice.per_mille(100)) {
            return gateway;
        }
        *dice.pick(&alive)
    }

    /// The name of the fortunes of a packet: those of one side of a conversation, or, if it is of
    /// none, those of all that look like it.
    fn name(&self, vpc: Option<u8>, packet: &[u8]) -> u64 {
        let vpcs = vpc.map_or(0..=1, |vpc| vpc..=vpc);
        let found = vpcs.into_iter().find_map(|vpc| self.hosts.find_packet(vpc, packet));
        found.map_or_else(|| named_by(packet), |(number, side)| named(number, side))
    }

    fn name_of_datagram(&self, bytes: &[u8]) -> u64 {
        match super::super::appliances::opened(bytes) {
            Some((endpoint, packet)) => self.name(self.vpcs.get(&endpoint).copied(), packet),
            None => named_by(bytes),
        }
    }

    /// Something happened to a datagram.
    pub(super) fn blame_datagram(&mut self, bytes: &[u8], harm: Option<&'static str>) {
        let Some((endpoint, packet)) = super::super::appliances::opened(bytes) else { return };
        let vpc = self.vpcs.get(&endpoint).copied();
        super::super::judge::blame(&mut self.hosts, vpc, packet, |talk| match harm {
            Some(harm) => {
                talk.harm.get_or_insert(harm);
            }
            None => talk.losses += 1,
        });
    }

    pub(super) fn probe(&mut self, gateway: usize, request: &ProbeRequest) {
        let life = self.sites[gateway].life;
        let names = [gateway as u64, request.check.get(), self.now.as_nanos() as u64];
        let mut dice = Dice::of(self.plan.seed, About::Probe, &names);
        let mut after = dice.time(Duration::from_millis(1), Duration::from_millis(20));
        let appliance = self.appliance_at(request.address.ip());
        let mut outcome = appliance.and_then(|index| {
            let cut = self.network.is_cut(gateway, index, Way::Both);
            if cut { None } else { self.appliances[index].health() }
        });
        if let Some(index) = appliance
            && self.appliances[index].trouble == Some(Trouble::Late)
        {
            after = dice.time(Duration::from_millis(200), Duration::from_secs(20));
        }
        if after >= request.timeout {
            outcome = None;
        }
        let (outcome, after) = match outcome {
            Some(outcome) => (outcome, after),
            None => (ProbeOutcome::TimedOut, request.timeout),
        };
        let input = Input::Probe { check: request.check, outcome };
        self.schedule(self.now + after, Happening::Probe { gateway, life, input });
    }

    pub(super) fn appliance_at(&self, address: IpAddr) -> Option<usize> {
        self.appliances.iter().position(|it| it.address == address)
    }

    /// The gateway that packets between two hosts go to: the same in both directions.
    pub(super) fn gateway_for(&self, one: IpAddr, other: IpAddr) -> Option<usize> {
        let outside = |address: &IpAddr| match address {
            IpAddr::V4(v4) => v4.octets()[..3] == [203, 0, 113],
            IpAddr::V6(v6) => v6.segments()[..3] == [0x2001, 0xdb8, 0x113],
        };
        let chosen = [one, other].into_iter().find(outside).unwrap_or(one.min(other));
        let last = match chosen {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => v6.octets()[15],
        };
        let count = self.sites.len();
        (0..count)
            .map(|further| (usize::from(last) + self.shifts + further) % count)
            .find(|&index| self.sites[index].gateway.is_some())
    }
}

/// A side of a conversation, as a number.
fn named(number: u32, side: usize) -> u64 {
    u64::from(number) << 1 | side as u64
}

/// Bytes that belong to no conversation, as another number than those have.
fn named_by(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(5, 6);
    hasher.write(bytes);
    hasher.finish() | 1 << 63
}

fn talk_of(hosts: &mut Hosts, number: u32) -> &mut super::super::hosts::Conversation {
    hosts.talks.get_mut(&number).expect("it has just sent something")
}
