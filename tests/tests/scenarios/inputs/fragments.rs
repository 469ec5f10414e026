//! Fragments, which carry ports in the first one only.

use gwlb_tests::packets::{Ip, Tcp, fragments};

use super::{Inputs, families, six, text};

/// Payload of one fragment.
const SIZE: usize = 1200;

pub(super) fn add(inputs: &mut Inputs) {
    for (family, there) in families() {
        let back = there.reversed();
        // More than one flow, so that more than one appliance has fragments.
        let cut = |ip: &Ip, ports: (u16, u16), id| fragments(&ip.udp(ports, &text(3000)), id, SIZE);
        let flows =
            |ip: &Ip| (0..4).flat_map(|n| cut(ip, (1000 + n, 53), 100 + n)).collect::<Vec<_>>();
        let answers =
            |ip: &Ip| (0..4).flat_map(|n| cut(ip, (53, 1000 + n), 200 + n)).collect::<Vec<_>>();

        let name = format!("fragments-{family}");
        let whole = (0..4).map(|n| there.udp((1000 + n, 53), b"whole")).collect();
        inputs.file(&name, "01-from-igw", whole);
        inputs.file(&name, "02-from-igw", flows(&there));
        inputs.file(&name, "03-from-app-a", answers(&back));

        let name = format!("fragments-wrong-workers-{family}");
        let (first, later): (Vec<_>, Vec<_>) =
            flows(&there).into_iter().enumerate().partition(|(index, _)| index % 3 == 0);
        let packets = |part: Vec<(usize, Vec<u8>)>| part.into_iter().map(|(_, packet)| packet);
        inputs.file(&name, "01-from-igw", packets(first).collect());
        inputs.file(&name, "02-from-igw", packets(later).collect());

        let name = format!("fragments-without-first-{family}");
        let [first, second, third] = cut(&there, (1000, 53), 7).try_into().unwrap();
        inputs.file(&name, "01-from-igw", vec![second.clone(), third.clone()]);
        inputs.file(&name, "02-from-igw", vec![first]);
        inputs.file(&name, "03-from-igw", vec![second, third]);
        // Of another packet, another protocol, the other direction.
        let strangers = [
            cut(&there, (1000, 53), 8).remove(1),
            fragments(&there.tcp((1000, 53), Tcp::SYN, &text(2000)), 7, SIZE).remove(1),
        ];
        inputs.file(&name, "04-from-igw", strangers.into());
        inputs.file(&name, "05-from-app-a", vec![cut(&back, (53, 1000), 7).remove(1)]);
    }

    let name = "fragments-of-extension-headers";
    let there = six();
    let whole = |ip: &Ip, ports| behind_options(&ip.udp(ports, &text(2000)));
    inputs.file(
        name,
        "01-from-igw",
        vec![there.udp((1000, 53), b"plain"), there.udp((1001, 53), b"plain")],
    );
    let cut = (0..2).flat_map(|n| fragments(&whole(&there, (1000 + n, 53)), 20 + n, SIZE));
    inputs.file(name, "02-from-igw", cut.collect());
    let back = there.reversed();
    let cut = (0..2).flat_map(|n| fragments(&whole(&back, (53, 1000 + n)), 30 + n, SIZE));
    inputs.file(name, "03-from-app-a", cut.collect());

    let name = "fragments-tiny";
    let mut packets = Vec::new();
    for (_, there) in families() {
        // The first fragment holds the ports and nothing else of the TCP header.
        packets.extend(fragments(&there.tcp((1000, 80), Tcp::SYN, &text(16)), 9, 8));
        // A fragmented ping has no ports at all.
        packets.extend(fragments(&there.echo_request(1, 1), 10, 8));
    }
    inputs.file(name, "01-from-igw", packets);
}

/// Puts destination options in front of the upper layer of an IPv6 packet.
fn behind_options(packet: &[u8]) -> Vec<u8> {
    const DESTINATION_OPTIONS: u8 = 60;
    let (head, upper) = packet.split_at(40);
    let mut head = head.to_vec();
    // PadN over the rest of eight bytes (RFC 8200 section 4.2).
    let options = [head[6], 0, 1, 4, 0, 0, 0, 0];
    let len = (options.len() + upper.len()) as u16;
    head[4..6].copy_from_slice(&len.to_be_bytes());
    head[6] = DESTINATION_OPTIONS;
    [&head[..], &options, upper].concat()
}
