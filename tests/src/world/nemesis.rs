//! Faults of the machine and of the network, as things that can be done to a world at work.
//!
//! Each is inflicted and relieved, or both by [`Ordeal::strike`]; what has to hold afterwards is
//! for [`Ordeal::end`] and the tests to say.

use std::fmt;
use std::time::Duration;

use super::flood::{self, Patience};
use super::rogue::{self, Rogue};
use super::{Appliance, Host, Ordeal, World, hold, raw, site, wait_until};

/// Something that is done to a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The gateway is killed, and started again.
    KillGateway,
    /// The gateway is stopped for a while (SIGSTOP, SIGCONT).
    PauseGateway(Duration),
    /// An appliance is killed, and started again a while later.
    KillAppliance(usize, Duration),
    /// An appliance is stopped for a while.
    PauseAppliance(usize, Duration),
    /// An appliance's cable is down for a while, and with it the gateway's routes.
    CutCable(usize, Duration),
    /// A host's device is down for a while: that of the client (0) or of a server (1, 2).
    DownTun(usize, Duration),
    /// An appliance's cable carries shorter packets for a while.
    ShrinkMtu(usize, u32, Duration),
    /// Another configuration is loaded, and a while later the first one.
    Reload(Duration),
    /// The gateway can open no more files for a while.
    StarveFiles(Duration),
    /// Packets of so many flows that nobody opened.
    Flood(u64),
    /// So many datagrams that are wrong in every way, from a target and from nobody.
    Malformed(u64),
    /// So many datagrams that the gateway has sent to an appliance, with other cookies.
    Forge(usize, u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillGateway => write!(f, "kill the gateway"),
            Self::PauseGateway(time) => write!(f, "pause the gateway for {time:?}"),
            Self::KillAppliance(number, time) => write!(f, "kill appliance {number} for {time:?}"),
            Self::PauseAppliance(number, time) => {
                write!(f, "pause appliance {number} for {time:?}")
            }
            Self::CutCable(number, time) => write!(f, "cut cable {number} for {time:?}"),
            Self::DownTun(number, time) => write!(f, "device of host {number} down for {time:?}"),
            Self::ShrinkMtu(number, mtu, time) => {
                write!(f, "cable {number} carries {mtu} bytes for {time:?}")
            }
            Self::Reload(time) => write!(f, "another configuration for {time:?}"),
            Self::StarveFiles(time) => write!(f, "no more files for {time:?}"),
            Self::Flood(flows) => write!(f, "flood of {flows} flows"),
            Self::Malformed(datagrams) => write!(f, "{datagrams} malformed datagrams"),
            Self::Forge(number, datagrams) => {
                write!(f, "{datagrams} forged datagrams of appliance {number}")
            }
        }
    }
}

impl Fault {
    /// The word by which a summary counts it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::KillGateway => "gateway killed",
            Self::PauseGateway(_) => "gateway paused",
            Self::KillAppliance(..) => "appliance killed",
            Self::PauseAppliance(..) => "appliance paused",
            Self::CutCable(..) => "cable cut",
            Self::DownTun(..) => "TUN down",
            Self::ShrinkMtu(..) => "MTU shrunk",
            Self::Reload(_) => "reloaded",
            Self::StarveFiles(_) => "files starved",
            Self::Flood(_) => "flood",
            Self::Malformed(_) => "malformed",
            Self::Forge(..) => "forged",
        }
    }

    /// Why packets may be dropped because of it.
    pub fn may_drop(&self) -> &'static [&'static str] {
        match self {
            // Longer packets come out of the devices than the workers hand over in time.
            Self::PauseGateway(_) | Self::Flood(_) => &["handover_full"],
            Self::CutCable(..) | Self::ShrinkMtu(..) => &["send_failed"],
            Self::DownTun(..) => &["delivery_failed"],
            Self::Reload(_) => &["reconfigured"],
            Self::Malformed(_) => &[
                "malformed_geneve",
                "geneve_version",
                "geneve_control",
                "protocol_type",
                "malformed_packet",
                "dialect_options",
                "unknown_endpoint",
                "unknown_source",
            ],
            Self::Forge(..) => &["bad_cookie"],
            Self::KillGateway
            | Self::KillAppliance(..)
            | Self::PauseAppliance(..)
            | Self::StarveFiles(_) => &[],
        }
    }
}

