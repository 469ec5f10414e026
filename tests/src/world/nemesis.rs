//! Faults of the machine and of the network, as things that can be done to a world at work.
//!
//! Each strikes and is over when [`Ordeal::strike`] returns; what has to hold afterwards is for
//! [`Ordeal::end`] and the tests to say.

use std::fmt;
use std::time::Duration;

use super::flood::{self, Patience};
use super::rogue::{self, Rogue};
use super::{Ordeal, World, hold, site};

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
        }
    }

    /// Why packets may be dropped because of it.
    pub fn may_drop(&self) -> &'static [&'static str] {
        match self {
            // Longer packets come out of the devices than the workers hand over in time.
            Self::PauseGateway(_) | Self::Flood(_) => &["handover_full"],
            Self::CutCable(..) => &["send_failed"],
            Self::DownTun(..) => &["delivery_failed"],
            Self::ShrinkMtu(..) => &["send_failed"],
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
            Self::KillGateway
            | Self::KillAppliance(..)
            | Self::PauseAppliance(..)
            | Self::StarveFiles(_) => &[],
        }
    }
}

impl Ordeal {
    /// Does a fault, and undoes it.
    ///
    /// # Panics
    /// If it cannot be done, or not be undone.
    pub fn strike(&mut self, fault: &Fault) {
        match *fault {
            Fault::KillGateway => self.restart_gateway(),
            Fault::PauseGateway(time) => {
                self.gateway.process.suspend();
                hold(time);
                self.gateway.process.resume();
            }
            Fault::KillAppliance(number, time) => {
                self.kill_appliance(number);
                hold(time);
                self.start_appliance(number);
            }
            Fault::PauseAppliance(number, time) => {
                let process = &self.appliances[number].as_ref().expect("an appliance").process;
                process.suspend();
                hold(time);
                process.resume();
            }
            Fault::CutCable(number, time) => {
                let cable = site::cable(number);
                self.world.gateway.links().set_down(&cable).expect("a cable");
                hold(time);
                self.world.gateway.links().set_up(&cable).expect("a cable");
                site::lay_routes(&self.world.plan, &self.world.gateway, number);
            }
            Fault::DownTun(number, time) => {
                let (host, device) = match number {
                    0 => (&self.world.client, "igw"),
                    1 => (&self.world.servers[0], "app-a"),
                    _ => (&self.world.servers[1], "app-b"),
                };
                host.links().set_down(device).expect("a host's device");
                hold(time);
                host.links().set_up(device).expect("a host's device");
                host.restore(device);
            }
            Fault::ShrinkMtu(number, mtu, time) => {
                set_mtu(&self.world, number, mtu);
                hold(time);
                set_mtu(&self.world, number, self.world.plan.underlay_mtu);
            }
            Fault::Reload(time) => {
                self.gateway.reload(&self.world.other_configuration()).expect("a configuration");
                hold(time);
                self.gateway.reload(&self.world.configuration()).expect("a configuration");
            }
            Fault::StarveFiles(time) => {
                // The lowest number that is free is beyond this.
                self.gateway.process.limit("--nofile=4:");
                hold(time);
                self.gateway.process.limit("--nofile=1024:");
            }
            Fault::Flood(flows) => {
                flood::flood(&self.world, 0..flows, Patience::Waits);
            }
            Fault::Malformed(datagrams) => self.send_malformed(datagrams),
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

/// Changes both ends of a cable. The end that sends is first to send less, and last to send more,
/// as somebody would do it who means no harm.
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
