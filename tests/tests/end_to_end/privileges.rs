//! What a running gateway, and a running appliance, can still do: nothing that takes privileges.
//! And what a reload can therefore not do.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use gwlb_tests::world::traffic::{self, EchoServer};
use gwlb_tests::world::{Family, Plan, Process, World, wait_until};
use netio::process::privileges::Privileges;

use super::world;

/// Packet sockets and health checks included: all that takes privileges at the start.
const EVERYTHING: &str = "tolerate_bad_udp_checksum = true\n\
                          [target_group.health_check]\nextended_ranges = true\n\
                          interval_ms = 200\ntimeout_ms = 200\nhealthy_threshold = 2\n";

/// The names of a process's threads, each of which has no privilege and can get none.
fn threads_without_privileges(process: &Process) -> BTreeSet<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let look = |task: std::io::Result<std::fs::DirEntry>| {
        let task = task.unwrap().path();
        // One may end meanwhile. Who calls this asks for those that have to be there.
        let name = std::fs::read_to_string(task.join("comm")).ok()?.trim().to_owned();
        let status = std::fs::read_to_string(task.join("status")).ok()?;
        let privileges = Privileges::parse(&status).unwrap();
        assert!(privileges.are_gone(), "{name}: {privileges}");
        // The tests run as root, which may let go of the bounding set, too.
        assert_eq!(privileges.bounding, 0, "{name}: {privileges}");
        Some(name)
    };
    tasks.filter_map(look).collect()
}

/// What file descriptors a process has that programs which it started would get, and that it has
/// not got itself from whoever started the tests.
fn inheritable(process: &Process) -> Vec<String> {
    let ours = inheritable_by(std::process::id());
    let theirs = inheritable_by(process.id());
    theirs.into_iter().filter(|file| !ours.contains(file)).collect()
}

fn inheritable_by(process: u32) -> Vec<String> {
    const O_CLOEXEC: u32 = 0o2_000_000;
    let folder = format!("/proc/{process}/fdinfo");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // Others may close some meanwhile.
        let Ok(text) = std::fs::read_to_string(Path::new(&folder).join(&name)) else { continue };
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let standard = name.parse::<u32>().unwrap() <= 2;
        if !standard && u32::from_str_radix(flags.trim(), 8).unwrap() & O_CLOEXEC == 0 {
            let path = format!("/proc/{process}/fd/{name}");
            found.extend(
                std::fs::read_link(path).ok().map(|to| format!("{name}: {}", to.display())),
            );
        }
    }
    found
}

fn mode(path: impl AsRef<Path>) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn no_thread_of_a_running_gateway_has_any_privilege() {
    let plan = Plan { health: true, target_group: EVERYTHING, ..Plan::default() };
    let Some(world) = world("no_thread_of_a_running_gateway", plan) else { return };
    let nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    gateway.process.wait_for_line("privileges are given up");
    // A thread gives itself its name when it starts to run.
    let named = ["worker-0", "worker-1", "control", "admin", "signals"];
    wait_until("all threads have their names", || {
        let threads = threads_without_privileges(&gateway.process);
        named.iter().all(|name| threads.contains(*name))
    });
    // The one that opens sockets in the underlay's namespace, and the main thread.
    let threads = threads_without_privileges(&gateway.process);
    assert!(threads.len() >= named.len() + 2, "{threads:?}");
    assert_eq!(inheritable(&gateway.process), [""; 0]);
    assert_eq!(mode(world.folder().join("secret")), 0o600);
    assert_eq!(mode(world.admin_socket()), 0o600);

    // And it does all that it is for.
    gateway.wait_until("the target is healthy", |status| status.targets[0].state == "healthy");
    let server = EchoServer::start(&world.servers[0], Family::V4);
    let socket = traffic::datagrams(&world.client, server.address());
    traffic::exchange(&socket, b"inspected").unwrap();
    assert!(gateway.status().attachments[0].tx_dropped.is_some(), "the devices are asked");
    let threads = threads_without_privileges(&gateway.process);
    assert!(threads.contains("worker-0"), "{threads:?}");

    for nva in &nva {
        let threads = threads_without_privileges(&nva.process);
        assert!(threads.contains("appliance-0"), "{threads:?}");
        assert_eq!(inheritable(&nva.process), [""; 0]);
    }
    gateway.stop();
    assert!(!world.admin_socket().exists(), "it is removed without privileges, too");
}

