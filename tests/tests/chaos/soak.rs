//! Everything at once, for half a minute or half an hour: a random nemesis on mixed traffic, checked
//! all the while.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::time::Duration;

use gwlb_tests::notice::say;
use gwlb_tests::world::traffic::{self, EchoServer};
use gwlb_tests::world::{Family, Fault, Ordeal, Plan, World, since_start};

use super::{three, world};

/// How long it takes unless `GWLB_SOAK_MINUTES` says otherwise.
const MINUTES: u64 = 30;
/// Times that something is done between two rests, in which the books have to balance.
const FAULTS_TO_A_REST: u64 = 8;
/// What decides the short soak: in its rounds there is every kind of fault.
const SHORT_SEED: u64 = 36;
const SHORT_ROUNDS: u64 = 2;
/// How many kinds of faults there are.
const KINDS: usize = 12;
/// The most memory that the gateway may have in use, with tables as small as here, in bytes.
const MEMORY: u64 = 64 << 20;
/// How many more file descriptors it may have open than at first: connections that are being made.
const MORE_FILES: usize = 16;

/// How long an answer is waited for, and how often it is asked for.
const AGAIN: Duration = Duration::from_secs(2);
const TRIES: usize = 5;

/// Numbers that a seed decides.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    fn below(&mut self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % limit
    }

    fn time(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    fn appliance(&mut self) -> usize {
        self.below(3) as usize
    }

    /// A fault that lasts.
    fn lasting(&mut self) -> Fault {
        let time = self.time(100, 1500);
        match self.below(8) {
            0 => Fault::PauseGateway(time),
            1 => Fault::KillAppliance(self.appliance(), time),
            2 => Fault::PauseAppliance(self.appliance(), time),
            3 => Fault::CutCable(self.appliance(), time),
            4 => Fault::DownTun(self.below(2) as usize, time),
            5 => Fault::ShrinkMtu(
                self.appliance(),
                [1300, 1400, 1450, 1500][self.below(4) as usize],
                time,
            ),
            6 => Fault::Reload(time),
            _ => Fault::StarveFiles(time),
        }
    }

    /// One fault, or two that can be done at a time.
    fn faults(&mut self) -> (Fault, Option<Fault>) {
        let first = if self.below(3) == 0 { self.sudden() } else { self.lasting() };
        let second = match self.below(3) {
            0 => Some(self.lasting()),
            1 => Some(self.sudden()),
            _ => None,
        };
        let second = second.filter(|second| go_together(&first, second));
        (first, second)
    }

    /// A fault that is over at once.
    fn sudden(&mut self) -> Fault {
        match self.below(5) {
            0 | 1 => Fault::KillGateway,
            2 => Fault::Flood(10_000 + self.below(50_000)),
            3 => Fault::Malformed(10_000 + self.below(50_000)),
            _ => Fault::Forge(self.appliance(), 1_000 + self.below(10_000)),
        }
    }
}

/// Whether the second can be done while the first lasts: what cannot be asked cannot be told,
/// nothing dies that is dead, and who is sent nothing has nothing to forge.
fn go_together(first: &Fault, second: &Fault) -> bool {
    use Fault::{
        CutCable, DownTun, Flood, Forge, KillAppliance, KillGateway, Malformed, PauseAppliance,
        PauseGateway, Reload, ShrinkMtu, StarveFiles,
    };
    match (first, second) {
        (KillAppliance(..) | PauseAppliance(..), KillAppliance(..) | PauseAppliance(..))
        | (PauseGateway(_) | StarveFiles(_), Reload(_) | PauseGateway(_) | StarveFiles(_))
        | (PauseGateway(_), KillGateway | Flood(_) | Forge(..))
        | (Reload(_), PauseGateway(_) | StarveFiles(_))
        | (DownTun(..), Flood(_))
        | (CutCable(..) | ShrinkMtu(..), Malformed(_) | Forge(..)) => false,
        (KillAppliance(dead, _) | PauseAppliance(dead, _), Forge(number, _)) => dead != number,
        _ => first.kind() != second.kind(),
    }
}

