//! Where it is measured: a namespace in the gateway's place, one for each appliance, a cable to
//! each, and the appliances as processes of this program.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use netio::link::{Links, Route};
use netio::netns::{Netns, ScratchNetns};
use netio::process::process_cpu_time;
use nva_sample::report::Report;

use super::load;
use crate::lab::configuration::IDS_PATTERNS;
use crate::lab::error::LabError;
use crate::lab::process::{Ending, Process, RunDirectory};

/// The appliances that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sample {
    Passthrough,
    PassthroughOnAllCores,
    Firewall,
    Ids,
}

/// The address in the gateway's place, in one of the networks that RFC 5737 sets aside for examples.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The appliance's end of its cable.
const UNDERLAY: &str = "underlay";

/// Room for Geneve around the packets that are sent, as in the lab.
const UNDERLAY_MTU: u32 = 1700;

/// Everything ends when this is dropped, processes before namespaces.
#[derive(Debug)]
pub(super) struct Field {
    appliances: Vec<Appliance>,
    gateway: ScratchNetns,
    _directory: RunDirectory,
}

#[derive(Debug)]
struct Appliance {
    process: Process,
    statistics: PathBuf,
    _netns: ScratchNetns,
}

impl Field {
    /// Builds and starts everything; on failure nothing is left.
    pub(super) async fn set() -> Result<Self, LabError> {
        let directory = RunDirectory::create(&format!("{NAME}-{}", std::process::id()))?;
        let gateway = namespace()?;
        let links = Links::in_netns(&gateway)?;
        links.add_address("lo", GATEWAY.into(), 32)?;
        let mut appliances = Vec::new();
        for sample in Sample::ALL {
            appliances.push(Appliance::start(sample, &links, &directory)?);
        }
        for Appliance { process, statistics, .. } in &mut appliances {
            let ask = async || match Report::read(statistics) {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("its statistics: {error}")),
            };
            process.wait_ready(ask).await?;
        }
        Ok(Self { appliances, gateway, _directory: directory })
    }

    /// The namespace in the gateway's place.
    pub(super) fn gateway(&self) -> &Netns {
        &self.gateway
    }

    /// The processor time of an appliance since its start, user and system, of all its threads.
    pub(super) fn processor_time(&mut self, sample: Sample) -> Result<Duration, LabError> {
        let process = &mut self.appliances[sample as usize].process;
        process.check_alive()?;
        process_cpu_time(process.id())
            .map_err(LabError::io("read the processor time of an appliance"))
    }

    /// What an appliance has counted since its start.
    pub(super) fn report(&self, sample: Sample) -> Result<Report, LabError> {
        let statistics = &self.appliances[sample as usize].statistics;
        Report::read(statistics).map_err(|error| LabError::Statistics {
            whom: format!("the {sample}"),
            why: error.to_string(),
        })
    }
}

impl Appliance {
    fn start(sample: Sample, gateway: &Links, directory: &RunDirectory) -> Result<Self, LabError> {
        let netns = namespace()?;
        let links = Links::in_netns(&netns)?;
        let cable = sample.name();
        gateway.create_veth(cable, UNDERLAY, &netns)?;
        for (links, name) in [(gateway, cable), (&links, UNDERLAY)] {
            links.set_mtu(name, UNDERLAY_MTU)?;
            links.set_up(name)?;
        }
        let (here, there) = (sample.ip().into(), GATEWAY.into());
        links.add_address(UNDERLAY, here, 32)?;
        links.add_route(&Route::new(there, 32).device(UNDERLAY).source(here))?;
        gateway.add_route(&Route::new(here, 32).device(cable).source(there))?;

        let statistics = directory.path().join(format!("{cable}.sock"));
        let arguments = sample.arguments(directory, &statistics)?;
        let process = Process::start(cable, &netns, &arguments, directory.path(), Ending::AtOnce)?;
        Ok(Self { process, statistics, _netns: netns })
    }
}

impl Sample {
    /// In the order in which they are declared.
    const ALL: [Self; 4] =
        [Self::Passthrough, Self::PassthroughOnAllCores, Self::Firewall, Self::Ids];

    /// Where it takes Geneve.
    pub(super) fn address(self) -> SocketAddr {
        (self.ip(), geneve::PORT).into()
    }

    /// How many packet threads it has.
    pub(super) fn threads(self) -> usize {
        match self {
            Self::PassthroughOnAllCores => thread::available_parallelism().map_or(1, usize::from),
            Self::Passthrough | Self::Firewall | Self::Ids => 1,
        }
    }

    /// Short enough for the name of a device.
    fn name(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::PassthroughOnAllCores => "passthrough-all",
            Self::Firewall => "firewall",
            Self::Ids => "ids",
        }
    }

    fn ip(self) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, 11 + self as u8)
    }

    /// The arguments with which this program becomes the appliance, and the file that they name.
    fn arguments(
        self,
        directory: &RunDirectory,
        statistics: &Path,
    ) -> Result<Vec<OsString>, LabError> {
        let (command, file) = match self {
            Self::Passthrough | Self::PassthroughOnAllCores => ("passthrough", None),
            Self::Firewall => ("firewall", Some(("--rules", rules()))),
            Self::Ids => ("ids", Some(("--patterns", IDS_PATTERNS.to_owned()))),
        };
        let mut arguments: Vec<OsString> = ["appliance", command].map(OsString::from).into();
        if let Some((option, text)) = file {
            let path = directory.write(&format!("{command}.toml"), &text)?;
            arguments.extend([option.into(), path.into_os_string()]);
        }
        let listen = self.address().to_string();
        let threads = self.threads().to_string();
        arguments.extend(["--listen", &listen, "--threads", &threads].map(OsString::from));
        arguments.extend(["--health", "none", "--stats"].map(OsString::from));
        arguments.push(statistics.into());
        Ok(arguments)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passthrough => "pass-through",
            Self::PassthroughOnAllCores => "pass-through on all cores",
            Self::Firewall => "firewall",
            Self::Ids => "IDS",
        })
    }
}

/// A hundred rules, of which the last lets through what is sent.
fn rules() -> String {
    let inside = load::INSIDE;
    let mut text = format!("default = \"deny\"\ninside = [\"{inside}\"]\n");
    for number in 1..100 {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n[[rule]]\naction = \"deny\"\nprotocol = \"tcp\"\n\
             to = [\"198.18.{number}.0/24\"]\nports = [{number}]\n"
        );
    }
    text.push_str("\n[[rule]]\naction = \"allow\"\ndirection = \"outbound\"\n");
    text
}

/// The start of the names of namespaces and of the folder for files.
const NAME: &str = "gwlb-bench";

fn namespace() -> Result<ScratchNetns, LabError> {
    let netns = ScratchNetns::new(NAME)?;
    // Nothing but what is sent: no router to be looked for over IPv6.
    netns.set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
    Links::in_netns(&netns)?.set_up("lo")?;
    Ok(netns)
}