impl Fault {
    /// How long it lasts until it is relieved.
    fn time(&self) -> Duration {
        match *self {
            Self::PauseGateway(time)
            | Self::KillAppliance(_, time)
            | Self::PauseAppliance(_, time)
            | Self::CutCable(_, time)
            | Self::DownTun(_, time)
            | Self::ShrinkMtu(_, _, time)
            | Self::Reload(time)
            | Self::StarveFiles(time) => time,
            Self::KillGateway | Self::Flood(_) | Self::Malformed(_) | Self::Forge(..) => {
                Duration::ZERO
            }
        }
    }
}

impl Ordeal {
    /// Does a fault, lets it last, and undoes it.
    ///
    /// # Panics
    /// If it cannot be done, or not be undone.
    pub fn strike(&mut self, fault: &Fault) {
        self.inflict(fault);
        hold(fault.time());
        self.relieve(fault);
    }

    /// Does two faults, the second while the first lasts, and undoes the first before the second.
    ///
    /// # Panics
    /// As [`Self::strike`].
    pub fn strike_both(&mut self, first: &Fault, second: &Fault) {
        self.inflict(first);
        hold(first.time() / 2);
        self.inflict(second);
        hold(first.time() / 2);
        self.relieve(first);
        hold(second.time() / 2);
        self.relieve(second);
    }

    /// Does a fault, which lasts until it is relieved.
    ///
    /// # Panics
    /// If it cannot be done.
    pub fn inflict(&mut self, fault: &Fault) {
        match *fault {
            Fault::KillGateway => self.restart_gateway(),
            Fault::PauseGateway(_) => self.gateway.process.suspend(),
            Fault::KillAppliance(number, _) => self.kill_appliance(number),
            Fault::PauseAppliance(number, _) => self.appliance(number).process.suspend(),
            Fault::CutCable(number, _) => {
                let cable = site::cable(number);
                self.world.gateway.links().set_down(&cable).expect("a cable");
            }
            Fault::DownTun(number, _) => {
                let (host, device) = host(&self.world, number);
                host.links().set_down(device).expect("a host's device");
            }
            Fault::ShrinkMtu(number, mtu, _) => set_mtu(&self.world, number, mtu),
            Fault::Reload(_) => {
                self.gateway.reload(&self.world.other_configuration()).expect("a configuration");
            }
            // The lowest number that is free is beyond this.
            Fault::StarveFiles(_) => self.gateway.process.limit("--nofile=4:"),
            Fault::Flood(flows) => {
                flood::flood(&self.world, 0..flows, Patience::Waits);
            }
            Fault::Malformed(datagrams) => self.send_malformed(datagrams),
            Fault::Forge(number, datagrams) => self.send_forged(number, datagrams),
        }
    }

    /// Undoes a fault that lasts.
    ///
    /// # Panics
    /// If it cannot be undone.
    pub fn relieve(&mut self, fault: &Fault) {
        match *fault {
            Fault::PauseGateway(_) => self.gateway.process.resume(),
            Fault::KillAppliance(number, _) => self.start_appliance(number),
            Fault::PauseAppliance(number, _) => self.appliance(number).process.resume(),
            Fault::CutCable(number, _) => {
                let cable = site::cable(number);
                self.world.gateway.links().set_up(&cable).expect("a cable");
                site::lay_routes(&self.world.plan, &self.world.gateway, number);
            }
            Fault::DownTun(number, _) => {
                let (host, device) = host(&self.world, number);
                host.links().set_up(device).expect("a host's device");
                host.restore(device);
            }
            Fault::ShrinkMtu(number, ..) => {
                set_mtu(&self.world, number, self.world.plan.underlay_mtu);
            }
            Fault::Reload(_) => {
                self.gateway.reload(&self.world.configuration()).expect("a configuration");
            }
            Fault::StarveFiles(_) => self.gateway.process.limit("--nofile=1024:"),
            Fault::KillGateway | Fault::Flood(_) | Fault::Malformed(_) | Fault::Forge(..) => {}
        }
    }

