//! The files that the lab's processes read: the gateway's configuration and the firewall's rules.
//!
//! They are what a user would write by hand; `--keep` leaves them for reading.

use std::ffi::OsString;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::error::LabError;
use super::failover::load;
use super::plan::{
    ApplianceKind, ApplianceSpec, DENIED_PORT, GATEWAY, Host, INNER_MTU, Plan, Sabotage, VPC_CIDRS,
    Zone,
};
use super::process::RunDirectory;
use super::traffic::{bulk, http, udp};

/// The gateway's configuration file.
///
/// `directory` is where the secret and the admin socket go; `balancing` is the part from the
/// endpoint services to the targets.
pub(super) fn gateway(plan: &Plan, balancing: &str, directory: &Path) -> String {
    let mut text = String::from("# The network of `gwlb demo`.\n\n[gateway]\n");
    let path = |name| toml_string(&directory.join(name).to_string_lossy());
    line(&mut text, format_args!("secret_file = {}", path(SECRET)));
    line(&mut text, format_args!("admin = {}\n", path(ADMIN_SOCKET)));

    let [v4, v6] = VPC_CIDRS;
    line(&mut text, format_args!("[[vpc]]\nname = \"app\"\ncidrs = [\"{v4}\", \"{v6}\"]\n"));
    gateway_table(&mut text, plan);
    for zone in &plan.zones {
        let wrong = plan.sabotage == Some(Sabotage::WrongRoute) && zone.name == "az1";
        zone_tables(&mut text, zone, wrong);
    }
    text.push_str(balancing);

    let client = &plan.client;
    attachment(&mut text, plan, "internet_gateway = \"igw\"", client);
    for server in plan.servers() {
        attachment(&mut text, plan, &format!("subnet = \"{}\"", server.name), &server);
    }
    text
}

/// The arguments with which this program becomes an appliance of the plan, and the files that they
/// name.
pub(super) fn appliance(
    plan: &Plan,
    appliance: &ApplianceSpec,
    directory: &RunDirectory,
) -> Result<Vec<OsString>, LabError> {
    let fault = match plan.sabotage {
        Some(Sabotage::Silent) if appliance.zone == "az1" => Some("silent"),
        Some(Sabotage::Rewrite) if appliance.zone == "az2" => Some("rewrite"),
        _ => None,
    };
    let mut arguments: Vec<OsString> = vec!["appliance".into()];
    if let Some(fault) = fault {
        arguments.extend(["passthrough", "--fault", fault].map(OsString::from));
    } else {
        arguments.push(appliance.kind.command().into());
        let file = match appliance.kind {
            ApplianceKind::Firewall | ApplianceKind::StrictFirewall => {
                Some(("--rules", firewall_rules()))
            }
            ApplianceKind::PickUpFirewall => {
                Some(("--rules", format!("pick_up = true\n{}", firewall_rules())))
            }
            ApplianceKind::Ids => Some(("--patterns", IDS_PATTERNS.to_owned())),
            ApplianceKind::Passthrough => None,
        };
        if let Some((option, text)) = file {
            // A file for each: another one may be reading its own while this one is written.
            let path = directory.write(&format!("{}.toml", appliance.name), &text)?;
            arguments.extend([option.into(), path.into_os_string()]);
        }
    }
    for (option, port) in [("--listen", geneve::PORT), ("--health", HEALTH_PORT)] {
        let address = SocketAddr::from((appliance.address, port));
        arguments.extend([option.into(), address.to_string().into()]);
    }
    arguments.extend(["--stats".into(), stats_socket(directory, appliance).into_os_string()]);
    Ok(arguments)
}

/// The firewall lets in what the servers offer, and out what they ask for; all else is refused.
fn firewall_rules() -> String {
    let [v4, v6] = VPC_CIDRS;
    format!(
        "default = \"deny\"\n\
         deny_by = \"reject\"\n\
         inside = [\"{v4}\", \"{v6}\"]\n\
         \n\
         [[rule]]\n\
         name = \"{DENIED_RULE}\"\n\
         action = \"deny\"\n\
         direction = \"inbound\"\n\
         protocol = \"tcp\"\n\
         ports = [{DENIED_PORT}]\n\
         \n\
         [[rule]]\n\
         name = \"web, bulk data and records\"\n\
         action = \"allow\"\n\
         direction = \"inbound\"\n\
         protocol = \"tcp\"\n\
         ports = [{}, {}, {}]\n\
         \n\
         [[rule]]\n\
         name = \"echo\"\n\
         action = \"allow\"\n\
         direction = \"inbound\"\n\
         protocol = \"udp\"\n\
         ports = [{}]\n\
         \n\
         [[rule]]\n\
         name = \"ping\"\n\
         action = \"allow\"\n\
         protocol = \"icmp\"\n\
         \n\
         [[rule]]\n\
         name = \"ping over IPv6\"\n\
         action = \"allow\"\n\
         protocol = \"icmpv6\"\n\
         \n\
         [[rule]]\n\
         name = \"egress\"\n\
         action = \"allow\"\n\
         direction = \"outbound\"\n",
        http::PORT,
        bulk::PORT,
        load::PORT,
        udp::PORT,
    )
}

