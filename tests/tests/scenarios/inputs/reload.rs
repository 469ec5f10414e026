//! Packets that wait between workers while the configuration changes.

use gwlb_tests::packets::{Ip, Tcp, fragments};

use super::{CLIENT_4, FAR_SERVER_4, Inputs, four, six, text};

pub(super) fn add(inputs: &mut Inputs) {
    let far = || Ip::new(CLIENT_4, FAR_SERVER_4);
    for name in ["reload-between-workers", "reload-twice-between-workers"] {
        // So many flows that either worker owns some of what the other one reads.
        let opened = |ip: Ip| (0..4).map(move |n| ip.tcp((1000 + n, 80), Tcp::SYN, &[]));
        inputs.file(name, "01-from-igw", opened(four()).chain(opened(far())).collect());
        let answered =
            |ip: Ip| (0..4).map(move |n| ip.reversed().tcp((80, 1000 + n), Tcp::SYN_ACK, &[]));
        inputs.file(name, "02-from-app-a", answered(four()).collect());
        inputs.file(name, "03-from-app-b", answered(far()).collect());
    }
    let name = "reload-while-fragments-wait";
    for (file, ip, id) in [("01-from-igw", four(), 1), ("02-from-igw", far(), 2)] {
        let [first, second, third] =
            fragments(&ip.udp((1000, 53), &text(3000)), id, 1200).try_into().unwrap();
        inputs.file(name, file, vec![third, second]);
        let file = if id == 1 { "04-from-igw" } else { "05-from-igw" };
        inputs.file(name, file, vec![first]);
    }
    let [first, second] =
        fragments(&six().udp((1000, 53), &text(2000)), 3, 1200).try_into().unwrap();
    inputs.file(name, "03-from-igw", vec![second]);
    inputs.file(name, "06-from-igw", vec![first]);
}
