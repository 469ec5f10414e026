//! A small world for end-to-end tests: namespaces with real kernels' stacks, the underlay's cables
//! between them, and the real programs as processes.
//!
//! Nothing of it outlives the test, however that ends: namespaces have no name that could stay
//! behind, processes die with the thread that started them, and every wait has a limit. It judges
//! nothing; the tests do, by what the programs say and by what arrives at the other end.

pub mod canary;
mod configuration;
pub mod flood;
pub mod impostor;
mod nemesis;
mod ordeal;
mod patience;
mod plan;
mod process;
pub mod raw;
pub mod rogue;
pub mod site;
pub mod status;
pub mod traffic;
mod usage;
pub mod wire;

use std::fs::Permissions;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use netio::process::CommandExt as _;
use tempfile::TempDir;

pub use nemesis::Fault;
pub use ordeal::{Ordeal, Outcome};
use patience::Patience;
pub use plan::{Family, Plan};
pub use process::{Finished, Process};
pub use site::{Host, Site};
use status::{Report, Status};

/// How long anything may take that should happen at all. Much longer than it does, so that a busy
/// machine fails no test.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Where the clouds probe unless told otherwise.
const HEALTH_PORT: u16 = 80;

/// Between two looks at something that gives no signal.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The namespaces of one test, and what is needed to start the programs in them.
#[derive(Debug)]
pub struct World {
    /// How it was planned.
    pub plan: Plan,
    /// Where the internet is: one host, behind the internet gateway.
    pub client: Host,
    /// The application's servers, one in each zone.
    pub servers: Vec<Host>,
    /// Where the gateway's outer addresses are.
    pub gateway: Site,
    /// The appliances' namespaces, with a cable to the gateway each.
    pub appliances: Vec<Site>,
    binary: &'static str,
    folder: TempDir,
}

impl World {
    /// Builds the namespaces of `plan` for the test of that name; or says why the test is skipped,
    /// and returns `None`. `binary` is the dispatching binary of this package.
    ///
    /// # Panics
    /// If anything fails that needs no privilege which a test may lack; and instead of skipping
    /// where the environment says `CI=true`.
    pub fn new(test: &str, binary: &'static str, plan: Plan) -> Option<Self> {
        let client = Host::new(test, plan.client())?;
        let servers = (0..plan.zones)
            .map(|zone| Host::new(test, plan.server(zone)))
            .collect::<Option<_>>()?;
        let gateway = Site::new(test)?;
        let appliances =
            plan.appliances.iter().map(|_| Site::new(test)).collect::<Option<Vec<_>>>()?;
        site::lay_underlay(&plan, &gateway, &appliances);
        let folder = tempfile::Builder::new().prefix("gwlb-test-").tempdir().expect("a folder");
        Some(Self { plan, client, servers, gateway, appliances, binary, folder })
    }

    /// The folder of the test; it goes when the test ends.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Lets other users look into the folder, for tests that start programs as one.
    pub fn open_folder(&self) {
        std::fs::set_permissions(self.folder(), Permissions::from_mode(0o755)).expect("our own");
    }

    /// Writes a file into the folder.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder().join(name);
        std::fs::write(&path, content).expect("a file in our folder");
        path
    }

    /// The gateway's configuration, as a user would write it.
    pub fn configuration(&self) -> String {
        configuration::gateway(self)
    }

    /// The gateway's configuration, with other text in place of some of it.
    ///
    /// # Panics
    /// If what is to be replaced is not there.
    pub fn configuration_with(&self, changes: &[(&str, &str)]) -> String {
        changes.iter().fold(self.configuration(), |text, (from, to)| {
            assert!(text.contains(from), "no {from} in the configuration:\n{text}");
            text.replace(from, to)
        })
    }

    /// Where the gateway's admin API listens.
    pub fn admin_socket(&self) -> PathBuf {
        self.folder().join("admin.sock")
    }

    /// A command of this workspace with its arguments, the command's name first.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.binary);
        command.args(arguments);
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        Process::start(arguments[0], self.command(arguments)).finish()
    }

    /// Starts the gateway and waits until packets flow.
    pub fn start_gateway(&self) -> Gateway {
        self.start_gateway_with(&self.configuration())
    }

    /// Starts the gateway with another configuration, and waits until packets flow.
    pub fn start_gateway_with(&self, configuration: &str) -> Gateway {
        let mut process = self.launch_gateway(configuration);
        process.wait_for_line("ready");
        self.gateway_of(process)
    }

    /// The gateway that a process is. It need not have said anything yet.
    pub fn gateway_of(&self, process: Process) -> Gateway {
        Gateway { process, admin: self.admin_socket() }
    }

    /// Starts `gwlb run` without waiting for anything.
    pub fn launch_gateway(&self, configuration: &str) -> Process {
        self.launch_gateway_by(&[], configuration)
    }

    /// Starts a sample in the namespace of the appliance with that number, and waits until it takes
    /// packets. `arguments` begin with the sample's name.
    pub fn start_appliance(&self, number: usize, arguments: &[&str]) -> Appliance {
        self.start_appliance_by(&[], number, arguments)
    }

    /// The same by another command, as [`Self::launch_gateway_by`] does it.
    pub fn start_appliance_by(
        &self,
        starter: &[&str],
        number: usize,
        arguments: &[&str],
    ) -> Appliance {
        let mut process = self.launch_appliance_by(starter, number, arguments);
        process.wait_for_line("ready");
        Appliance { process, stats: self.stats_socket(number) }
    }

    /// Starts the pass-through sample as every appliance.
    pub fn start_appliances(&self) -> Vec<Appliance> {
        let all = 0..self.plan.appliances.len();
        all.map(|number| self.start_appliance(number, &["passthrough"])).collect()
    }

    /// Starts a sample without waiting for anything.
    pub fn launch_appliance(&self, number: usize, arguments: &[&str]) -> Process {
        self.launch_appliance_by(&[], number, arguments)
    }

    /// The same by another command, as [`Self::launch_gateway_by`] does it.
    pub fn launch_appliance_by(
        &self,
        starter: &[&str],
        number: usize,
        arguments: &[&str],
    ) -> Process {
        let listen = SocketAddr::new(self.plan.target(number), geneve::PORT).to_string();
        let stats = self.stats_socket(number);
        let stats = stats.to_str().expect("a path in Unicode");
        let mut command = self.command(&["nva-sample"]);
        command.args(arguments).args(["--listen", &listen, "--stats", stats]);
        command.args(["--drain-seconds", "0"]);
        if !arguments.contains(&"--health") {
            let health = if self.plan.health {
                SocketAddr::new(self.plan.target(number), HEALTH_PORT).to_string()
            } else {
                "none".to_owned()
            };
            command.args(["--health", &health]);
        }
        let mut command = usage::by(starter, command);
        command.in_netns(self.appliances[number].netns());
        Process::start(&format!("appliance {number}"), command)
    }

    fn stats_socket(&self, number: usize) -> PathBuf {
        self.folder().join(format!("nva{number}.sock"))
    }
}

