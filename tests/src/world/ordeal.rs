//! A gateway at work that is to survive something: real connections through it, packets that must
//! not get past the appliances, and what has to hold of all of it in the end.
//!
//! The appliances are the sample firewall, which denies the canary and lets everything else pass.
//! What is done to the gateway is [`nemesis`](super::nemesis)'s business, and the tests'.

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::canary::{self, Canary};
use super::status::Status;
use super::traffic::Stream;
use super::{Appliance, Family, Gateway, HEALTH_PORT, World, wait_until};

/// How much more memory a gateway may have in use in the end than in the beginning, in bytes: small
/// tables that were filled once, buffers that were used for the first time, and what the allocator
/// keeps.
const MORE_MEMORY: u64 = 16 << 20;

/// A world at work.
#[derive(Debug)]
pub struct Ordeal {
    /// Where it takes place.
    pub world: World,
    /// All appliances of the plan; `None` where the test has something else stand.
    pub appliances: Vec<Option<Appliance>>,
    /// The gateway.
    pub gateway: Gateway,
    /// Connections that must come to no harm.
    pub streams: Vec<Stream>,
    /// Where others answer health checks in place of an appliance.
    doors: HashMap<usize, Door>,
    canary: Canary,
    /// How the gateway is started: see [`World::launch_gateway_by`].
    starter: Vec<String>,
    /// Packets of the canary that appliances denied which have ended since.
    denied: u64,
    /// The memory that the gateway had in use when it was started first.
    memory: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What the gateway counted, at rest.
    pub status: Status,
    /// Bytes that the streams carried.
    pub bytes: u64,
    /// The longest time that a stream stood still.
    pub longest_pause: Duration,
    /// Packets that must not have arrived.
    pub canary: u64,
}

impl Ordeal {
    /// Starts the appliances and the gateway, and the canary.
    pub fn begin(world: World) -> Self {
        Self::begin_by(world, &[])
    }

    /// The same with a gateway that another command starts.
    pub fn begin_by(world: World, starter: &[&str]) -> Self {
        Self::begin_with(world, starter, |_| true)
    }

    /// The same with those appliances only whose number is `wanted`.
    pub fn begin_with(world: World, starter: &[&str], wanted: impl Fn(usize) -> bool) -> Self {
        world.write("canary.toml", canary::rules());
        let numbers = 0..world.plan.appliances.len();
        let appliances =
            numbers.map(|number| wanted(number).then(|| start(&world, number, &[]))).collect();
        let process = world.launch_gateway_by(starter, &world.configuration());
        let gateway = world.gateway_of(process);
        wait_until("the gateway answers", || gateway.is_ready());
        let memory = gateway.process.resident();
        let canary = Canary::start(&world);
        let starter = starter.iter().map(|&word| word.to_owned()).collect();
        let streams = Vec::new();
        Self {
            world,
            appliances,
            gateway,
            streams,
            doors: HashMap::new(),
            canary,
            starter,
            denied: 0,
            memory,
        }
    }

    /// Opens connections: so many in each direction and family, to each server.
    pub fn open_streams(&mut self, of_each: usize) {
        for server in &self.world.servers {
            for family in [Family::V4, Family::V6] {
                for _ in 0..of_each {
                    self.streams.push(Stream::gentle(&self.world.client, server, family));
                    self.streams.push(Stream::gentle(server, &self.world.client, family));
                }
            }
        }
        self.breathe();
    }

    /// Waits until every connection has carried more data: none was broken, and none hangs.
    pub fn breathe(&self) {
        for stream in &self.streams {
            stream.wait_for_more(64 << 10);
        }
    }

    /// Waits until more packets have been sent that must not arrive.
    pub fn sing(&self) {
        let before = self.canary.sent();
        wait_until("the canary sings", || self.canary.sent() >= before + 40);
    }

    /// Kills the gateway as a crash would, and starts it again.
    pub fn restart_gateway(&mut self) {
        self.gateway.process.crash();
        let starter: Vec<_> = self.starter.iter().map(String::as_str).collect();
        let process = self.world.launch_gateway_by(&starter, &self.world.configuration());
        self.gateway = self.world.gateway_of(process);
        wait_until("the gateway answers again", || self.gateway.is_ready());
    }

