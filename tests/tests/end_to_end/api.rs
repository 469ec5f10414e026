//! The admin API under siege, while packets flow.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use gwlb_tests::world::Plan;
use gwlb_tests::world::traffic::Stream;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{FAMILIES, directions, world};

#[test]
fn a_crowd_at_the_admin_api_disturbs_no_packet() {
    let Some(world) = world("a_crowd_at_the_admin_api", Plan::default()) else { return };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    let streams: Vec<_> = FAMILIES
        .into_iter()
        .flat_map(|family| directions(&world).map(|(from, to)| Stream::start(from, to, family)))
        .collect();
    for stream in &streams {
        stream.wait_for_more(1 << 20);
    }
    let long = format!("PUT {TARGET} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n");
    let heavy = format!(
        "PUT {TARGET} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: 15\r\n\r\n{{\"weight\":1001}}"
    );
    let unknown = "DELETE /v1/target-groups/fw/targets/192.0.2.99 HTTP/1.1\r\nHost: x\r\n\
                   Connection: close\r\n\r\n";
    let good = "GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let slow = "GET /v1/sta";
    let requests = [
        (good, Some("200 ")),
        (unknown, Some("404 ")),
        (&heavy, Some("400 ")),
        (&long, Some("413 ")),
        (slow, None),
    ];
    let mut crowd: Vec<_> = (0..1000)
        .map(|client| {
            let stream = UnixStream::connect(world.admin_socket()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let (request, expected) = requests[client % requests.len()];
            (stream, request, expected)
        })
        .collect();
    for (stream, request, _) in &mut crowd {
        stream.write_all(request.as_bytes()).unwrap();
    }
    for stream in &streams {
        stream.wait_for_more(1 << 20);
    }
    for (stream, request, expected) in &mut crowd {
        let Some(expected) = expected else { continue };
        let mut head = [0; 13];
        stream.read_exact(&mut head).unwrap();
        let head = std::str::from_utf8(&head).unwrap();
        assert_eq!(head, format!("HTTP/1.1 {expected}"), "{request}");
    }
    drop(crowd);
    for stream in streams {
        stream.wait_for_more(1 << 20);
        stream.finish();
    }
    let status = gateway.settled();
    status.assert_lossless();
    assert_eq!((status.targets.len(), status.targets[0].weight), (1, 100), "nothing has changed");
    gateway.stop();
}

/// A target of the group.
const TARGET: &str = "/v1/target-groups/fw/targets/192.0.2.16";
