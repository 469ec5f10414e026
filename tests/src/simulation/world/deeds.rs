//! What the events of a plan do to the world.

use geneve::{Dialect, GeneveOption, Header, HeaderBuilder, OptionClass, OptionType, ProtocolType};
use gwlb::config::{TrafficMode, Weight};
use gwlb::control::TargetSpec;

use super::super::hosts::plus;
use super::super::plan::{Rogue, Stray};
use super::{
    About, Appliance, BRIEFLY, Conversation, Datagram, Deeds, Dice, Duration, Event, Happening,
    Input, IpAddr, Kind, Layout, Packet, Settings, Site, Trouble, Variant, Violation, What, World,
    Wrong,
};
use crate::packets::{Ip, Tcp, fragments};

impl World<'_> {
    pub(super) fn begin(&mut self, index: usize) -> Result<(), Violation> {
        let Event { number, what, .. } = &self.plan.events[index];
        let number = *number;
        if self.artificial.is_some_and(|it| it.is_broken_by(number)) {
            let text = format!("event {number} happened");
            assert!(!self.artificial.is_some_and(|it| it.panics), "{text}");
            return Err(self.violation(None, Wrong::new("Artificial", text)));
        }
        self.coverage.add(Kind::World, name(what), 1);
        let ends = |world: &mut Self, lasts: Duration| {
            world.schedule(world.now + lasts, Happening::End(index));
        };
        match what {
            What::Talk(talk) => {
                let pair = self.pairs[(talk.pair % self.pairs.len() as u64) as usize];
                let mut deeds = Deeds::default();
                self.hosts.begin(number, talk, &pair, self.plan.seed, &mut deeds);
                return self.follow_hosts(deeds);
            }
            What::Trouble { appliance, trouble, lasts } => {
                let address = self.appliances[*appliance].address;
                self.set_trouble(*appliance, Some(*trouble));
                let harms = self.appliances[*appliance].harms();
                for talk in self.hosts.talks.values_mut() {
                    if harms && talk.targets.values().any(|(target, _)| *target == address) {
                        talk.harm.get_or_insert("its appliance got into trouble");
                    }
                }
                ends(self, *lasts);
            }
            What::Rogue { deed, count } => return self.rogue(number, *deed, *count),
            What::Stray { kind, count } => self.stray(number, *kind, *count),
            What::Reload { .. }
            | What::Register { .. }
            | What::Deregister { .. }
            | What::PathMtu { .. } => self.apply_everywhere(index),
            What::Bypass { lasts, .. } => {
                self.apply_everywhere(index);
                ends(self, *lasts);
            }
            What::Clock { gateway, by } => {
                let before = self.epoch(*gateway);
                self.sites[*gateway].calendar += by;
                // Gateways believe what was stamped in the epochs beside their own.
                if before.abs_diff(self.epoch(*gateway)) > 1 {
                    self.harm_of(*gateway, "the keys of its cookies were turned twice");
                }
                return self.happen(Happening::Calendar(*gateway));
            }
            What::Death { gateway, lasts } => {
                self.count_flows(*gateway);
                let site = &mut self.sites[*gateway];
                if site.gateway.is_none() {
                    return Ok(());
                }
                site.life += 1;
                // Those of others that were to pass through it on their way back are told one by one.
                self.harm_of(*gateway, "its gateway died");
                self.sites[*gateway].gateway = None;
                ends(self, *lasts);
            }
            What::Shift => {
                if self.sites.len() > 1 {
                    self.shifts += 1;
                    self.harm_all("it went to another gateway");
                    for site in &mut self.sites {
                        site.judge.loose = true;
                    }
                }
            }
            What::Partition { gateway, appliance, way, lasts } => {
                self.network.cut(number, Some((*gateway, *appliance, *way)));
                ends(self, *lasts);
            }
            What::Storm { weather, lasts } => {
                self.network.storm(number, Some(*weather));
                ends(self, *lasts);
            }
            What::Lag { gateway, worker, lasts } => {
                self.sites[*gateway].lag[usize::from(*worker)] = self.now + *lasts;
            }
            What::Pause { gateway, lasts, arrivals_first } => {
                let until = self.now + *lasts;
                let late =
                    if *arrivals_first { Duration::from_micros(100) } else { Duration::ZERO };
                // It has done all that was due before.
                self.at(*gateway, |_| {})?;
                let site = &mut self.sites[*gateway];
                let [asleep, due] = site.asleep;
                site.asleep = [asleep.max(until), due.max(until + late)];
                site.sleeps = true;
                if *lasts > BRIEFLY {
                    self.harm_of(*gateway, "its gateway was stopped");
                }
            }
            What::Stall { gateway, worker, lasts } => {
                self.sites[*gateway].stall[usize::from(*worker)] = self.now + *lasts;
            }
        }
        Ok(())
    }

    pub(super) fn finish_event(&mut self, index: usize) -> Result<(), Violation> {
        let Event { number, what, .. } = &self.plan.events[index];
        match what {
            What::Trouble { appliance, trouble, .. }
                if self.appliances[*appliance].trouble == Some(*trouble) =>
            {
                self.set_trouble(*appliance, None);
            }
            What::Bypass { .. } => {
                for site in 0..self.sites.len() {
                    self.happen(Happening::Revert(index, site))?;
                }
            }
            What::Death { gateway, .. } if self.sites[*gateway].gateway.is_none() => {
                let Site { life, variant, calendar, .. } = self.sites[*gateway];
                let site = self.site(life, variant, calendar);
                self.sites[*gateway] = site;
                return self.settle(*gateway);
            }
            What::Partition { .. } => self.network.cut(*number, None),
            What::Storm { .. } => self.network.storm(*number, None),
            _ => {}
        }
        Ok(())
    }

    /// The same happens at every gateway, at one a little later than at the other.
    fn apply_everywhere(&mut self, index: usize) {
        for site in 0..self.sites.len() {
            let after = Duration::from_millis(300 * site as u64);
            self.schedule(self.now + after, Happening::Apply(index, site));
        }
    }

    pub(super) fn apply(&mut self, index: usize, site: usize) -> Result<(), Violation> {
        match &self.plan.events[index].what {
            What::Reload { variant, hurried: false } => self.reload(site, *variant),
            What::Reload { variant, hurried: true } => {
                self.let_wait(index, site)?;
                for variant in [Variant::Renumbered, Variant::AsItWas, *variant] {
                    self.reload(site, variant)?;
                }
                Ok(())
            }
            What::Register { appliance, weight } => {
                let appliance = &self.appliances[*appliance];
                let spec = TargetSpec {
                    address: appliance.address,
                    port: None,
                    zone: Some(appliance.zone.to_owned()),
                    weight: Weight::new((*weight).into()).ok(),
                };
                let group = appliance.group;
                self.at(site, |it| {
                    // A refusal is an answer, too.
                    let _ = it.register(group, &spec);
                })
            }
            What::Deregister { appliance } => {
                let Appliance { address, group, .. } = self.appliances[*appliance];
                self.at(site, |it| {
                    let _ = it.deregister(group, address, None);
                })
            }
            What::PathMtu { appliance, mtu } => {
                let address = self.appliances[*appliance].address;
                self.at(site, |it| {
                    if let Some(target) = it.target(address) {
                        it.control(Input::PathMtu { target, mtu: *mtu });
                    }
                })
            }
            What::Bypass { balancer, .. } => self.switch(site, *balancer, TrafficMode::Bypass),
            _ => Ok(()),
        }
    }

    pub(super) fn revert(&mut self, index: usize, site: usize) -> Result<(), Violation> {
        let What::Bypass { balancer, .. } = &self.plan.events[index].what else { return Ok(()) };
        self.switch(site, *balancer, TrafficMode::LoadBalance)
    }

    fn reload(&mut self, site: usize, variant: Variant) -> Result<(), Violation> {
        let settings = self.settings(variant);
        let bypasses = self.policy(variant).when_none_healthy == "bypass";
        self.sites[site].variant = variant;
        self.sites[site].judge.may_bypass |= bypasses;
        self.at(site, |it| it.reload(Settings::clone(&settings)))
    }

    /// Packets wait at a gateway for a while: for the workers that own their flows, and for the
    /// first ones of which they are pieces.
    fn let_wait(&mut self, index: usize, site: usize) -> Result<(), Violation> {
        self.harm_all("it waited while places were numbered anew");
        let time = Duration::from_millis(100);
        let until = self.now + time;
        for stall in &mut self.sites[site].stall {
            *stall = until.max(*stall);
        }
        let number = self.plan.events[index].number as usize;
        let pair = self.pairs[number % self.pairs.len()];
        let near = plus(pair.near.1.parse().expect("an address"), 50);
        let ip = Ip::between(near, pair.far.1.parse().expect("an address"));
        let mut packets = Vec::new();
        for nth in 0..8 {
            let ports = (40_000 + nth, 80);
            packets.push(Packet::plain(ip.tcp(ports, Tcp::SYN, b"")));
            let pieces = fragments(&ip.udp(ports, &[7; 200]), nth, 104);
            for (piece, packet) in pieces.into_iter().map(Packet::plain).enumerate() {
                if piece > 0 {
                    packets.push(packet);
                } else {
                    let first = Happening::Enter { gateway: site, device: pair.near.0, packet };
                    self.schedule(self.now + 2 * time, first);
                }
            }
        }
        self.at(site, |it| {
            if let Some(at) = it.attachment(pair.near.0) {
                it.enter(at, &packets, None);
            }
        })
    }

    fn switch(&mut self, site: usize, balancer: usize, mode: TrafficMode) -> Result<(), Violation> {
        let name = self.plan.world.layout.load_balancers()[balancer];
        self.sites[site].judge.may_bypass = true;
        match mode {
            TrafficMode::Bypass => self.sites[site].switched.insert(balancer),
            TrafficMode::LoadBalance => self.sites[site].switched.remove(&balancer),
        };
        for talk in self.hosts.talks.values_mut().filter(|talk| talk.inspected) {
            talk.harm.get_or_insert("the traffic mode was switched");
        }
        self.at(site, |it| {
            let _ = it.set_traffic_mode(name, mode);
        })
    }

    fn harm_all(&mut self, why: &'static str) {
        for talk in self.hosts.talks.values_mut() {
            talk.harm.get_or_insert(why);
        }
    }

    /// Something happens to all conversations of a gateway.
    fn harm_of(&mut self, gateway: usize, why: &'static str) {
        let of = |talk: &Conversation| {
            let [one, _] = talk.sides;
            self.gateway_for(one.own, one.peer) == Some(gateway)
        };
        let talks = self.hosts.talks.iter().filter(|(_, talk)| of(talk));
        for number in talks.map(|(number, _)| *number).collect::<Vec<_>>() {
            if let Some(talk) = self.hosts.talks.get_mut(&number) {
                talk.harm.get_or_insert(why);
            }
        }
    }

    fn set_trouble(&mut self, appliance: usize, trouble: Option<Trouble>) {
        // What it had in its buffer.
        for (gateway, sent) in self.appliances[appliance].set_trouble(trouble) {
            let at = self.now + Duration::from_millis(1);
            self.schedule(at, Happening::ToAppliance { gateway, appliance, sent });
        }
    }

    /// Somebody who is no appliance sends Geneve.
    fn rogue(&mut self, number: u32, deed: Rogue, count: u64) -> Result<(), Violation> {
        for nth in 0..count {
            let mut dice = Dice::of(self.plan.seed, About::Rogue, &[u64::from(number), nth]);
            let Some(datagram) = self.forged(deed, &mut dice) else { return Ok(()) };
            let gateway = dice.below(self.sites.len() as u64) as usize;
            self.happen(Happening::FromAppliance { gateway, datagram })?;
        }
        Ok(())
    }

    fn forged(&mut self, deed: Rogue, dice: &mut Dice) -> Option<Datagram> {
        let policy = &self.plan.world.policy;
        let node = policy.underlay(*dice.pick(&[1, 1, 2, 3]));
        let stranger = policy.underlay(99);
        let noise = |dice: &mut Dice| -> Vec<u8> {
            (0..dice.below(120)).map(|_| dice.next() as u8).collect()
        };
        if matches!(deed, Rogue::Stranger | Rogue::Noise) {
            let from = match deed {
                Rogue::Noise => dice.pick(&self.appliances).address,
                _ => stranger,
            };
            let bytes = noise(dice);
            return Some(Datagram { from: (from, 61_000).into(), to: node, bytes });
        }
        if self.overheard.is_empty() {
            return None;
        }
        let heard = dice.pick(&self.overheard).clone();
        let genuine = crate::appliance::echo(&heard);
        let (header, payload) = Header::parse(&genuine.bytes).ok()?;
        let dialect = Dialect::ALL.iter().find(|dialect| dialect.read(&header).is_ok())?;
        let mut tags = dialect.read(&header).ok()?;
        let mut bytes = [0; 256];
        let mut written = |tags, protocol: ProtocolType| {
            let len = dialect.write(&tags, protocol, &mut bytes).ok()?;
            Some([&bytes[..len], payload].concat())
        };
        let changed = match deed {
            Rogue::Stranger | Rogue::Noise => genuine.bytes.clone(),
            Rogue::Replay => {
                let from = (stranger, genuine.from.port()).into();
                return Some(Datagram { from, ..genuine });
            }
            Rogue::Forged => {
                // Any other than the right one, and never that of the other epoch.
                tags.cookie ^= 1 << dice.below(24);
                written(tags, header.protocol())?
            }
            Rogue::OtherEndpoint => {
                tags.endpoint ^= 1 << dice.below(64);
                written(tags, header.protocol())?
            }
            Rogue::Mutated => {
                let mut bytes = genuine.bytes.clone();
                let place = dice.below(header.len() as u64) as usize;
                bytes[place] ^= 1 << dice.below(8);
                // Whoever overhears a datagram and can send as its appliance is believed.
                self.let_out.note_datagram(&bytes);
                if let Some((endpoint, packet)) = super::super::appliances::opened(&bytes) {
                    let vpc = self.vpcs.get(&endpoint).copied();
                    super::super::judge::blame(&mut self.hosts, vpc, packet, |talk| {
                        talk.bypassed = true;
                    });
                }
                if self.sites.len() > 1 && self.plan.world.layout == Layout::Chained {
                    // As one that strays: on its way to the next endpoint it may come to a gateway
                    // that does not know its flow, and that resets what it does not know.
                    let harm = "a copy of it came to another gateway";
                    self.blame_datagram(&bytes, Some(harm));
                }
                bytes
            }
            Rogue::Control => {
                let mut bytes = genuine.bytes.clone();
                bytes[1] |= 0x80;
                bytes
            }
            Rogue::Protocol => {
                let mut bytes = genuine.bytes.clone();
                (bytes[2], bytes[3]) = (0x65, 0x58);
                bytes
            }
            Rogue::Critical => {
                let mut options: Vec<_> = header.options().collect();
                options.push(GeneveOption {
                    class: OptionClass::new(0x1234),
                    kind: OptionType::new(0x80),
                    data: &[],
                });
                let builder = HeaderBuilder::new(header.protocol()).vni(header.vni());
                let mut bytes = [0; geneve::header::MAX_LEN];
                let len = builder.options(&options).write(&mut bytes).ok()?;
                [&bytes[..len], payload].concat()
            }
        };
        Some(Datagram { bytes: changed, ..genuine })
    }

    /// Packets that belong to nothing come from the networks.
    fn stray(&mut self, number: u32, kind: Stray, count: u64) {
        let seed = self.plan.seed;
        let mut first = Dice::of(seed, About::Rogue, &[u64::from(number)]);
        let pair = *first.pick(&self.pairs);
        let near: IpAddr = pair.near.1.parse().expect("an address");
        // Hosts that talk with nobody.
        let (near, far) = (plus(near, 40), pair.far.1.parse().expect("an address"));
        let near = plus(near, first.below(8) as u8);
        let (back, gateway) = (first.per_mille(300), self.gateway_for(near, far));
        let Some(gateway) = gateway else { return };
        let mut packets = Vec::new();
        for nth in 0..count {
            let mut dice = Dice::of(seed, About::Rogue, &[u64::from(number), nth + 1]);
            let ports = (30_000 + dice.below(20_000) as u16, 80);
            let ip = Ip::between(near, far);
            packets.extend(match kind {
                Stray::Noise => {
                    let mut noise: Vec<u8> =
                        (0..dice.below(80)).map(|_| dice.next() as u8).collect();
                    if let Some(first) = noise.first_mut() {
                        *first = *dice.pick(&[0x45, 0x46, 0x60, *first]);
                    }
                    vec![noise]
                }
                Stray::Nowhere => {
                    let to = if near.is_ipv4() {
                        let all =
                            ["198.51.100.9", "10.0.9.5", "10.0.200.1", "172.16.0.1", "10.0.0.7"];
                        *dice.pick(&all)
                    } else {
                        *dice.pick(&["fd00:10:0:9::5", "fd00:10:0:77::5", "fd00:99::1"])
                    };
                    vec![Ip::between(near, to.parse().expect("an address")).udp(ports, b"?")]
                }
                Stray::Middle => {
                    let tcp = *dice.pick(&[Tcp::DATA, Tcp::ANSWER, Tcp::SYN_ACK]);
                    let tcp =
                        if dice.per_mille(200) { tcp.flags(geneve::TcpFlags::RST) } else { tcp };
                    vec![ip.tcp(ports, tcp, b"middle")]
                }
                Stray::Syns => vec![ip.tcp(ports, Tcp::SYN, b"")],
                Stray::Fragments => {
                    let whole = ip.udp(ports, &[7; 400]);
                    // One packet has more than fit, so that the queue for one fills up, too.
                    let id = if dice.per_mille(500) { 1 } else { nth as u16 };
                    fragments(&whole, id, 64).split_off(1)
                }
                Stray::Overlaps => {
                    let whole = ip.udp(ports, &[nth as u8; 200]);
                    fragments(&whole, 7, if nth.is_multiple_of(2) { 64 } else { 72 })
                }
            });
        }
        let device = if back { pair.far.0 } else { pair.near.0 };
        for packet in packets {
            let packet = Packet::plain(packet);
            self.schedule(self.now, Happening::Enter { gateway, device, packet });
        }
    }
}