    /// Kills an appliance as a crash would.
    ///
    /// # Panics
    /// If there is none of that number.
    pub fn kill_appliance(&mut self, number: usize) {
        let mut appliance = self.appliances[number].take().expect("an appliance");
        self.denied += canary::denied(&appliance.report());
        appliance.process.crash();
    }

    /// Starts an appliance, and waits until it takes packets.
    pub fn start_appliance(&mut self, number: usize) {
        self.appliances[number] = Some(start(&self.world, number, &[]));
    }

    /// Kills an appliance and has another command start it, as [`World::launch_gateway_by`] does it.
    pub fn restart_appliance_by(&mut self, number: usize, starter: &[&str]) {
        self.kill_appliance(number);
        self.appliances[number] = Some(start_by(starter, &self.world, number, &[]));
    }

    /// Starts an appliance anew as one that answers no health checks; the test answers them.
    pub fn answer_for(&mut self, number: usize) {
        self.kill_appliance(number);
        self.appliances[number] = Some(start(&self.world, number, &["--health", "none"]));
        self.mend_health(number);
    }

    /// Answers health checks for an appliance of [`Self::answer_for`] again.
    pub fn mend_health(&mut self, number: usize) {
        self.doors.insert(number, Door::open(&self.world, number));
    }

    /// Answers them no more, while the appliance carries packets as ever.
    ///
    /// # Panics
    /// If it does so already.
    pub fn fail_health(&mut self, number: usize) {
        self.doors.remove(&number).expect("a port where health checks are answered");
    }

    /// The state of a target.
    pub fn wait_for_state(&self, number: usize, state: &str) -> Status {
        self.gateway.wait_until(&format!("appliance {number} is {state}"), |status| {
            status.targets[number].state == state
        })
    }

    /// How many packets have arrived that no appliance let pass.
    pub fn past_the_appliances(&self) -> u64 {
        self.canary.arrived()
    }

    /// Ends all streams and has the canary fall silent until everything stands still, and checks
    /// what has to hold then; gives the bytes that the streams carried, the longest time that one
    /// stood still, and what the gateway counts.
    ///
    /// # Panics
    /// If anything of it does not hold.
    pub fn rest(&mut self) -> (u64, Duration, Status) {
        let streams = std::mem::take(&mut self.streams);
        let transfers: Vec<_> = streams.into_iter().map(Stream::finish).collect();
        self.canary.hush(true);
        let status = self.gateway.settled();
        assert_sound(&status);
        assert_eq!(self.past_the_appliances(), 0, "no appliance let it pass: {status:#?}");
        self.canary.hush(false);
        let bytes = transfers.iter().map(|transfer| transfer.bytes).sum();
        let longest = transfers.iter().map(|transfer| transfer.longest_pause).max();
        (bytes, longest.unwrap_or_default(), status)
    }

    /// Ends everything in order, and checks what has to hold whatever was done: every connection
    /// carried to its end exactly what was sent, everything is accounted for, nothing was delivered
    /// that no appliance has let pass, the gateway has no more memory in use than it should, and
    /// nobody has panicked.
    ///
    /// # Panics
    /// If anything of it does not hold.
    pub fn end(mut self) -> Outcome {
        self.breathe();
        self.sing();
        let transfers: Vec<_> =
            std::mem::take(&mut self.streams).into_iter().map(Stream::finish).collect();
        let silent = self.canary.fall_silent();
        let sent = silent.sent;
        let status = self.gateway.settled();
        assert_sound(&status);
        let memory = self.gateway.process.resident();
        let (first, most) = (self.memory, self.memory + MORE_MEMORY);
        assert!(memory <= most, "{memory} bytes of memory in use, {first} in the beginning");
        // What the kernels of the hosts were given is no more than what was counted as delivered.
        let delivered = status.udp.delivered + status.tun.delivered;
        let given: u64 = given(&self.world);
        assert!(given <= delivered, "{given} packets reached the hosts: {status:#?}");
        let arrived = silent.arrived();
        assert_eq!(arrived.marked, 0, "packets that no appliance let pass: {status:#?}");
        let reports = self.appliances.iter().flatten().map(Appliance::report);
        self.denied += reports.map(|report| canary::denied(&report)).sum::<u64>();
        assert!(self.denied > 0 && sent > 0, "the canary has proved nothing: {status:#?}");
        for appliance in self.appliances.iter_mut().flatten() {
            appliance.process.terminate();
            let finished = appliance.process.finish();
            assert_eq!(finished.code, Some(0), "{}", finished.log);
        }
        self.gateway.stop();
        Outcome {
            status,
            bytes: transfers.iter().map(|transfer| transfer.bytes).sum(),
            longest_pause: transfers.iter().map(|t| t.longest_pause).max().unwrap_or_default(),
            canary: sent,
        }
    }
}

