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

    orders(inputs);
    hostile(inputs);

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

/// Three fragments in each of their six orders, those that wait for their first included.
fn orders(inputs: &mut Inputs) {
    const ORDERS: [[usize; 3]; 6] =
        [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for (family, there) in families() {
        let name = format!("fragments-orders-{family}");
        let whole = (0..6).map(|n| there.udp((1000 + n, 53), b"whole")).collect();
        inputs.file(&name, "01-from-igw", whole);
        let ordered = |ip: &Ip, ports: &dyn Fn(u16) -> (u16, u16), id: u16| {
            let orders = (0..).zip(ORDERS);
            let packets = orders.flat_map(|(n, order)| {
                let fragments = fragments(&ip.udp(ports(n), &text(3000)), id + n, SIZE);
                order.map(|index| fragments[index].clone())
            });
            packets.collect::<Vec<_>>()
        };
        let there_ports = |n| (1000 + n, 53);
        inputs.file(&name, "02-from-igw", ordered(&there, &there_ports, 100));
        let back_ports = |n| (53, 1000 + n);
        inputs.file(&name, "03-from-app-a", ordered(&there.reversed(), &back_ports, 200));
        // One that no flow was there for: its first fragment begins the flow.
        inputs.file(&name, "04-from-igw", ordered(&there, &|n| (2000 + n, 53), 300));
    }
}

/// What honest senders hardly do.
fn hostile(inputs: &mut Inputs) {
    let name = "fragments-hostile";
    let (mut used, mut reused) = (vec![], vec![]);
    let (mut tiny, mut long, mut flood) = (vec![], vec![], vec![]);
    for (_, there) in families() {
        // The same identification for another flow.
        used.extend(fragments(&there.udp((1000, 53), &text(2000)), 47, SIZE));
        reused.extend(fragments(&there.udp((1001, 53), &text(2000)), 47, SIZE));
        // Ports in the first and flags in the second fragment (RFC 1858).
        tiny.extend(fragments(&there.tcp((1000, 80), Tcp::SYN, &text(64)), 48, 8));
        // The last fragment reaches past 65,535 bytes.
        let mut packets = fragments(&there.udp((1002, 53), &text(2000)), 49, SIZE);
        far_off(&mut packets[1]);
        long.extend(packets);
        // More than may wait for one first fragment.
        let packets = fragments(&there.udp((1003, 53), &text(8 * 70)), 50, 8);
        flood.extend(packets.into_iter().skip(1));
    }
    for (name_of_file, packets) in [
        ("01-from-igw", used),
        ("02-from-igw", reused),
        ("03-from-igw", tiny),
        ("04-from-igw", long),
        ("05-from-igw", flood),
    ] {
        inputs.file(name, name_of_file, packets);
    }
}

/// Moves a fragment as far behind as its offset can say.
fn far_off(packet: &mut [u8]) {
    if packet[0] >> 4 == 4 {
        packet[6..8].copy_from_slice(&0x1fff_u16.to_be_bytes());
        packet[10..12].fill(0);
        let sum = geneve::checksum::of(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        packet[42..44].copy_from_slice(&(0x1fff_u16 << 3).to_be_bytes());
    }
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