    fn appliance(&self, number: usize) -> &Appliance {
        self.appliances[number].as_ref().expect("an appliance that runs")
    }

    fn send_forged(&self, number: usize, datagrams: u64) {
        let mut recorded = Vec::new();
        wait_until(&format!("appliance {number} is sent something"), || {
            let recording = rogue::tap(&self.world, number);
            // As long as it takes for the canary and the streams to be heard.
            hold(Duration::from_millis(100));
            recorded = recording.take();
            // Joined packets of streams would go out in fragments, if at all.
            recorded.retain(|genuine| genuine.inner.len() < 1400);
            !recorded.is_empty()
        });
        let rogue = Rogue::new(&self.world, number);
        let target = self.world.plan.target(number);
        let mut sent = 0;
        while sent < datagrams {
            // Each datagram has another bit turned than the one before.
            let packets: Vec<_> = (sent..)
                .zip(recorded.iter().take(raw::BATCH))
                .map(|(at, genuine)| {
                    let turn = 1 << (at % 32);
                    let datagram = genuine.with_cookie(|cookie| cookie ^ turn);
                    rogue.packet((target, genuine.port).into(), &datagram)
                })
                .collect();
            rogue.send(&packets).expect("a way to the gateway");
            sent += packets.len() as u64;
        }
    }

    fn send_malformed(&self, datagrams: u64) {
        let rogue = Rogue::new(&self.world, 0);
        let from = (self.world.client.address(super::Family::V4), 1000);
        let to = (self.world.servers[0].address(super::Family::V4), 53);
        let wrong = rogue::malformed(&rogue::made_up(from, to));
        let mut packets = Vec::new();
        for port in [61_000, 61_001] {
            for source in [self.world.plan.target(0), self.world.plan.stranger(0)] {
                let source = (source, port).into();
                packets.extend(wrong.iter().map(|(_, datagram)| rogue.packet(source, datagram)));
            }
        }
        for _ in 0..datagrams.div_ceil(packets.len() as u64) {
            rogue.send(&packets).expect("a way to the gateway");
        }
    }
}

/// A host with its device: the client (0), or a server (1, 2).
fn host(world: &World, number: usize) -> (&Host, &'static str) {
    match number {
        0 => (&world.client, "igw"),
        1 => (&world.servers[0], "app-a"),
        _ => (&world.servers[1], "app-b"),
    }
}

/// Changes both ends of a cable. Between the two, one of them is sent more than it takes.
pub(crate) fn set_mtu(world: &World, number: usize, mtu: u32) {
    let cable = site::cable(number);
    world.gateway.links().set_mtu(&cable, mtu).expect("its MTU");
    world.appliances[number].links().set_mtu(site::UNDERLAY, mtu).expect("its MTU");
}

impl World {
    /// The configuration with other weights and timers, a slow start, and one target less if there
    /// are more than two: all that a reload may change while packets flow, and nothing that it may
    /// not.
    pub fn other_configuration(&self) -> String {
        let mut text = self.configuration_with(&[
            ("dialect = \"aws\"", "dialect = \"aws\"\nslow_start_seconds = 1"),
            (
                "tcp_unknown_flow = \"",
                "tcp_half_closed_timeout_seconds = 90\ntcp_unknown_flow = \"",
            ),
        ]);
        let count = self.plan.appliances.len();
        for number in 0..count {
            let address = format!("address = \"{}\"\n", self.plan.target(number));
            let weighted = format!("{address}weight = {}\n", 50 + 100 * (number % 3));
            text = text.replace(&address, &weighted);
        }
        if count > 2
            && let Some(last) = text.rfind("[[target]]")
        {
            text.truncate(last);
        }
        text
    }
}
