//! The gateway that is measured: a process of its own with a pass-through appliance, as a user
//! would run them.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use super::network::{APPLIANCE, CLIENT, Detour, MTU, NODE, SERVER};
use crate::lab::error::LabError;
use crate::lab::process::{Ending, Process, RunDirectory};
use crate::lab::statistics::{self, GatewayStatus};
use crate::lab::traffic;

/// Where the appliance answers health checks.
const HEALTH_PORT: u16 = 80;

/// A running gateway with its appliance. Dropping it ends both.
#[derive(Debug)]
pub(super) struct Gateway {
    process: Process,
    appliance: Process,
    socket: PathBuf,
}

/// What its configuration says besides; `None` leaves the defaults.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    /// Flows that each worker remembers at most.
    pub flows: Option<u32>,
    /// New flows of each worker in a second.
    pub new_flows_per_second: Option<u32>,
    /// How much it keeps to be looked at.
    pub kept: Option<Kept>,
    /// Whether its devices take TCP beyond 64 KiB.
    pub big_tcp: bool,
}

/// How much a gateway keeps to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// The counters that it cannot be without.
    Counters,
    /// All that it can keep all the time: records of flows, and a flow log of all of them, of which
    /// a window ends each second.
    Everything,
}

impl Options {
    /// Lines of `[gateway]`.
    fn gateway(self) -> String {
        let limit = |key: &str, value: Option<u32>| {
            value.map_or(String::new(), |value| format!("{key}_per_worker = {value}\n"))
        };
        let records = match self.kept {
            None => "",
            Some(Kept::Counters) => "flow_records = false\n",
            Some(Kept::Everything) => "flow_records = true\n",
        };
        let flows = limit("max_flows", self.flows);
        flows + &limit("max_new_flows_per_second", self.new_flows_per_second) + records
    }

    /// Lines of each `[[attachment]]`.
    fn attachment(self) -> &'static str {
        if self.big_tcp { "big_tcp = true\n" } else { "" }
    }

    /// Further tables; what is written goes below `directory`.
    fn tables(self, setup: &str, directory: &Path) -> String {
        if self.kept != Some(Kept::Everything) {
            return String::new();
        }
        let file = quoted(&directory.join(format!("{setup}.flows")).to_string_lossy());
        format!(
            r#"
[[flow_log]]
name = "everything"
destination = {file}
max_aggregation_interval_seconds = 1
extended_ranges = true
"#
        )
    }
}

/// As TOML has it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Gateway {
    /// Starts both, and waits until packets can flow. `setup` is what their files are called by.
    pub(super) async fn start(
        setup: &str,
        detour: &Detour,
        options: Options,
        directory: &RunDirectory,
    ) -> Result<Self, LabError> {
        let health = SocketAddr::from((APPLIANCE, HEALTH_PORT));
        let arguments = ["appliance", "passthrough", "--listen"].map(OsString::from).into_iter();
        let listen = SocketAddr::from((APPLIANCE, geneve::PORT)).to_string();
        let arguments: Vec<_> = arguments
            .chain([listen, "--health".into(), health.to_string()].map(Into::into))
            .collect();
        let name = format!("{setup}-appliance");
        let at = directory.path();
        let mut appliance =
            Process::start(&name, &detour.appliance, &arguments, at, Ending::AtOnce)?;
        let answers = async || {
            let connect = move || TcpStream::connect_timeout(&health, traffic::PATIENCE);
            let connected = traffic::inside(&detour.node, connect).await;
            let connected = connected.map_err(|error| error.to_string())?;
            connected.map(drop).map_err(|error| format!("its health port {health}: {error}"))
        };
        appliance.wait_ready(answers).await?;

        let socket = at.join(format!("{setup}.sock"));
        let text = configuration(setup, detour, options, at, &socket);
        let file = directory.write(&format!("{setup}.toml"), &text)?;
        let arguments = [OsString::from("run"), file.into_os_string()];
        let mut process = Process::start(setup, &detour.node, &arguments, at, Ending::InOrder)?;
        let healthy = async || match statistics::gateway(&socket).await {
            Ok(status) if status.targets.iter().all(|target| target.state == "healthy") => Ok(()),
            Ok(_) => Err("its target is not healthy yet".to_owned()),
            Err(error) => Err(format!("its admin socket: {error}")),
        };
        process.wait_ready(healthy).await?;
        Ok(Self { process, appliance, socket })
    }

    /// Where it is asked.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it has counted.
    pub(super) async fn status(&mut self) -> Result<GatewayStatus, LabError> {
        self.process.check_alive()?;
        self.appliance.check_alive()?;
        statistics::gateway(&self.socket).await.map_err(|error| LabError::Statistics {
            whom: "the gateway".to_owned(),
            why: error.to_string(),
        })
    }
}