fn name(what: &What) -> &'static str {
    match what {
        What::Talk(_) => "talk",
        What::Trouble { trouble, .. } => match trouble {
            Trouble::Crash => "appliance crashes",
            Trouble::Hang => "appliance hangs",
            Trouble::Deaf => "appliance carries nothing",
            Trouble::Sick => "appliance answers health checks wrongly",
            Trouble::Late => "appliance is late",
            Trouble::Unprobed => "appliance cannot be probed",
            Trouble::RewritesTuple => "appliance rewrites addresses",
            Trouble::RewritesHeader => "appliance rewrites the Geneve header",
            Trouble::RewritesPayload => "appliance rewrites payload",
            Trouble::MixesFlows => "appliance mixes flows",
            Trouble::WrongNode => "appliance answers to another node",
            Trouble::WrongSource => "appliance answers from another address",
            Trouble::Truncates => "appliance truncates",
            Trouble::SmallOnly => "appliance loses large packets",
        },
        What::Rogue { .. } => "rogue datagrams",
        What::Stray { .. } => "stray packets",
        What::Reload { hurried: false, .. } => "reload",
        What::Reload { hurried: true, .. } => "reloads in a hurry",
        What::Register { .. } => "target registered",
        What::Deregister { .. } => "target deregistered",
        What::Bypass { .. } => "traffic mode switched",
        What::Clock { .. } => "calendar set",
        What::Death { .. } => "gateway dies",
        What::Shift => "flows go to another gateway",
        What::Partition { .. } => "partition",
        What::Storm { .. } => "storm",
        What::Lag { .. } => "worker lags behind views",
        What::Pause { .. } => "gateway is stopped",
        What::Stall { .. } => "worker leaves its inbox",
        What::PathMtu { .. } => "path MTU changes",
    }
}
