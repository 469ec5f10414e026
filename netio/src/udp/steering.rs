//! The classic BPF program that chooses among sockets sharing a port by the datagram's source port.
//!
//! A program for a group of such sockets sees the UDP payload; the headers in front of it are
//! reached by offsets from the network header (`SKF_NET_OFF`).

use std::io;

use libc::sock_filter;
use socket2::Socket;

use crate::bpf::{self, NET, op};

/// Length of an IPv6 header, behind which UDP begins.
const IPV6_HEADER: u32 = 40;
/// Where the IPv6 header says what follows it.
const IPV6_NEXT_HEADER: u32 = 6;
/// No group is as large: the kernel then chooses by its hash.
const NO_SOCKET: u32 = u32::MAX;

/// See [`super::UdpSocket::steer_by_source_port`].
pub(super) fn by_source_port(socket: &Socket, v6: bool, workers: u32) -> io::Result<()> {
    if workers == 0 {
        let message = "steering needs at least 1 worker, got 0";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let modulo = op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, workers);
    let accept = op(libc::BPF_RET | libc::BPF_A, 0);
    if v6 {
        let udp = libc::IPPROTO_UDP as u32;
        bpf::attach(
            socket,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            &mut [
                op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, NET + IPV6_NEXT_HEADER),
                sock_filter { jt: 1, ..op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, udp) },
                op(libc::BPF_RET | libc::BPF_K, NO_SOCKET),
                op(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, NET + IPV6_HEADER),
                modulo,
                accept,
            ],
        )
    } else {
        bpf::attach(
            socket,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            &mut [
                // X = length of the IPv4 header, options included.
                op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, NET),
                op(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, NET),
                modulo,
                accept,
            ],
        )
    }
}