/// The name of the file with its secret.
pub(super) fn secret_file(setup: &str) -> String {
    format!("{setup}.secret")
}

/// What a user would write who has everything between an internet gateway and one subnet inspected.
fn configuration(
    setup: &str,
    detour: &Detour,
    options: Options,
    directory: &Path,
    socket: &Path,
) -> String {
    let path = |path: &Path| quoted(&path.to_string_lossy());
    let secret = directory.join(secret_file(setup));
    let ((client, client_prefix), (server, server_prefix)) = (CLIENT, SERVER);
    format!(
        r#"# A network of `gwlb bench path`.

[gateway]
secret_file = {secret}
admin = {admin}
{of_gateway}
[[vpc]]
name = "app"
cidrs = ["10.0.0.0/16"]

[[internet_gateway]]
name = "igw"
vpc = "app"
route_table = "igw"

[[route_table]]
name = "igw"
vpc = "app"
routes = [{{ destination = "10.0.1.0/24", endpoint = "vpce" }}]

[[subnet]]
name = "app"
vpc = "app"
zone = "az1"
cidrs = ["10.0.1.0/24"]
route_table = "app"

[[subnet]]
name = "gwlbe"
vpc = "app"
zone = "az1"
cidrs = ["10.0.101.0/28"]
route_table = "gwlbe"

[[route_table]]
name = "app"
vpc = "app"
routes = [{{ destination = "0.0.0.0/0", endpoint = "vpce" }}]

[[route_table]]
name = "gwlbe"
vpc = "app"
routes = [{{ destination = "0.0.0.0/0", internet_gateway = "igw" }}]

[[endpoint]]
name = "vpce"
subnet = "gwlbe"
service = "inspection"

[[endpoint_service]]
name = "inspection"
load_balancers = ["nva"]

[[load_balancer]]
name = "nva"
target_group = "nva"
nodes = [{{ zone = "az1", address = "{NODE}" }}]
netns = {node}

[[target_group]]
name = "nva"

[[target]]
group = "nva"
address = "{APPLIANCE}"
zone = "az1"

[[attachment]]
internet_gateway = "igw"
tun = "client"
netns = {client_netns}
mtu = {MTU}
addresses = ["{client}/{client_prefix}"]
default_route = true
{of_attachment}
[[attachment]]
subnet = "app"
tun = "server"
netns = {server_netns}
mtu = {MTU}
addresses = ["{server}/{server_prefix}"]
default_route = true
{of_attachment}{tables}"#,
        secret = path(&secret),
        admin = path(socket),
        of_gateway = options.gateway(),
        of_attachment = options.attachment(),
        tables = options.tables(setup, directory),
        node = quoted(detour.node.name()),
        client_netns = quoted(detour.ends.client.name()),
        server_netns = quoted(detour.ends.server.name()),
    )
}

#[cfg(test)]
mod tests {
    use netio::netns::Netns;

    use super::super::network::Ends;
    use super::*;

    #[test]
    fn the_gateway_takes_its_file() {
        let here = || Netns::current().unwrap();
        let ends = Ends { client: here(), server: here() };
        let detour = Detour { ends, node: here(), appliance: here() };
        let kept = [None, Some(Kept::Counters), Some(Kept::Everything)];
        let options = kept.map(|kept| Options {
            flows: Some(4096),
            new_flows_per_second: Some(500),
            kept,
            big_tcp: kept.is_some(),
        });
        let (directory, socket) = (Path::new("/tmp/x"), Path::new("/tmp/x/gateway.sock"));
        for options in options {
            let text = configuration("gateway", &detour, options, directory, socket);
            // They are three namespaces, and none that a file may name is called as this one is.
            let names = ["node", "client", "server"].into_iter();
            let text = names.fold(text, |text, name| text.replacen("(current)", name, 1));
            let source = router::source::Source::new("gateway.toml", text);
            let settings = crate::config::parse(&source).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(settings.attachments.len(), 2);
            assert!(settings.attachments.iter().all(|it| it.big_tcp == options.big_tcp));
            assert_eq!(settings.notes.len(), 0, "{:?}", settings.notes);
        }
    }
}