/// The name of the rule that denies [`DENIED_PORT`].
pub(super) const DENIED_RULE: &str = "the denied port";

/// What the IDS looks for. Nothing in the traffic of the lab or of benchmarks is any of it.
pub(crate) const IDS_PATTERNS: &str = r#"[[pattern]]
name = "path traversal"
text = "../../etc/passwd"
action = "block"

[[pattern]]
name = "shell upload"
text = "<?php system("
ignore_case = true
action = "block"
"#;

/// The port on which appliances answer health checks.
pub(super) const HEALTH_PORT: u16 = 80;

/// Where an appliance shows its statistics.
pub(super) fn stats_socket(directory: &RunDirectory, appliance: &ApplianceSpec) -> PathBuf {
    directory.path().join(format!("{}.sock", appliance.name))
}

/// The name of the gateway's file in the run's directory.
pub(super) const CONFIGURATION: &str = "gwlb.toml";

/// The name of the gateway's secret there.
pub(super) const SECRET: &str = "secret";

/// The name of the admin API's socket in the run's directory.
pub(super) const ADMIN_SOCKET: &str = "admin.sock";

/// The internet gateway and its table: the way in leads through the endpoint of each server's zone.
fn gateway_table(text: &mut String, plan: &Plan) {
    text.push_str("[[internet_gateway]]\nname = \"igw\"\nvpc = \"app\"\nroute_table = \"igw\"\n");
    text.push_str("addresses = [\n");
    for server in plan.servers() {
        if let (Some(public), (private, _)) = (server.public, server.v4) {
            line(text, format_args!("  {{ public = \"{public}\", private = \"{private}\" }},"));
        }
    }
    text.push_str("]\n\n");
    text.push_str("[[route_table]]\nname = \"igw\"\nvpc = \"app\"\nroutes = [\n");
    for zone in &plan.zones {
        for cidr in cidrs(&zone.server) {
            let endpoint = zone.endpoint;
            line(
                text,
                format_args!("  {{ destination = \"{cidr}\", endpoint = \"{endpoint}\" }},"),
            );
        }
    }
    text.push_str("]\n\n");
}

/// A zone's application subnet, its endpoint's subnet, their tables, and the endpoint.
fn zone_tables(text: &mut String, zone: &Zone, wrong_route: bool) {
    let (app, endpoint) = (zone.server.name, zone.endpoint);
    let (app_cidrs, subnet) = (cidrs(&zone.server), zone.endpoint_subnet);
    let endpoint_cidrs = zone.endpoint_cidrs.map(str::to_owned);
    for (name, cidrs) in [(app, app_cidrs), (subnet, endpoint_cidrs)] {
        let [v4, v6] = cidrs;
        line(text, format_args!("[[subnet]]\nname = \"{name}\"\nvpc = \"app\""));
        line(text, format_args!("zone = \"{}\"\ncidrs = [\"{v4}\", \"{v6}\"]", zone.name));
        line(text, format_args!("route_table = \"{name}\"\n"));
    }
    let to_endpoint = format!("endpoint = \"{endpoint}\"");
    let to_internet = "internet_gateway = \"igw\"".to_owned();
    let from_app = if wrong_route { &to_internet } else { &to_endpoint };
    for (name, next_hop) in [(app, from_app), (subnet, &to_internet)] {
        line(text, format_args!("[[route_table]]\nname = \"{name}\"\nvpc = \"app\"\nroutes = ["));
        for destination in ["0.0.0.0/0", "::/0"] {
            line(text, format_args!("  {{ destination = \"{destination}\", {next_hop} }},"));
        }
        text.push_str("]\n\n");
    }
    line(text, format_args!("[[endpoint]]\nname = \"{endpoint}\"\nsubnet = \"{subnet}\""));
    text.push_str("service = \"inspection\"\n\n");
}

