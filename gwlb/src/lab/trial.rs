//! The trial: traffic through the running lab, step by step, and a judgement of each step.
//!
//! Every step is observed through the gateway's counters, so that a failure says more than
//! "timed out". What must hold over all of it is judged at the end ([`super::ledger`]).

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use super::diagnosis;
use super::error::LabError;
use super::ledger;
use super::plan::{DENIED_PORT, Family, Host, Plan};
use super::progress::Progress;
use super::stage::{Counters, Stage};
use super::statistics::GatewayStatus;
use super::traffic::http::Greeting;
use super::traffic::{self, Station, bulk, http, ping, udp};

/// Between two looks at a transfer.
const TICK: Duration = Duration::from_millis(100);

/// One thing that was checked.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    /// `what/where/family`
    pub name: String,
    /// Whether it held.
    pub ok: bool,
    /// Whether it was tried; not so after a failure that it would only repeat.
    pub tried: bool,
    /// What was found; if it did not hold, with the cause as far as it is known.
    pub detail: String,
}

impl Check {
    pub(super) fn held(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), ok: true, tried: true, detail: detail.into() }
    }

    pub(super) fn failed(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), ok: false, tried: true, detail: detail.into() }
    }
}

/// Much data in one connection.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Transfer {
    pub from: &'static str,
    pub to: &'static str,
    pub family: String,
    pub bytes: u64,
    pub seconds: f64,
    pub gbit_per_second: f64,
    /// Packets that entered the gateway from the networks meanwhile, both ways.
    pub packets: u64,
    /// System calls of the gateway meanwhile.
    pub syscalls: u64,
    pub syscalls_per_packet: f64,
    /// The appliance that carried it.
    pub via: String,
    /// Whether what arrived is what was sent.
    pub identical: bool,
}

/// What a trial found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub checks: Vec<Check>,
    pub transfers: Vec<Transfer>,
    pub counters: Counters,
}

/// Runs all of it. A check that fails does not end it; a lab that breaks does.
pub(super) async fn run(
    plan: &Plan,
    stage: &mut Stage,
    progress: &mut Progress,
    bytes: u64,
) -> Result<Findings, LabError> {
    let findings = Findings::default();
    let mut trial =
        Trial { plan, stage, progress, bytes, findings, hopeless: Vec::new(), denied_flows: 0 };
    trial.routes();
    trial.http().await?;
    trial.datagrams().await?;
    trial.denied_port().await?;
    trial.transfers().await?;
    trial.progress.doing("waiting for the last packets");
    let counters = trial.stage.counters_at_rest(plan).await?;
    trial.findings.checks.extend(ledger::judge(plan, &counters, trial.denied_flows));
    trial.findings.counters = counters;
    trial.progress.done(format!("{} checks made", trial.findings.checks.len()));
    Ok(trial.findings)
}

struct Trial<'a> {
    plan: &'a Plan,
    stage: &'a mut Stage,
    progress: &'a mut Progress,
    bytes: u64,
    findings: Findings,
    /// What need not be tried again: waiting for the same silence would teach nothing.
    hopeless: Vec<Hopeless>,
    /// Flows that the firewall was to keep: each attempt at the denied port is one.
    denied_flows: u64,
}

