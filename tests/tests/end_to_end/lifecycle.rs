//! How a gateway comes and goes: all of it or nothing, with nothing lost and nothing left behind.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use gwlb_tests::world::traffic::Stream;
use gwlb_tests::world::{Finished, Plan, World};
use netio::link::Route;
use netio::netns::{Netns, ScratchNetns};
use nix::sys::signal::Signal;

use super::{FAMILIES, directions, world};

/// The devices in every namespace, and the files in the folder: what a gateway could leave behind.
fn inventory(world: &World) -> Vec<Vec<String>> {
    let mut sites = vec![world.client.devices(), world.gateway.devices()];
    sites.extend(world.servers.iter().map(|server| server.devices()));
    sites.extend(world.appliances.iter().map(gwlb_tests::world::Site::devices));
    let files = std::fs::read_dir(world.folder()).unwrap();
    let mut files: Vec<_> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    // What the user wrote, and the secret, which is made once and kept.
    files.retain(|name| name != "gateway.toml" && name != "secret");
    files.sort();
    sites.push(files);
    sites
}

/// How the configuration refers to the client's namespace.
fn client(world: &World) -> String {
    quoted(world.client.reference())
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// "… 5 packets came in, 4 went to appliances, 4 came back, 4 were delivered"
fn farewell(finished: &Finished) -> [u64; 4] {
    let line = finished.stderr.lines().find(|line| line.contains("packets came in")).unwrap();
    // Behind the time, which has numbers, too.
    let (_, said) = line.split_once("INFO").unwrap();
    let numbers = said.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    numbers.collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn a_gateway_that_ends_loses_nothing_and_its_successor_carries_on() {
    let plan = Plan { unknown_flow: "adopt", ..Plan::default() };
    let Some(world) = world("a_gateway_that_ends", plan) else { return };
    let _nva = world.start_appliances();
    let before = inventory(&world);
    let mut gateway = world.start_gateway();
    let streams: Vec<_> = FAMILIES
        .into_iter()
        .flat_map(|family| directions(&world).map(|(from, to)| Stream::start(from, to, family)))
        .collect();
    for generation in 1..=2 {
        for stream in &streams {
            stream.wait_for_more(1 << 20);
        }
        let finished = gateway.stop();
        let [received, sent, returned, delivered] = farewell(&finished);
        assert!(sent > 0, "{}", finished.log);
        assert_eq!((received, returned, delivered), (sent, sent, sent), "{}", finished.log);
        assert!(!finished.stderr.contains("dropped"), "{}", finished.log);
        assert_eq!(inventory(&world), before, "after generation {generation}");
        gateway = world.start_gateway();
    }
    for stream in streams {
        stream.wait_for_more(1 << 20);
        stream.finish();
    }
    gateway.stop();
    assert_eq!(inventory(&world), before);
}

#[test]
fn a_second_signal_ends_the_gateway_at_once() {
    let Some(world) = world("a_second_signal", Plan::default()) else { return };
    let before = inventory(&world);
    let mut gateway = world.start_gateway();
    gateway.process.signal(Signal::SIGINT);
    gateway.process.wait_for_line("draining");
    gateway.process.signal(Signal::SIGINT);
    let finished = gateway.process.finish();
    assert_eq!(finished.code, Some(1), "{}", finished.log);
    assert!(!finished.stderr.contains("packets came in"), "it took its time:\n{}", finished.log);
    // What the kernel does not take away, the next one does.
    let mut gateway = world.start_gateway();
    gateway.stop();
    assert_eq!(inventory(&world), before);
}

#[test]
fn namespaces_are_found_by_name_and_left_as_they_were() {
    let Some(named) = ScratchNetns::for_test("namespaces_by_name") else { return };
    let Some(world) = world("namespaces_by_name", Plan::default()) else { return };
    let configuration = world.configuration_with(&[(&client(&world), &quoted(named.name()))]);
    let mut gateway = world.start_gateway_with(&configuration);
    let links = netio::link::Links::in_netns(&named).unwrap();
    assert!(links.exists("igw").unwrap());
    gateway.stop();
    assert!(!links.exists("igw").unwrap());
    assert!(Netns::open(named.name()).unwrap().is_same(&named));
}

/// Something that keeps a gateway from starting, made in a world, as long as it is held.
type Obstacle = Box<dyn std::any::Any>;

/// What a gateway that cannot start says, and the obstacle with the configuration it stumbles over.
struct Failure {
    says: &'static [&'static str],
    make: fn(&World) -> (Obstacle, String),
}

const FAILURES: &[Failure] = &[
    Failure {
        says: &["the TUN device \"igw\"", "already"],
        make: |world| {
            world.client.links().create_veth("igw", "other-end", world.client.netns()).unwrap();
            (Box::new(()), world.configuration())
        },
    },
    Failure {
        says: &["\"no-such-namespace\" does not exist", "/run/netns/no-such-namespace"],
        make: |world| {
            let changes = [(&client(world)[..], "\"no-such-namespace\"")];
            (Box::new(()), world.configuration_with(&changes))
        },
    },
    Failure {
        says: &["192.0.2.77:6081", "address must be set on a device"],
        make: |world| {
            let changes = [("\"192.0.2.1\"", "\"192.0.2.77\"")];
            (Box::new(()), world.configuration_with(&changes))
        },
    },
    Failure {
        says: &["the admin API", "admin.sock", "in use"],
        make: |world| {
            let taken = UnixListener::bind(world.admin_socket()).unwrap();
            (Box::new(taken), world.configuration())
        },
    },
    Failure {
        says: &["the metrics on 127.0.0.1", "in use"],
        make: |world| {
            let taken = TcpListener::bind("127.0.0.1:0").unwrap();
            let metrics = format!("[gateway]\nmetrics = \"{}\"", taken.local_addr().unwrap());
            (Box::new(taken), world.configuration_with(&[("[gateway]", &metrics)]))
        },
    },
    Failure {
        says: &["192.0.2.1:6081", "is another gateway running there?"],
        make: |world| {
            let address = SocketAddr::new(world.plan.node(0), geneve::PORT);
            let taken = world.gateway.run(|| UdpSocket::bind(address)).unwrap();
            (Box::new(taken), world.configuration())
        },
    },
    Failure {
        says: &["add route 0.0.0.0/0 dev igw", "exists"],
        make: |world| {
            let links = world.client.links();
            links.add_route(&Route::new([0, 0, 0, 0].into(), 0).device("lo")).unwrap();
            (Box::new(()), world.configuration())
        },
    },
    Failure {
        says: &["the secret file", "mode 0644 lets others read it"],
        make: |world| {
            let open = world.write("open-secret", [7; 32]);
            std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
            (Box::new(()), world.configuration_with(&[("/secret\"", "/open-secret\"")]))
        },
    },
];

#[test]
fn a_gateway_that_cannot_start_says_why_and_leaves_nothing_behind() {
    for (number, failure) in FAILURES.iter().enumerate() {
        let Some(world) = world("a_gateway_that_cannot_start", Plan::default()) else { return };
        let (_obstacle, configuration) = (failure.make)(&world);
        let before = inventory(&world);
        let finished = world.launch_gateway(&configuration).finish();
        assert_eq!(finished.code, Some(1), "case {number}: {}", finished.log);
        assert!(finished.stdout.is_empty(), "case {number}: {}", finished.log);
        assert!(finished.stderr.contains("cannot start"), "case {number}: {}", finished.log);
        for words in failure.says {
            assert!(finished.stderr.contains(words), "case {number}: {}", finished.log);
        }
        assert!(!finished.stderr.contains("MISSING"), "case {number}: {}", finished.log);
        assert_eq!(inventory(&world), before, "case {number}");
    }
}

#[test]
fn a_wrong_configuration_is_refused_before_anything_is_made() {
    let Some(world) = world("a_wrong_configuration", Plan::default()) else { return };
    let before = inventory(&world);
    let changes = [("endpoint = \"vpce-a\"", "endpoint = \"vpce-x\"")];
    let wrong = world.configuration_with(&changes);
    let finished = world.launch_gateway(&wrong).finish();
    assert_eq!(finished.code, Some(2), "{}", finished.log);
    assert!(finished.stderr.contains("gateway.toml:"), "{}", finished.log);
    assert!(finished.stderr.contains("vpce-x"), "{}", finished.log);
    assert_eq!(inventory(&world), before);
    assert!(!world.folder().join("secret").exists());
}