fn environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Exchanges a datagram as an application would: what does not arrive is sent again, since the first
/// that is too long for a path that has changed only tells its sender so.
fn persist(socket: &UdpSocket, payload: &[u8]) {
    socket.set_read_timeout(Some(AGAIN)).unwrap();
    let arrived = (0..TRIES).any(|_| traffic::exchange(socket, payload).is_ok());
    assert!(arrived, "{} bytes got nowhere", payload.len());
}

/// Small tables that floods fill, and flows that leave a dead appliance.
fn plan() -> Plan {
    Plan {
        gateway: "max_flows_per_worker = 16384\nmax_new_flows_per_second_per_worker = 5000",
        load_balancer: "other_idle_timeout_seconds = 10\nextended_ranges = true",
        ..three()
    }
}

#[test]
fn a_short_soak_under_every_kind_of_fault() {
    let Some(world) = world("a_short_soak", plan()) else { return };
    let mut soak = Soak::begin(world, SHORT_SEED);
    for _ in 0..SHORT_ROUNDS {
        soak.round();
    }
    assert_eq!(soak.faults.len(), KINDS, "{:?}", soak.faults);
    soak.finish();
}

#[test]
#[ignore = "takes half an hour; GWLB_SOAK_MINUTES=10 GWLB_SOAK_SEED=7 cargo test -p gwlb-tests --test chaos -- --ignored a_soak"]
fn a_soak_under_a_random_nemesis() {
    let Some(world) = world("a_soak", plan()) else { return };
    let minutes = environment("GWLB_SOAK_MINUTES").unwrap_or(MINUTES);
    let seed = environment("GWLB_SOAK_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    say(&format!("soak: {minutes} minutes, GWLB_SOAK_SEED={seed}\n"));
    let end = since_start() + Duration::from_secs(60 * minutes);
    let mut soak = Soak::begin(world, seed);
    while since_start() < end {
        soak.round();
    }
    soak.finish();
}

struct Soak {
    ordeal: Ordeal,
    dice: Dice,
    /// Why packets may have been dropped since the gateway was started last.
    may_drop: BTreeSet<&'static str>,
    files: usize,
    faults: BTreeMap<&'static str, u64>,
    drops: BTreeMap<String, u64>,
    rests: u64,
    bytes: u64,
    longest: Duration,
    most_memory: u64,
    exchanges: u64,
    /// Packets that had come in when the gateway was killed last, and before.
    received: u64,
}

impl Soak {
    fn begin(world: World, seed: u64) -> Self {
        let mut ordeal = Ordeal::begin(world);
        for number in 0..3 {
            ordeal.wait_for_state(number, "healthy");
        }
        ordeal.open_streams(2);
        let files = ordeal.gateway.process.open_files();
        Self {
            ordeal,
            dice: Dice::new(seed),
            may_drop: BTreeSet::new(),
            files,
            faults: BTreeMap::new(),
            drops: BTreeMap::new(),
            rests: 0,
            bytes: 0,
            longest: Duration::ZERO,
            most_memory: 0,
            exchanges: 0,
            received: 0,
        }
    }

    /// Some faults with traffic in between, then a rest.
    fn round(&mut self) {
        for _ in 0..FAULTS_TO_A_REST {
            self.strike();
            self.ordeal.breathe();
            self.mixed_traffic();
            self.check();
        }
        self.rest();
        self.ordeal.open_streams(2);
    }

    /// One fault, or two at a time.
    fn strike(&mut self) {
        let (first, second) = self.dice.faults();
        let at = since_start().as_secs_f64();
        let both = [Some(&first), second.as_ref()].into_iter().flatten();
        for fault in both.clone() {
            *self.faults.entry(fault.kind()).or_default() += 1;
            if *fault == Fault::KillGateway {
                // What it has counted goes with it; the books are kept to here.
                self.keep_books();
                self.may_drop.clear();
            }
        }
        self.may_drop.extend(both.flat_map(Fault::may_drop));
        match &second {
            None => {
                say(&format!("{at:7.1} s  {first}\n"));
                self.ordeal.strike(&first);
            }
            Some(second) => {
                say(&format!("{at:7.1} s  {first}, and {second}\n"));
                self.ordeal.strike_both(&first, second);
            }
        }
    }

    /// Short-lived traffic of all kinds, which must simply work now.
    fn mixed_traffic(&mut self) {
        let (client, server) = (&self.ordeal.world.client, &self.ordeal.world.servers[0]);
        for number in 0..3 {
            self.ordeal.wait_for_state(number, "healthy");
        }
        for family in [Family::V4, Family::V6] {
            for (from, to) in [(client, server), (server, client)] {
                traffic::transfer(from, to, family, 1 << 20);
                let echo = EchoServer::start(to, family);
                for length in traffic::LENGTHS {
                    let socket = traffic::datagrams(from, echo.address());
                    persist(&socket, &vec![0x5a; length]);
                }
                traffic::ping(from, to.address(family), 100).unwrap();
                self.exchanges += traffic::LENGTHS.len() as u64 + 2;
            }
        }
    }

    /// What has to hold at every moment.
    fn check(&mut self) {
        let status = self.ordeal.gateway.status();
        assert_eq!((status.tun.bypassed, status.udp.bypassed), (0, 0), "{status:#?}");
        assert_eq!(self.ordeal.past_the_appliances(), 0, "no appliance let it pass: {status:#?}");
        let unnamed: Vec<_> =
            status.drops().into_keys().filter(|it| !self.may_drop.contains(it)).collect();
        assert!(unnamed.is_empty(), "{unnamed:?} have no cause: {status:#?}");
        let resident = self.ordeal.gateway.process.resident();
        self.most_memory = self.most_memory.max(resident);
        assert!(resident < MEMORY, "{resident} bytes in use");
    }

    fn keep_books(&mut self) {
        let status = self.ordeal.gateway.status();
        self.received += status.tun.received;
        for (reason, count) in status.drops() {
            *self.drops.entry(reason.to_owned()).or_default() += count;
        }
    }

    fn rest(&mut self) {
        let (bytes, longest, status) = self.ordeal.rest();
        self.rests += 1;
        self.bytes += bytes;
        self.longest = self.longest.max(longest);
        let files = self.ordeal.gateway.process.open_files();
        assert!(files <= self.files + MORE_FILES, "{files} file descriptors, {} once", self.files);
        say(&format!(
            "{:7.1} s  at rest: {:.0} MB, longest pause {:.2} s, {} MB of memory, {} flows, {} files, {:?}\n",
            since_start().as_secs_f64(),
            bytes as f64 / 1e6,
            longest.as_secs_f64(),
            self.ordeal.gateway.process.resident() >> 20,
            status.active_flows,
            files,
            status.drops(),
        ));
    }

    fn finish(mut self) {
        self.keep_books();
        let Self {
            ordeal,
            faults,
            drops,
            rests,
            bytes,
            longest,
            most_memory,
            exchanges,
            received,
            ..
        } = self;
        let outcome = ordeal.end();
        let total: u64 = faults.values().sum();
        say(&format!(
            "soak: {total} faults {faults:?}\nsoak: {received} packets came in, {:.1} GB over streams \
             that all ended byte for byte, the longest pause {:.2} s; {exchanges} exchanges beside \
             them; {rests} rests with balanced books; dropped {drops:?}; at most {} MB of memory; {} \
             packets of the canary, none arrived\n",
            bytes as f64 / 1e9,
            longest.max(outcome.longest_pause).as_secs_f64(),
            most_memory >> 20,
            outcome.canary,
        ));
    }
}