/// A gateway that runs.
#[derive(Debug)]
pub struct Gateway {
    /// The process.
    pub process: Process,
    admin: PathBuf,
}

impl Gateway {
    /// Loads another configuration.
    ///
    /// # Errors
    /// What the gateway says if it does not take it.
    pub fn reload(&self, configuration: &str) -> std::io::Result<()> {
        status::post(&self.admin, "/v1/reload", "application/toml", configuration).map(drop)
    }

    /// What the gateway counts now.
    pub fn status(&self) -> Status {
        Status::read(&self.admin)
            .unwrap_or_else(|error| panic!("no status: {error}\n{}", self.process.log()))
    }

    /// What has happened so far, as far as the gateway keeps it.
    ///
    /// # Panics
    /// If it does not say.
    pub fn events(&self) -> Vec<serde_json::Value> {
        let answer = status::get(&self.admin, "/v1/events?follow=false");
        let answer = answer.unwrap_or_else(|error| panic!("{error}\n{}", self.process.log()));
        let list: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
        list["items"].as_array().expect("a list").clone()
    }

    /// The events of this name, as soon as there are so many.
    ///
    /// # Panics
    /// If there are fewer within [`LIMIT`].
    pub fn wait_for_events(&self, name: &str, count: usize) -> Vec<serde_json::Value> {
        let mut events = Vec::new();
        wait_until(name, || {
            events = self.events();
            events.retain(|event| event["event"] == name);
            events.len() >= count
        });
        events
    }

    /// The first status for which `condition` holds.
    ///
    /// # Panics
    /// If it does not come to hold within [`LIMIT`].
    pub fn wait_until(&self, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
        let mut status = self.status();
        wait_until(what, || {
            status = self.status();
            condition(&status)
        });
        status
    }

    /// The status when no packet is on its way any more.
    pub fn settled(&self) -> Status {
        settled(|| self.status())
    }

    /// Asks it to end, and waits for that: with exit status 0.
    pub fn stop(&mut self) -> Finished {
        self.process.terminate();
        let finished = self.process.finish();
        assert_eq!(finished.code, Some(0), "{}", finished.log);
        finished
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(status) = Status::read(&self.admin)
        {
            eprintln!("--- the gateway counted:\n{status:#?}");
        }
    }
}

/// An appliance that runs.
#[derive(Debug)]
pub struct Appliance {
    /// The process.
    pub process: Process,
    stats: PathBuf,
}

impl Appliance {
    /// What the appliance counts now.
    pub fn report(&self) -> Report {
        Report::read(&self.stats)
            .unwrap_or_else(|error| panic!("no statistics: {error}\n{}", self.process.log()))
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(report) = Report::read(&self.stats)
        {
            eprintln!("--- an appliance counted:\n{report:#?}");
        }
    }
}

/// The time since this was asked for first.
pub fn since_start() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    now().saturating_duration_since(*START.get_or_init(now))
}

/// Lets a fault last for a while. Nothing is waited for: the time is part of the fault.
pub fn hold(duration: Duration) {
    std::thread::sleep(duration);
}

/// Looks again and again until `condition` holds, for what gives no signal.
///
/// # Panics
/// If it does not come to hold within [`LIMIT`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let mut patience = Patience::new();
    while !condition() {
        assert!(patience.wait().is_some(), "waited in vain until {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The status of a gateway when no packet is on its way any more: for a while the same.
///
/// # Panics
/// If it does not come to that within [`LIMIT`].
pub fn settled(status: impl Fn() -> Status) -> Status {
    let mut before = status();
    let mut calm = 0;
    wait_until("the gateway settles", || {
        let now = status();
        let same = now.tun == before.tun && now.udp == before.udp && now.is_balanced();
        calm = if same { calm + 1 } else { 0 };
        before = now;
        // For longer than a delayed acknowledgement takes (40 ms), and than what is told of targets may
        // lag behind the sums (10 ms).
        calm * LOOK_AGAIN.as_millis() as u32 > 60
    });
    before
}

/// The one clock of these tests.
#[expect(clippy::disallowed_methods, reason = "real programs take real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The unspecified address of a family.
fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}