/// Checks what holds of a gateway's counters whenever it is at rest.
///
/// # Panics
/// If it does not.
pub fn assert_sound(status: &Status) {
    assert!(status.is_balanced(), "{status:#?}");
    assert_eq!((status.tun.bypassed, status.udp.bypassed), (0, 0), "uninspected: {status:#?}");
    // All routes of these worlds lead through the endpoint: what is delivered on the way there, the
    // gateway has said itself.
    assert!(status.tun.delivered <= status.tun.generated, "uninspected: {status:#?}");
    let returned: u64 = status.targets.iter().map(|target| target.returned_packets).sum();
    assert!(status.udp.delivered <= returned + status.udp.generated, "{status:#?}");
}

impl Outcome {
    /// Checks that what was dropped by name is exactly this, and nothing else was.
    ///
    /// # Panics
    /// If it is not.
    pub fn assert_drops<const N: usize>(&self, expected: [(&str, u64); N]) {
        assert_eq!(self.status.drops(), BTreeMap::from(expected), "{:#?}", self.status);
    }

    /// Checks that nothing was dropped but for these reasons, and gives how much that was.
    ///
    /// # Panics
    /// If anything was.
    pub fn assert_only(&self, reasons: &[&str]) -> u64 {
        let drops = self.status.drops();
        let others: Vec<_> = drops.keys().filter(|reason| !reasons.contains(reason)).collect();
        assert!(others.is_empty(), "{others:?} besides {reasons:?}: {:#?}", self.status);
        drops.values().sum()
    }
}

impl Gateway {
    /// Whether it answers.
    ///
    /// # Panics
    /// If it has ended.
    pub fn is_ready(&self) -> bool {
        let there = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()));
        let ended = there.is_ok_and(|stat| stat.contains(") Z "));
        assert!(!ended, "the gateway has ended:\n{}", self.process.log());
        super::status::get(&self.admin, "/ready").is_ok() && Status::read(&self.admin).is_ok()
    }
}

fn start(world: &World, number: usize, more: &[&str]) -> Appliance {
    start_by(&[], world, number, more)
}

fn start_by(starter: &[&str], world: &World, number: usize, more: &[&str]) -> Appliance {
    let rules = world.folder().join("canary.toml");
    let rules = rules.to_str().expect("a path in Unicode");
    world.start_appliance_by(starter, number, &[&["firewall", "--rules", rules], more].concat())
}

/// A port that answers health checks for an appliance, as the clouds' checks over TCP want it: it
/// takes connections.
#[derive(Debug)]
struct Door {
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    fn open(world: &World, number: usize) -> Self {
        let site = &world.appliances[number];
        let address = SocketAddr::new(world.plan.target(number), HEALTH_PORT);
        let listener = site.run(|| TcpListener::bind(address)).expect("a port that is free");
        // It holds for accepting, too.
        let glance = Some(Duration::from_millis(20));
        socket2::SockRef::from(&listener).set_read_timeout(glance).expect("a socket");
        let closing = Arc::new(AtomicBool::new(false));
        let closed = Arc::clone(&closing);
        let thread = std::thread::spawn(move || {
            while !closed.load(Ordering::Acquire) {
                // Who comes in has found the door open, which is all there is to see.
                let _ = listener.accept();
            }
        });
        Self { closing, thread: Some(thread) }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The packets that the hosts' devices brought in, as their kernels count them; a super-packet once.
fn given(world: &World) -> u64 {
    let devices = [(&world.client, "igw"), (&world.servers[0], "app-a")];
    let second = world.servers.get(1).map(|server| (server, "app-b"));
    let counted = devices
        .into_iter()
        .chain(second)
        .map(|(host, device)| host.links().statistics(device).expect("a host's device").rx_packets);
    counted.sum()
}
