//! What happens in a simulation, drawn before it begins: a world and a list of events, each of
//! which can be left out without changing any other.

use std::collections::BTreeSet;
use std::time::Duration;

use super::configuration::{DENIED, Layout, Policy, Variant};
use super::random::{About, Dice};

/// Everything that a seed decides.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub seed: u64,
    pub world: World,
    /// In the order of their numbers, not of their times.
    pub events: Vec<Event>,
}

/// What is there from the beginning.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub layout: Layout,
    pub policy: Policy,
    /// What a reload may change the policy to.
    pub other: Policy,
    pub gateways: usize,
    pub workers: u16,
    /// Whether the workers read what the kernel would give them.
    pub by_flow: bool,
    pub inbox: usize,
    pub wall_clock: Duration,
    pub weather: Weather,
    /// How long things go on happening.
    pub span: Duration,
}

/// What the network does to packets, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weather {
    pub lost: u64,
    pub doubled: u64,
    pub corrupted: u64,
    /// Delayed by far more than the others.
    pub strayed: u64,
}

impl Weather {
    pub const CALM: Weather = Weather { lost: 0, doubled: 0, corrupted: 0, strayed: 0 };

    fn draw(dice: &mut Dice) -> Weather {
        Weather {
            lost: dice.between(0, 60),
            doubled: dice.between(0, 40),
            corrupted: dice.between(0, 30),
            strayed: dice.between(0, 60),
        }
    }
}

/// Something that happens.
#[derive(Debug, Clone)]
pub(super) struct Event {
    /// Its number, by which it can be left out.
    pub number: u32,
    pub at: Duration,
    pub what: What,
}

/// What can happen.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// Two hosts begin to talk.
    Talk(Talk),
    /// An appliance is in trouble for a while.
    Trouble {
        appliance: usize,
        trouble: Trouble,
        lasts: Duration,
    },
    /// Somebody who is no appliance sends Geneve.
    Rogue {
        deed: Rogue,
        count: u64,
    },
    /// Packets that belong to nothing come from the networks.
    Stray {
        kind: Stray,
        count: u64,
    },
    Reload {
        variant: Variant,
        /// Whether places are numbered otherwise and back in the same moment, while packets wait.
        hurried: bool,
    },
    Register {
        appliance: usize,
        weight: u16,
    },
    Deregister {
        appliance: usize,
    },
    /// A load balancer's traffic mode is switched to bypass, and back after a while.
    Bypass {
        balancer: usize,
        lasts: Duration,
    },
    /// The calendar is set forward or back, by seconds.
    Clock {
        gateway: usize,
        by: i64,
    },
    /// A gateway dies, and comes back without its flows.
    Death {
        gateway: usize,
        lasts: Duration,
    },
    /// Packets that went to one gateway go to another from now on.
    Shift,
    /// A gateway and an appliance do not reach each other.
    Partition {
        gateway: usize,
        appliance: usize,
        way: Way,
        lasts: Duration,
    },
    /// The network is worse than usual.
    Storm {
        weather: Weather,
        lasts: Duration,
    },
    /// A worker does not take up new views.
    Lag {
        gateway: usize,
        worker: u16,
        lasts: Duration,
    },
    /// A worker does not look into its inbox.
    Stall {
        gateway: usize,
        worker: u16,
        lasts: Duration,
    },
    /// A gateway is stopped for a while, and goes on where it was: what has come waits, and what was
    /// due is done late. What has come is done first, or what was due.
    Pause {
        gateway: usize,
        lasts: Duration,
        arrivals_first: bool,
    },
    /// The underlay carries smaller packets to an appliance than before.
    PathMtu {
        appliance: usize,
        mtu: u16,
    },
}

/// Which way a partition cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    There,
    Back,
    Both,
}

/// What can be wrong with an appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It is gone; when it comes back it knows nothing.
    Crash,
    /// It does nothing, and goes on later where it stopped.
    Hang,
    /// It answers health checks and carries nothing.
    Deaf,
    /// It carries, and answers health checks with an error.
    Sick,
    /// Everything takes longer.
    Late,
    /// The gateway cannot make probes of it.
    Unprobed,
    /// It changes addresses or ports of what it returns.
    RewritesTuple,
    /// It changes bytes of the Geneve header.
    RewritesHeader,
    /// It changes bytes of the payload.
    RewritesPayload,
    /// It returns packets with the headers of other flows.
    MixesFlows,
    /// It answers to another address than the one that asked.
    WrongNode,
    /// It answers from another address than the one that was asked.
    WrongSource,
    /// It cuts datagrams short.
    Truncates,
    /// It brings back nothing that is large.
    SmallOnly,
}

