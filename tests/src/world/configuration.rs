//! The gateway's configuration file for a test's world, as a user would write it.

use std::fmt::{Display, Write as _};

use super::World;
use super::site::Host;

/// The whole file.
pub(super) fn gateway(world: &World) -> String {
    let plan = &world.plan;
    let folder = world.folder().display();
    let mut text = format!(
        "[gateway]\nworkers = {}\nsecret_file = \"{folder}/secret\"\nadmin = \"{}\"\n{}\n\
         [[vpc]]\nname = \"app\"\ncidrs = [\"10.0.0.0/16\", \"fd00:10::/48\"]\n\n",
        plan.workers,
        world.admin_socket().display(),
        plan.gateway,
    );
    let mut to_servers = Vec::new();
    let mut nodes = Vec::new();
    for zone in 0..plan.zones {
        let (letter, number) = (['a', 'b'][zone], zone + 1);
        let app = [format!("10.0.{number}.0/24"), format!("fd00:10:0:{number}::/64")];
        let endpoints = [format!("10.0.10{number}.0/28"), format!("fd00:10:0:10{number}::/64")];
        for (name, cidrs) in [("app", &app), ("gwlbe", &endpoints)] {
            let [v4, v6] = cidrs;
            table(
                &mut text,
                format_args!(
                    "[[subnet]]\nname = \"{name}-{letter}\"\nvpc = \"app\"\nzone = \"az{number}\"\n\
                 cidrs = [\"{v4}\", \"{v6}\"]\nroute_table = \"{name}-{letter}\"\n"
                ),
            );
        }
        let endpoint = format!("endpoint = \"vpce-{letter}\"");
        let internet = "internet_gateway = \"igw\"".to_owned();
        let anywhere = ["0.0.0.0/0".to_owned(), "::/0".to_owned()];
        to_servers.extend(app.map(|cidr| (cidr, endpoint.clone())));
        for (name, hop) in [("app", endpoint), ("gwlbe", internet)] {
            let routes = anywhere.clone().map(|cidr| (cidr, hop.clone()));
            route_table(&mut text, format_args!("{name}-{letter}"), &routes);
        }
        table(
            &mut text,
            format_args!(
                "[[endpoint]]\nname = \"vpce-{letter}\"\nsubnet = \"gwlbe-{letter}\"\n\
             service = \"inspection\"\n"
            ),
        );
        nodes.push(format!("{{ zone = \"az{number}\", address = \"{}\" }}", plan.node(zone)));
        attachment(
            &mut text,
            format_args!("subnet = \"app-{letter}\""),
            format_args!("app-{letter}"),
            &world.servers[zone],
            plan.attachment,
        );
    }
    route_table(&mut text, "igw", &to_servers);
    table(
        &mut text,
        "[[internet_gateway]]\nname = \"igw\"\nvpc = \"app\"\nroute_table = \"igw\"\n",
    );
    attachment(&mut text, "internet_gateway = \"igw\"", "igw", &world.client, plan.attachment);
    table(
        &mut text,
        format_args!(
            "[[endpoint_service]]\nname = \"inspection\"\nload_balancers = [\"fw\"]\n\n\
         [[load_balancer]]\nname = \"fw\"\ntarget_group = \"fw\"\nnodes = [{}]\nnetns = \"{}\"\n\
         tcp_unknown_flow = \"{}\"\n{}\n\n\
         [[target_group]]\nname = \"fw\"\ndialect = \"{}\"\n{}\n",
            nodes.join(", "),
            world.gateway.reference(),
            plan.unknown_flow,
            plan.load_balancer,
            plan.dialect,
            plan.target_group,
        ),
    );
    for (number, zone) in plan.appliances.iter().enumerate() {
        table(
            &mut text,
            format_args!(
                "[[target]]\ngroup = \"fw\"\naddress = \"{}\"\nzone = \"az{}\"\n",
                plan.target(number),
                zone + 1,
            ),
        );
    }
    text
}

fn route_table(text: &mut String, name: impl Display, routes: &[(String, String)]) {
    let route = |(to, hop): &(String, String)| format!("  {{ destination = \"{to}\", {hop} }},\n");
    let routes: String = routes.iter().map(route).collect();
    table(
        text,
        format_args!("[[route_table]]\nname = \"{name}\"\nvpc = \"app\"\nroutes = [\n{routes}]\n"),
    );
}

/// The device through which a host's packets enter and leave.
fn attachment(text: &mut String, at: impl Display, tun: impl Display, host: &Host, more: &str) {
    let ((v4, v4_len), (v6, v6_len)) = (host.addresses().v4, host.addresses().v6);
    table(
        text,
        format_args!(
            "[[attachment]]\n{at}\ntun = \"{tun}\"\nnetns = \"{}\"\n\
         addresses = [\"{v4}/{v4_len}\", \"{v6}/{v6_len}\"]\ndefault_route = true\n{more}\n",
            host.reference(),
        ),
    );
}

fn table(text: &mut String, table: impl Display) {
    writeln!(text, "{table}").expect("memory to write to");
}