/// One load balancer with a node in each zone, before one group of all appliances.
pub(super) fn balancing(plan: &Plan) -> String {
    let mut text = String::new();
    text.push_str("[[endpoint_service]]\nname = \"inspection\"\nload_balancers = [\"nva\"]\n\n");
    text.push_str("[[load_balancer]]\nname = \"nva\"\ntarget_group = \"nva\"\nnodes = [\n");
    for zone in &plan.zones {
        let (name, node) = (zone.name, zone.node);
        line(&mut text, format_args!("  {{ zone = \"{name}\", address = \"{node}\" }},"));
    }
    line(&mut text, format_args!("]\nnetns = \"{}\"\n", plan.netns(GATEWAY)));
    text.push_str("[[target_group]]\nname = \"nva\"\n\n");
    for appliance in &plan.appliances {
        let (name, kind, zone) = (appliance.name, appliance.kind, appliance.zone);
        line(&mut text, format_args!("[[target]] # {name}, {kind}\ngroup = \"nva\""));
        line(&mut text, format_args!("address = \"{}\"\nzone = \"{zone}\"\n", appliance.address));
    }
    text
}

/// The device through which a host's packets enter and leave, inside the host's namespace.
fn attachment(text: &mut String, plan: &Plan, to: &str, host: &Host) {
    let ((v4, v4_prefix), (v6, v6_prefix)) = (host.v4, host.v6);
    line(text, format_args!("[[attachment]]\n{to}\ntun = \"{}\"", host.name));
    line(text, format_args!("netns = \"{}\"\nmtu = {INNER_MTU}", plan.netns(host.name)));
    line(text, format_args!("addresses = [\"{v4}/{v4_prefix}\", \"{v6}/{v6_prefix}\"]"));
    text.push_str("default_route = true\n\n");
}

/// The ranges of a host's subnet.
fn cidrs(host: &Host) -> [String; 2] {
    let ((v4, v4_prefix), (v6, v6_prefix)) = (host.v4, host.v6);
    let v4 = u32::from(v4) & u32::MAX << (32 - v4_prefix);
    let v6 = u128::from(v6) & u128::MAX << (128 - v6_prefix);
    [
        format!("{}/{v4_prefix}", std::net::Ipv4Addr::from(v4)),
        format!("{}/{v6_prefix}", std::net::Ipv6Addr::from(v6)),
    ]
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{arguments}");
}

fn toml_string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::plan::Sabotage;

    #[test]
    fn the_file_reads_as_a_user_would_write_it() {
        let plan = Plan::new("gwlb-demo-1".to_owned(), None);
        insta::assert_snapshot!(gateway(&plan, &balancing(&plan), Path::new("/tmp/gwlb-demo-1")));
    }

    #[test]
    fn the_gateway_takes_its_file_and_the_appliances_take_theirs() {
        let plan = Plan::new("gwlb-demo-1".to_owned(), None);
        let text = gateway(&plan, &balancing(&plan), Path::new("/tmp/gwlb-demo-1"));
        let source = router::source::Source::new("gwlb.toml", text);
        let settings = crate::config::parse(&source).unwrap();
        assert_eq!(settings.attachments.len(), 3);

        let source = nva_sample::problem::Source::new("firewall.toml", firewall_rules());
        assert!(nva_sample::firewall::file::parse(&source).is_ok());
        let source = nva_sample::problem::Source::new("ids.toml", IDS_PATTERNS);
        assert!(nva_sample::ids::file::parse(&source, false).is_ok());
    }

    #[test]
    fn the_wrong_route_is_one_table_of_one_zone() {
        let directory = Path::new("/tmp/gwlb-demo-1");
        let [right, wrong] = [None, Some(Sabotage::WrongRoute)].map(|sabotage| {
            let plan = Plan::new("p".to_owned(), sabotage);
            gateway(&plan, &balancing(&plan), directory)
        });
        let differing: Vec<_> =
            right.lines().zip(wrong.lines()).filter(|(right, wrong)| right != wrong).collect();
        assert_eq!(
            differing,
            [
                (
                    "  { destination = \"0.0.0.0/0\", endpoint = \"vpce-a\" },",
                    "  { destination = \"0.0.0.0/0\", internet_gateway = \"igw\" },"
                ),
                (
                    "  { destination = \"::/0\", endpoint = \"vpce-a\" },",
                    "  { destination = \"::/0\", internet_gateway = \"igw\" },"
                ),
            ]
        );
    }
}
