//! All set-ups as they stand: namespaces, processes, forwarders.
//!
//! Everything ends when this is dropped, processes before namespaces.

use std::thread::available_parallelism;

use netio::link::Links;

use super::super::error::BenchError;
use super::super::progress::Progress;
use super::Part;
use super::forwarder::Forwarder;
use super::gateway::{Gateway, Options};
use super::measure::Plan;
use super::network::{Detour, Ends, Network};
use super::setup::Setup;
use super::watched::Watched;
use crate::lab::error::LabError;
use crate::lab::process::RunDirectory;

/// What the gateway remembers that is flooded. Its table is full after some seconds, and before
/// that it takes no more than these in a second, so that floods need not be large: what they cost
/// beyond that is the sender's work, which this machine has to do as well.
pub(super) const FLOODED: Options = Options {
    flows: Some(16_384),
    new_flows_per_second: Some(FLOODED_NEW_FLOWS),
    kept: None,
    big_tcp: false,
};
/// New flows of each of its workers in a second.
pub(super) const FLOODED_NEW_FLOWS: u32 = 4000;

/// A client and a server, and the gateway between them, where there is one.
pub(super) type Path<'a> = (Ends, Option<&'a mut Gateway>);

/// The running set-ups. Fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Stage {
    gateways: Vec<(Setup, Gateway)>,
    /// Another one, of which little is measured: its table is small and is filled.
    flooded: Option<(Gateway, Ends)>,
    watched: Option<Watched>,
    _forwarders: Vec<Forwarder>,
    ends: Vec<(Setup, Ends)>,
    /// Where the hairpin's appliance counts what it forwards.
    hairpin: Option<Links>,
    _network: Network,
    directory: RunDirectory,
}

impl Stage {
    /// Builds and starts all that the plan needs; on failure nothing is left.
    pub(super) async fn set(plan: &Plan, progress: &Progress) -> Result<Self, BenchError> {
        progress.doing("building the networks");
        let directory = RunDirectory::create(&plan.prefix)?;
        let mut network = Network::new(plan.prefix.clone());
        let (mut ends, mut forwarders, mut gateways) = (Vec::new(), Vec::new(), Vec::new());
        let (mut hairpin, mut flooded) = (None, None);
        let workers = available_parallelism().map_or(1, std::num::NonZero::get);
        for &setup in &plan.setups {
            let name = setup.name();
            let its = match setup {
                Setup::Gateway | Setup::Gateway64k => {
                    let detour = network.gateway(name)?;
                    let takes = netio::tun::takes_big_tcp();
                    let takes = takes.map_err(LabError::io("ask for the kernel's version"))?;
                    let big_tcp = takes && setup == Setup::Gateway;
                    let options = Options { big_tcp, ..Options::default() };
                    let gateway = Gateway::start(name, &detour, options, &directory).await?;
                    gateways.push((setup, gateway));
                    detour.ends
                }
                Setup::Hairpin => {
                    let Detour { ends, appliance, .. } = network.hairpin(name)?;
                    hairpin = Some(Links::in_netns(&appliance).map_err(LabError::from)?);
                    ends
                }
                Setup::Kernel => network.kernel(name)?,
                Setup::Tun | Setup::TunOffload => {
                    let ends = network.ends(name)?;
                    let offload = setup == Setup::TunOffload;
                    forwarders.push(Forwarder::start(&ends, offload, workers)?);
                    ends
                }
            };
            ends.push((setup, its));
        }
        if plan.measures(Part::Flood) {
            let detour = network.gateway("flooded")?;
            let its = Gateway::start("flooded", &detour, FLOODED, &directory).await?;
            flooded = Some((its, detour.ends));
        }
        let watched = if plan.measures(Part::Observability) {
            Some(Watched::build(&mut network)?)
        } else {
            None
        };
        Ok(Self {
            gateways,
            flooded,
            watched,
            _forwarders: forwarders,
            ends,
            hairpin,
            _network: network,
            directory,
        })
    }

    /// The client and the server of a set-up of the plan.
    pub(super) fn ends(&self, setup: Setup) -> Result<Ends, BenchError> {
        let found = self.ends.iter().find(|(of, _)| *of == setup);
        let none = || BenchError::Wrong(format!("{} was not built", setup.name()));
        found.map(|(_, ends)| ends.clone()).ok_or_else(none)
    }

    /// A set-up of the plan.
    pub(super) fn path(&mut self, setup: Setup) -> Result<Path<'_>, BenchError> {
        let ends = self.ends(setup)?;
        Ok((ends, self.gateway(setup)))
    }

    fn gateway(&mut self, setup: Setup) -> Option<&mut Gateway> {
        self.gateways.iter_mut().find(|(of, _)| *of == setup).map(|(_, gateway)| gateway)
    }

    /// The gateway that is flooded, with its client and server.
    pub(super) fn flooded(&mut self) -> Option<(&mut Gateway, Ends)> {
        self.flooded.as_mut().map(|(gateway, ends)| (gateway, ends.clone()))
    }

    /// The two gateways of which one is looked at, and where their files are.
    pub(super) fn watched(&mut self) -> Option<(&mut Watched, &RunDirectory)> {
        self.watched.as_mut().map(|watched| (watched, &self.directory))
    }

    /// Bytes that came back from the set-up's appliance so far, in either direction; `None` where
    /// there is no appliance.
    pub(super) async fn inspected(&mut self, setup: Setup) -> Result<Option<u64>, BenchError> {
        if let (Setup::Hairpin, Some(links)) = (setup, &self.hairpin) {
            return Ok(Some(links.statistics("vxlan").map_err(LabError::from)?.tx_bytes));
        }
        let Some(gateway) = self.gateway(setup) else { return Ok(None) };
        let status = gateway.status().await?;
        Ok(Some(status.targets.iter().map(|target| target.returned_bytes).sum()))
    }
}

impl From<LabError> for BenchError {
    fn from(error: LabError) -> Self {
        match error {
            LabError::Interrupted => Self::Interrupted,
            error => Self::Wrong(error.to_string()),
        }
    }
}