impl Trouble {
    pub const ALL: [Trouble; 14] = [
        Trouble::Crash,
        Trouble::Hang,
        Trouble::Deaf,
        Trouble::Sick,
        Trouble::Late,
        Trouble::Unprobed,
        Trouble::RewritesTuple,
        Trouble::RewritesHeader,
        Trouble::RewritesPayload,
        Trouble::MixesFlows,
        Trouble::WrongNode,
        Trouble::WrongSource,
        Trouble::Truncates,
        Trouble::SmallOnly,
    ];
}

/// What somebody sends to the gateway's Geneve port who is no appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rogue {
    /// Noise from an address that is no target.
    Stranger,
    /// Noise from a target's address.
    Noise,
    /// A datagram that was sent to an appliance, from elsewhere.
    Replay,
    /// The same from the appliance's address, with another cookie.
    Forged,
    /// With another endpoint.
    OtherEndpoint,
    /// With a byte of the header changed.
    Mutated,
    /// With the O bit.
    Control,
    /// With a critical option that nobody knows.
    Critical,
    /// With a protocol type that is neither IPv4 nor IPv6.
    Protocol,
}

impl Rogue {
    pub const ALL: [Rogue; 9] = [
        Rogue::Stranger,
        Rogue::Noise,
        Rogue::Replay,
        Rogue::Forged,
        Rogue::OtherEndpoint,
        Rogue::Mutated,
        Rogue::Control,
        Rogue::Critical,
        Rogue::Protocol,
    ];
}

/// Packets that belong to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stray {
    /// What is no packet.
    Noise,
    /// To addresses that no route leads to.
    Nowhere,
    /// TCP in its middle that nobody began.
    Middle,
    /// Connections that are opened and left alone.
    Syns,
    /// Fragments of packets of which the first never comes.
    Fragments,
    /// Fragments of one packet that all say something else.
    Overlaps,
}

impl Stray {
    pub const ALL: [Stray; 6] = [
        Stray::Noise,
        Stray::Nowhere,
        Stray::Middle,
        Stray::Syns,
        Stray::Fragments,
        Stray::Overlaps,
    ];
}

/// How two hosts talk.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "ways to talk, each by itself")]
pub(super) struct Talk {
    pub kind: Kind,
    /// Index of the pair of networks.
    pub pair: u64,
    /// Which host of the near network.
    pub host: u8,
    /// Whether the far side begins.
    pub outward: bool,
    pub port: u16,
    pub service: u16,
    pub rounds: u32,
    /// Bytes that are asked with, and answered with.
    pub sizes: [usize; 2],
    /// Between rounds.
    pub pause: Duration,
    /// TCP: the most bytes of a segment.
    pub segment: usize,
    /// IPv4: whether routers may fragment its packets.
    pub may_fragment: bool,
    /// Whether its sender gives several segments to its device at once.
    pub offload: bool,
    /// Whether the hosts complain by ICMP now and then.
    pub errors: bool,
    /// TCP: whether it ends in a reset.
    pub abort: bool,
}

/// What two hosts speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Udp,
    Ping,
    /// Another protocol, by its number.
    Other(u8),
}

/// How many events a plan has, unless told otherwise.
pub(super) const EVENTS: u32 = 60;

impl Plan {
    /// Draws a plan with so many events, without some of them.
    pub fn draw(seed: u64, events: u32, without: &BTreeSet<u32>) -> Plan {
        let world = World::draw(&mut Dice::of(seed, About::World, &[]));
        let events = (0..events)
            .filter(|number| !without.contains(number))
            .map(|number| {
                let mut dice = Dice::of(seed, About::Event, &[u64::from(number)]);
                let at = dice.time(Duration::ZERO, world.span);
                let what = What::draw(&mut dice, &world);
                // Drawn last, so that all others are what they were before there was this.
                let what = if dice.per_mille(20) { What::pause(&mut dice, &world) } else { what };
                Event { number, at, what }
            })
            .collect();
        Plan { seed, world, events }
    }
}

impl World {
    fn draw(dice: &mut Dice) -> World {
        let layout =
            dice.weighted(&[(6, Layout::TwoZones), (2, Layout::Overlapping), (2, Layout::Chained)]);
        let policy = Policy::draw(dice);
        let other = policy.redrawn(dice);
        let weather = if dice.per_mille(500) { Weather::CALM } else { Weather::draw(dice) };
        World {
            layout,
            policy,
            other,
            gateways: dice.weighted(&[(6, 1), (3, 2), (1, 3)]),
            workers: dice.between(1, 3) as u16,
            by_flow: dice.per_mille(500),
            inbox: *dice.pick(&[1024, 1024, 64, 3]),
            // Shortly before the keys turn, in some worlds.
            wall_clock: Duration::from_secs(*dice.pick(&[0, 1_800_000_000, 86_400 * 20_000 - 300])),
            weather,
            span: Duration::from_secs(*dice.pick(&[30, 120, 600, 1800, 7200])),
        }
    }
}