/// Has a gateway take up another configuration; says whether it did, and what was said.
fn reload(world: &World, configuration: &str) -> (bool, String) {
    let file = world.write("gateway.toml", configuration);
    let (file, socket) = (file.to_str().unwrap(), world.admin_socket());
    let socket = socket.to_str().unwrap();
    let compared = world.run(&["gwlb", "diff", file, "--socket", socket, "--json"]);
    let done = world.run(&["gwlb", "reload", "--socket", socket]);
    (done.code == Some(0), format!("{}{}", compared.stdout, done.log))
}

#[test]
fn a_reload_that_takes_privileges_is_refused_by_name_and_changes_nothing() {
    let Some(world) = world("a_reload_that_takes_privileges", Plan::default()) else { return };
    let _nva = world.start_appliances();
    let configuration = world.configuration();
    let mut gateway = world.start_gateway_with(&configuration);
    let devices = world.servers[0].devices();
    let netns = format!("netns = \"{}\"", world.gateway.reference());
    let elsewhere = format!("netns = \"{}\"", world.client.reference());
    let (before, attached) = configuration.split_once("[[attachment]]\nsubnet").unwrap();
    let (_, after) = attached.split_once("\n\n").unwrap();
    let without = format!("{before}{after}");
    for (changes, expected) in [
        (vec![(&configuration[..], &without[..])], "removed attachment subnet:app-a"),
        // Something that could be done comes along each time: none of it is.
        (vec![("default_route = true", "default_route = false")], "attachment"),
        (vec![("tun = \"app-a\"", "tun = \"app-z\"")], "tun: app-a -> app-z"),
        (vec![("tun = \"app-a\"", "mtu = 1400\ntun = \"app-a\"")], "mtu: 1500 -> 1400"),
        (vec![(&netns[..], &elsewhere[..])], "load_balancer fw: netns"),
        (vec![("workers = 2", "workers = 2\nsource_ports_per_worker = 3")], "source_ports_per"),
    ] {
        let mut changed = configuration.clone();
        for (from, to) in &changes {
            assert!(changed.contains(from), "{from}");
            changed = changed.replace(from, to);
        }
        let changed = changed.replace("dialect = \"aws\"", "slow_start_seconds = 1");
        let (done, said) = reload(&world, &changed);
        assert!(!done && said.contains(expected), "{expected}: {said}");
        assert!(said.contains("takes a restart") && said.contains("\"restart\": true"), "{said}");
    }
    assert_eq!(world.servers[0].devices(), devices);
    let (done, said) = reload(&world, &configuration);
    assert!(done && said.contains("\"changes\": []"), "something has changed: {said}");

    let server = EchoServer::start(&world.servers[0], Family::V4);
    let socket = traffic::datagrams(&world.client, server.address());
    traffic::exchange(&socket, b"it goes on").unwrap();
    gateway.stop();
}

#[test]
fn what_takes_no_privilege_is_added_while_the_gateway_runs() {
    let plan = Plan { appliances: vec![0, 0], ..Plan::default() };
    let Some(world) = world("what_takes_no_privilege", plan) else { return };
    let mut gateway = world.start_gateway();
    // A node on another address, and a target on another port of the underlay.
    let address: IpAddr = [192, 0, 2, 9].into();
    world.gateway.links().add_address("lo", address, 32).unwrap();
    let second = world.plan.target(1);
    let listen = format!("{second}:7000");
    let _nva = [
        world.start_appliance(0, &["passthrough"]),
        world.start_appliance(1, &["passthrough", "--listen", &listen]),
    ];
    let configuration = world.configuration_with(&[
        ("address = \"192.0.2.1\"", "address = \"192.0.2.9\""),
        (&format!("address = \"{second}\""), &format!("address = \"{second}\"\nport = 7000")),
    ]);
    let (done, said) = reload(&world, &configuration);
    assert!(done, "{said}");
    for site in &world.appliances {
        let devices: Vec<_> = site.devices().into_iter().filter(|name| name != "lo").collect();
        let route = netio::link::Route::new(address, 32).device(&devices[0]);
        site.links().add_route(&route).unwrap();
    }
    let server = EchoServer::start(&world.servers[0], Family::V4);
    gateway.wait_until("both take packets and give them back", |status| {
        let socket = traffic::datagrams(&world.client, server.address());
        traffic::exchange(&socket, b"through the new node").unwrap();
        let gives_back = |address: &str| {
            status.targets.iter().any(|it| it.address == address && it.returned_packets > 0)
        };
        gives_back("192.0.2.16:6081") && gives_back(&listen)
    });
    gateway.settled().assert_lossless();
    gateway.stop();
}
