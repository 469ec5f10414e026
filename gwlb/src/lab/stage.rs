//! The lab as it runs: namespaces, processes and machines, and what they counted.
//!
//! Everything ends when this is dropped, processes before namespaces.

use std::ffi::OsString;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use netio::netns::Netns;
use tokio::time::sleep;

use super::configuration::{self, ADMIN_SOCKET, CONFIGURATION, HEALTH_PORT};
use super::error::LabError;
use super::network::Network;
use super::plan::{ApplianceSpec, GATEWAY, Plan};
use super::process::{Ending, Process, RunDirectory};
use super::progress::Progress;
use super::statistics::{self, ApplianceReport, GatewayStatus};
use super::traffic::{self, Station};
use crate::runtime::clock;

/// How long packets may take to come to rest.
const REST_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at whether they have.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The running lab. Fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Stage {
    gateway: Process,
    appliances: Vec<Process>,
    /// The client in the internet.
    pub client: Station,
    /// In the order of the zones.
    pub servers: Vec<Station>,
    network: Network,
    directory: RunDirectory,
}

/// What everybody counted at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    pub gateway: GatewayStatus,
    /// In the order of the plan.
    pub appliances: Vec<ApplianceReport>,
}

impl Stage {
    /// Builds and starts everything; on failure nothing is left.
    /// `balancing` is what the gateway's file says of services, load balancers and targets.
    pub(super) async fn set(
        plan: &Plan,
        balancing: &str,
        progress: &mut Progress,
    ) -> Result<Self, LabError> {
        progress.doing("building the network");
        let directory = RunDirectory::create(&plan.prefix)?;
        let network = Network::build(plan)?;
        progress.done(format!(
            "{} network namespaces, named {}-*, and {} cables",
            network.names().len(),
            plan.prefix,
            plan.appliances.len(),
        ));

        let client = Station::start(&plan.client, network.get(plan.client.name)?)?;
        let servers = plan
            .servers()
            .map(|server| Station::start(&server, network.get(server.name)?))
            .collect::<Result<_, LabError>>()?;

        progress.doing("starting the appliances");
        let mut appliances = Vec::new();
        for appliance in &plan.appliances {
            appliances.push(start_appliance(plan, appliance, &network, &directory)?);
        }
        for (process, appliance) in appliances.iter_mut().zip(&plan.appliances) {
            wait_for_appliance(process, appliance, &network).await?;
        }
        progress.done(format!("appliances: {}", describe(&plan.appliances)));

        progress.doing("starting the gateway");
        let file = configuration::gateway(plan, balancing, directory.path());
        directory.write(CONFIGURATION, &file)?;
        let mut gateway = start_gateway(&network, &directory)?;
        wait_for_gateway(&mut gateway, &directory).await?;
        progress.done("gateway: devices, route tables and sockets are in place");
        Ok(Self { gateway, appliances, client, servers, network, directory })
    }

    /// Where the gateway's configuration is.
    pub(super) fn configuration(&self) -> PathBuf {
        self.directory.path().join(CONFIGURATION)
    }

    /// The namespace with this short name.
    pub(super) fn netns(&self, name: &str) -> Result<&Netns, LabError> {
        self.network.get(name)
    }

    /// Writes what the gateway's file says of services, load balancers and targets.
    pub(super) fn write_configuration(&self, plan: &Plan, text: &str) -> Result<(), LabError> {
        let file = configuration::gateway(plan, text, self.directory.path());
        self.directory.write(CONFIGURATION, &file).map(drop)
    }

    /// Where the files of this run are.
    pub(super) fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Where an appliance tells its statistics.
    pub(super) fn stats_socket(&self, appliance: &ApplianceSpec) -> PathBuf {
        configuration::stats_socket(&self.directory, appliance)
    }

    /// The process of an appliance, by its place in the plan.
    pub(super) fn appliance(&mut self, index: usize) -> &mut Process {
        &mut self.appliances[index]
    }

    /// Starts an appliance again that was killed.
    pub(super) async fn restart_appliance(
        &mut self,
        plan: &Plan,
        index: usize,
    ) -> Result<(), LabError> {
        let appliance = &plan.appliances[index];
        self.appliances[index] = start_appliance(plan, appliance, &self.network, &self.directory)?;
        wait_for_appliance(&mut self.appliances[index], appliance, &self.network).await
    }

    /// The gateway's process.
    pub(super) fn gateway(&mut self) -> &mut Process {
        &mut self.gateway
    }

    /// Starts the gateway again that was killed. `lose_secret`: as one that has lost its secret.
    pub(super) async fn restart_gateway(&mut self, lose_secret: bool) -> Result<(), LabError> {
        if lose_secret {
            let path = self.directory.path().join(configuration::SECRET);
            fs::remove_file(path).map_err(LabError::io("lose the secret"))?;
        }
        self.gateway = start_gateway(&self.network, &self.directory)?;
        wait_for_gateway(&mut self.gateway, &self.directory).await
    }