impl Trial<'_> {
    /// Looks the routes up, without a packet.
    fn routes(&mut self) {
        let checks = diagnosis::routes(self.plan, &self.stage.configuration());
        self.findings.checks.extend(checks);
    }

    /// The web, in from the internet to each server and out from each server.
    async fn http(&mut self) -> Result<(), LabError> {
        let client = self.plan.client;
        for (number, family) in self.paths() {
            let server = self.server(number);
            for (kind, from, to) in [("http-in", client, server), ("http-out", server, client)] {
                let name = check_name(kind, server.name, family);
                let Some(before) = self.begin(&name, server.name).await? else { continue };
                let target = SocketAddr::new(to.public_address(family), http::PORT);
                let answer = self.station(from.name).run(move || http::ask(target)).await?;
                let seen_as = from.public_address(family);
                let expected = Greeting { server: to.name.to_owned(), client: seen_as };
                let result = match answer {
                    Ok(found) if found == expected => {
                        Ok(format!("{} answered {}, and saw its address", to.name, from.name))
                    }
                    Ok(found) => Err(Failure::wrong(format!(
                        "{} answered {}, but saw {} in place of {}",
                        found.server, from.name, found.client, expected.client
                    ))),
                    Err(error @ http::AskError::Connect(_)) => {
                        Err(Failure::silence(format!("HTTP to {target}: {error}")))
                    }
                    Err(error) => {
                        let what = format!("HTTP to {target}: {error}");
                        Err(Failure { what, extent: Extent::Kind })
                    }
                };
                self.judge(name, server.name, &before, result).await?;
            }
        }
        self.progress.done("HTTP from the internet to each server, and out from each server");
        Ok(())
    }

    /// UDP and ping.
    async fn datagrams(&mut self) -> Result<(), LabError> {
        for (number, family) in self.paths() {
            let server = self.server(number);
            let address = server.public_address(family);
            let to = SocketAddr::new(address, udp::PORT);
            let echo = move || udp::echo(to);
            self.count("udp", server, family, "datagrams came back", echo).await?;
            let ping = move || ping::ping(address);
            self.count("ping", server, family, "echo requests were answered", ping).await?;
        }
        self.progress.done("UDP of all sizes, and ping");
        Ok(())
    }

    /// A step whose outcome is so many of so many, from the client to `server`.
    async fn count(
        &mut self,
        kind: &str,
        server: Host,
        family: Family,
        what: &str,
        work: impl FnOnce() -> io::Result<(usize, usize)> + Send + 'static,
    ) -> Result<(), LabError> {
        let name = check_name(kind, server.name, family);
        let Some(before) = self.begin(&name, server.name).await? else { return Ok(()) };
        let result = match self.stage.client.run(work).await? {
            Ok((good, all)) if good == all => Ok(format!("{good} of {all} {what}")),
            Ok((good, all)) => Err(Failure::silence(format!("only {good} of {all} {what}"))),
            Err(error) => Err(Failure::silence(error)),
        };
        self.judge(name, server.name, &before, result).await
    }

    /// The port that the firewall in front of the first server denies; and the same port of the
    /// second one, which has no firewall, so that the silence proves something.
    async fn denied_port(&mut self) -> Result<(), LabError> {
        for (number, family) in self.paths() {
            let server = self.server(number);
            let has_firewall = number == 0;
            let kind = if has_firewall { "port-denied" } else { "port-open" };
            let name = check_name(kind, server.name, family);
            let Some(before) = self.begin(&name, server.name).await? else { continue };
            let to = SocketAddr::new(server.public_address(family), DENIED_PORT);
            let attempt = move || traffic::connect(to, traffic::PATIENCE).map(drop);
            let connected = self.stage.client.run(attempt).await?;
            let reached = self.station(server.name).denied_port_reached();
            self.denied_flows += u64::from(has_firewall);
            let result = match (has_firewall, connected) {
                (true, Err(error)) if reached == 0 && is_refusal(&error) => {
                    Ok(format!("the firewall refused the connection to {to}"))
                }
                (true, Err(error)) if reached == 0 => {
                    Err(Failure::silence(format!("{to} was not refused, but: {error}")))
                }
                (true, _) => Err(Failure::wrong(format!(
                    "the firewall let a connection to {to} pass, which its rules deny"
                ))),
                (false, Ok(())) => Ok(format!("{to}, behind no firewall, was reached")),
                (false, Err(error)) => Err(Failure::wrong(format!("{to}: {error}"))),
            };
            self.judge(name, server.name, &before, result).await?;
        }
        self.progress.done(format!("port {DENIED_PORT}, which the firewall denies"));
        Ok(())
    }

    /// Much data, to each server and from each.
    async fn transfers(&mut self) -> Result<(), LabError> {
        let client = self.plan.client;
        for (number, family) in self.paths() {
            let server = self.server(number);
            for (kind, from, to) in [("bulk-in", client, server), ("bulk-out", server, client)] {
                let name = check_name(kind, server.name, family);
                let Some(before) = self.begin(&name, server.name).await? else { continue };
                let sent = self.transfer(from, to, family).await?;
                let after = self.stage.gateway_counters().await?.since(&before.gateway);
                let via = diagnosis::carrier(self.plan, &after);
                let result = match sent {
                    Ok(sent) => Ok(self.record(from, to, family, sent, &after, via)),
                    Err(error) => Err(Failure::silence(error)),
                };
                let result = result.and_then(|(line, identical)| {
                    let changed = "what arrived is not what was sent: the data was changed on its";
                    let failure = || Failure::wrong(format!("{changed} way through {via}"));
                    identical.then_some(line).ok_or_else(failure)
                });
                self.judge(name, server.name, &before, result).await?;
            }
        }
        Ok(())
    }

    async fn transfer(
        &mut self,
        from: Host,
        to: Host,
        family: Family,
    ) -> Result<io::Result<bulk::Sent>, LabError> {
        let target = SocketAddr::new(to.public_address(family), bulk::PORT);
        let (bytes, seed) = (self.bytes, self.findings.transfers.len() as u64);
        let progress = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&progress);
        let work = self.station(from.name).run(move || bulk::send(target, bytes, seed, &count));
        tokio::pin!(work);
        loop {
            tokio::select! {
                sent = &mut work => return sent,
                () = tokio::time::sleep(TICK) => {
                    let (done, all) = (progress.load(Ordering::Relaxed) >> 20, bytes >> 20);
                    let line = format!("{} to {}, {family}: {done} of {all} MiB", from.name, to.name);
                    self.progress.doing(line);
                }
            }
        }
    }

    /// Notes a transfer; the line about it, and whether the data arrived as it was.
    fn record(
        &mut self,
        from: Host,
        to: Host,
        family: Family,
        sent: bulk::Sent,
        counted: &GatewayStatus,
        via: &'static str,
    ) -> (String, bool) {
        let seconds = sent.duration.as_secs_f64();
        let (packets, syscalls) = (counted.tun.received, counted.io.syscalls);
        let transfer = Transfer {
            from: from.name,
            to: to.name,
            family: family.to_string(),
            bytes: self.bytes,
            seconds,
            gbit_per_second: self.bytes as f64 * 8.0 / seconds / 1e9,
            packets,
            syscalls,
            syscalls_per_packet: counted.syscalls_per_packet(),
            via: via.to_owned(),
            identical: sent.identical,
        };
        let line = format!(
            "{} MiB {} to {}, {family}: {:.2} Gbit/s through {via}, {:.3} system calls for each packet taken in",
            self.bytes >> 20,
            from.name,
            to.name,
            transfer.gbit_per_second,
            transfer.syscalls_per_packet,
        );
        self.findings.transfers.push(transfer);
        self.progress.done(line.clone());
        (line, sent.identical)
    }

    /// The counters before a step; `None`, and a failed check, where a step cannot succeed.
    async fn begin(&mut self, name: &str, server: &str) -> Result<Option<Counters>, LabError> {
        let hopeless = self.hopeless.iter().find(|hopeless| hopeless.covers(name, server));
        if let Some(Hopeless { since, .. }) = hopeless {
            let detail = format!("not tried, since {since} failed");
            let check = Check { name: name.to_owned(), ok: false, tried: false, detail };
            self.findings.checks.push(check);
            return Ok(None);
        }
        self.progress.doing(name);
        self.stage.counters(self.plan).await.map(Some)
    }

    async fn judge(
        &mut self,
        name: String,
        server: &'static str,
        before: &Counters,
        result: Result<String, Failure>,
    ) -> Result<(), LabError> {
        let check = match result {
            Ok(detail) => Check::held(name, detail),
            Err(failure) => {
                let after = self.stage.counters(self.plan).await?;
                let silent = failure.extent == Extent::Server;
                let causes = [
                    silent.then(|| diagnosis::silence(self.plan, before, &after)).flatten(),
                    diagnosis::rewriting(self.plan, before, &after),
                ];
                let parts = [Some(failure.what)].into_iter().chain(causes);
                let detail = parts.flatten().collect::<Vec<_>>().join("; ");
                if failure.extent != Extent::Step {
                    let (extent, since) = (failure.extent, name.clone());
                    self.hopeless.push(Hopeless { server, extent, since });
                }
                self.progress.done(format!("FAILED {name}: {detail}"));
                Check::failed(name, detail)
            }
        };
        self.findings.checks.push(check);
        Ok(())
    }

    /// Every server, by the number of its zone, with every family.
    fn paths(&self) -> Vec<(usize, Family)> {
        let numbers = 0..self.plan.zones.len();
        numbers.flat_map(|number| Family::BOTH.map(|family| (number, family))).collect()
    }

    fn server(&self, number: usize) -> Host {
        self.plan.zones[number].server
    }

    /// The machine of that name.
    fn station(&self, name: &str) -> &Station {
        let number = self.plan.servers().position(|server| server.name == name);
        number.map_or(&self.stage.client, |number| &self.stage.servers[number])
    }
}

/// Why a step failed.
struct Failure {
    what: String,
    extent: Extent,
}

/// What a failure says about other steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// Nothing.
    Step,
    /// Steps of the same kind (up to the first `-` or `/` of the name) with the same server would
    /// fail too.
    Kind,
    /// Something did not come: whatever needs the same server would wait in vain. The counters
    /// may tell why.
    Server,
}

impl Failure {
    fn silence(what: impl Display) -> Self {
        Self { what: what.to_string(), extent: Extent::Server }
    }

    fn wrong(what: String) -> Self {
        Self { what, extent: Extent::Step }
    }
}

/// What need not be tried any more.
struct Hopeless {
    server: &'static str,
    extent: Extent,
    /// The name of the check that failed first.
    since: String,
}

impl Hopeless {
    fn covers(&self, name: &str, server: &str) -> bool {
        let kind = |name: &str| name.split(['-', '/']).next().map(str::to_owned);
        self.server == server && (self.extent == Extent::Server || kind(name) == kind(&self.since))
    }
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

fn check_name(kind: &str, server: &str, family: Family) -> String {
    format!("{kind}/{server}/{}", family.to_string().to_lowercase())
}
