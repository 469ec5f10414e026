//! A large VPC as it should be: 200 subnets in 6 zones, 1000 routes, IPv4 and IPv6.

use std::fmt::Write;

use router::source::Source;
use router::{Topology, config};

const ZONES: usize = 6;
const APPLICATIONS: usize = 200 - ZONES;
/// Partner networks that each zone's table leads to its endpoint one by one.
const PARTNERS: usize = 98;

/// The text of the file.
pub fn text() -> String {
    let mut text = "[[vpc]]\nname = \"app\"\ncidrs = [\"10.0.0.0/16\", \"fd00:10::/48\"]\n\
                    [[internet_gateway]]\nname = \"igw\"\nvpc = \"app\"\nroute_table = \"igw\"\n"
        .to_owned();
    let mut edge = String::new();
    for index in 0..APPLICATIONS + ZONES {
        let (zone, is_works) = (index % ZONES, index >= APPLICATIONS);
        let kind = if is_works { "gwlbe" } else { "app" };
        let nets = [format!("10.0.{index}.0/24"), format!("fd00:10:0:{index:x}::/64")];
        writeln!(
            text,
            "[[subnet]]\nname = \"{kind}-{index}\"\nvpc = \"app\"\nzone = \"z{zone}\"\n\
             cidrs = {nets:?}\nroute_table = \"{kind}-{zone}\""
        )
        .unwrap();
        if is_works {
            writeln!(
                text,
                "[[endpoint]]\nname = \"vpce-{zone}\"\nsubnet = \"gwlbe-{index}\"\nservice = \"fw\""
            )
            .unwrap();
        } else {
            for net in nets {
                writeln!(edge, "{{ destination = {net:?}, endpoint = \"vpce-{zone}\" }},").unwrap();
            }
        }
    }
    let table = |text: &mut String, name: &str, routes: &str| {
        writeln!(text, "[[route_table]]\nname = {name:?}\nvpc = \"app\"\nroutes = [\n{routes}]")
            .unwrap();
    };
    table(&mut text, "igw", &edge);
    for zone in 0..ZONES {
        let mut routes = String::new();
        for net in ["0.0.0.0/0".to_owned(), "::/0".to_owned()]
            .into_iter()
            .chain((0..PARTNERS).map(|partner| format!("100.{zone}.{partner}.0/24")))
        {
            writeln!(routes, "{{ destination = {net:?}, endpoint = \"vpce-{zone}\" }},").unwrap();
        }
        table(&mut text, &format!("app-{zone}"), &routes);
        let out = "{ destination = \"0.0.0.0/0\", internet_gateway = \"igw\" },\n\
                   { destination = \"::/0\", internet_gateway = \"igw\" },\n";
        table(&mut text, &format!("gwlbe-{zone}"), out);
    }
    text
}

/// The topology, which holds nothing wrong.
pub fn topology() -> Topology {
    let source = Source::new("large.toml", text());
    let file = config::parse(&source).unwrap();
    Topology::build(&file, &source).unwrap()
}