    /// Where the gateway's admin socket is.
    pub(super) fn admin_socket(&self) -> PathBuf {
        self.directory.path().join(ADMIN_SOCKET)
    }

    /// The short names of the namespaces.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &'static str> {
        self.network.names()
    }

    /// Name and number of every process.
    pub(super) fn processes(&self) -> impl Iterator<Item = (&str, u32)> {
        let all = [&self.gateway].into_iter().chain(&self.appliances);
        all.map(|process| (process.name(), process.id()))
    }

    /// An error if a process has ended that should run.
    pub(super) fn check_alive(&mut self) -> Result<(), LabError> {
        self.gateway.check_alive()?;
        self.appliances.iter_mut().try_for_each(Process::check_alive)
    }

    /// What the gateway has counted.
    pub(super) async fn gateway_counters(&mut self) -> Result<GatewayStatus, LabError> {
        self.gateway.check_alive()?;
        statistics::gateway(&self.admin_socket()).await.map_err(|error| LabError::Statistics {
            whom: "the gateway".to_owned(),
            why: error.to_string(),
        })
    }

    /// What everybody has counted, once no packet is under way any more; or what they have counted
    /// by the time that should have been so.
    pub(super) async fn counters_at_rest(&mut self, plan: &Plan) -> Result<Counters, LabError> {
        let until = clock::now() + REST_LIMIT;
        let mut before = self.counters(plan).await?;
        loop {
            sleep(LOOK_AGAIN).await;
            let now = self.counters(plan).await?;
            if now.packets() == before.packets() || clock::now() > until {
                return Ok(now);
            }
            before = now;
        }
    }

    /// What everybody has counted by now.
    pub(super) async fn counters(&mut self, plan: &Plan) -> Result<Counters, LabError> {
        self.check_alive()?;
        let mut appliances = Vec::new();
        for appliance in &plan.appliances {
            let socket = configuration::stats_socket(&self.directory, appliance);
            let status = statistics::appliance(socket).await;
            appliances.push(status.map_err(|error| LabError::Statistics {
                whom: appliance.name.to_owned(),
                why: error.to_string(),
            })?);
        }
        Ok(Counters { gateway: self.gateway_counters().await?, appliances })
    }
}

impl Counters {
    /// A sum that stands still when nothing moves.
    fn packets(&self) -> u64 {
        let gateway = self.gateway.tun.received + self.gateway.udp.received;
        let appliances = self.appliances.iter().map(|appliance| appliance.packets);
        gateway + appliances.sum::<u64>()
    }
}

fn start_gateway(network: &Network, directory: &RunDirectory) -> Result<Process, LabError> {
    let file = directory.path().join(CONFIGURATION);
    let arguments = [OsString::from("run"), file.into_os_string()];
    let netns = network.get(GATEWAY)?;
    Process::start("gateway", netns, &arguments, directory.path(), Ending::InOrder)
}

async fn wait_for_gateway(gateway: &mut Process, directory: &RunDirectory) -> Result<(), LabError> {
    let socket = directory.path().join(ADMIN_SOCKET);
    let ask = async || match statistics::gateway(&socket).await {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("its admin socket: {error}")),
    };
    gateway.wait_ready(ask).await
}

async fn wait_for_appliance(
    process: &mut Process,
    appliance: &ApplianceSpec,
    network: &Network,
) -> Result<(), LabError> {
    let health = SocketAddr::from((appliance.address, HEALTH_PORT));
    let underlay = network.get(GATEWAY)?;
    let connect = async || {
        let connect = move || TcpStream::connect_timeout(&health, traffic::PATIENCE);
        let connected = traffic::inside(underlay, connect).await;
        let flat = connected.map_err(|error| error.to_string())?;
        flat.map(drop).map_err(|error| format!("its health port {health}: {error}"))
    };
    process.wait_ready(connect).await
}

fn start_appliance(
    plan: &Plan,
    appliance: &ApplianceSpec,
    network: &Network,
    directory: &RunDirectory,
) -> Result<Process, LabError> {
    let arguments = configuration::appliance(plan, appliance, directory)?;
    let netns = network.get(appliance.name)?;
    // Nothing of an appliance outlives its process, so there is nothing to wait for at its end.
    Process::start(appliance.name, netns, &arguments, directory.path(), Ending::AtOnce)
}

fn describe(appliances: &[ApplianceSpec]) -> String {
    let each = appliances.iter().map(|a| format!("{} ({}, {})", a.name, a.kind, a.zone));
    each.collect::<Vec<_>>().join(", ")
}
