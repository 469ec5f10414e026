//! Fragments, which carry ports in the first one only.

use gwlb_tests::packets::{Ip, Tcp, fragments};

use super::{Inputs, families, text};

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