impl What {
    fn draw(dice: &mut Dice, world: &World) -> What {
        let appliances = world.layout.appliances().len() as u64;
        let span = world.span;
        let appliance = dice.below(appliances) as usize;
        let gateway = dice.below(world.gateways as u64) as usize;
        let worker = dice.below(world.workers.into()) as u16;
        let lasts = dice.time(Duration::from_millis(50), span / 4);
        let count = *dice.pick(&[1, 3, 10, 40]);
        match dice.weighted(&[
            (560, 0),
            (110, 1),
            (50, 2),
            (60, 3),
            (30, 4),
            (25, 5),
            (35, 6),
            (10, 7),
            (12, 8),
            (15, 9),
            (15, 10),
            (25, 11),
            (15, 12),
            (20, 13),
            (20, 14),
            (10, 15),
        ]) {
            0 => What::Talk(Talk::draw(dice, world)),
            1 => What::Trouble { appliance, trouble: *dice.pick(&Trouble::ALL), lasts },
            2 => What::Rogue { deed: *dice.pick(&Rogue::ALL), count: count.min(10) },
            3 => {
                let kind = *dice.pick(&Stray::ALL);
                let count = if dice.per_mille(50) { 400 } else { count };
                What::Stray { kind, count }
            }
            4 => What::Reload { variant: *dice.pick(&Variant::ALL), hurried: dice.per_mille(300) },
            5 => What::Register { appliance, weight: *dice.pick(&[100, 100, 300, 1, 0]) },
            6 => What::Deregister { appliance },
            7 => {
                let balancers = world.layout.load_balancers().len() as u64;
                What::Bypass { balancer: dice.below(balancers) as usize, lasts }
            }
            8 => {
                let by = *dice.pick(&[-100_000, -3600, -30, 30, 3600, 86_400, 200_000]);
                What::Clock { gateway, by }
            }
            9 => What::Death { gateway, lasts: lasts.min(Duration::from_secs(30)) },
            10 => What::Shift,
            11 => {
                let way = *dice.pick(&[Way::There, Way::Back, Way::Both]);
                What::Partition { gateway, appliance, way, lasts }
            }
            12 => What::Storm { weather: Weather::draw(dice), lasts },
            13 => What::Lag { gateway, worker, lasts: lasts.min(Duration::from_secs(20)) },
            14 => What::Stall { gateway, worker, lasts: lasts.min(Duration::from_secs(3)) },
            _ => What::PathMtu { appliance, mtu: *dice.pick(&[1500, 1400, 1300, 9000]) },
        }
    }
}

impl What {
    fn pause(dice: &mut Dice, world: &World) -> What {
        let gateway = dice.below(world.gateways as u64) as usize;
        let most = *dice.pick(&[20, 2000, 2000, 20_000, 200_000]);
        let lasts = dice.time(Duration::from_millis(1), Duration::from_millis(most));
        What::Pause { gateway, lasts, arrivals_first: dice.per_mille(500) }
    }
}

impl Talk {
    fn draw(dice: &mut Dice, world: &World) -> Talk {
        let kind = dice.weighted(&[
            (60, Kind::Tcp),
            (25, Kind::Udp),
            (7, Kind::Ping),
            (4, Kind::Other(47)),
            (4, Kind::Other(50)),
        ]);
        let second = Duration::from_secs(1);
        let pause = match dice.below(10) {
            0..=3 => dice.time(Duration::ZERO, Duration::from_millis(50)),
            4..=6 => dice.time(Duration::from_millis(50), 3 * second),
            7 | 8 => dice.time(3 * second, 60 * second),
            _ => dice.time(60 * second, 400 * second),
        };
        let size = |dice: &mut Dice| *dice.pick(&[1, 30, 200, 1000, 1400, 3000, 6000_usize]);
        Talk {
            kind,
            pair: dice.next(),
            host: dice.below(5) as u8,
            outward: dice.per_mille(250),
            // Few, so that they are used again.
            port: 20_000 + dice.below(12) as u16,
            service: if dice.per_mille(80) { DENIED } else { *dice.pick(&[80, 443, 53]) },
            rounds: dice.between(1, 4) as u32,
            sizes: [size(dice), size(dice)],
            pause: pause.min(world.span),
            segment: *dice.pick(&[536, 1200, 1360, 1400, 1460]),
            may_fragment: dice.per_mille(300),
            offload: dice.per_mille(250),
            errors: dice.per_mille(200),
            abort: dice.per_mille(100),
        }
    }
}
