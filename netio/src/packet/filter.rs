//! The classic BPF program by which the kernel chooses the packets that are worth a look.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use libc::sock_filter;

use super::BadChecksumsConfig;
use crate::bpf::{NET, op};
use crate::offload::UDP_CHECKSUM;

/// Every port is an instruction, and a jump leads over 255 at most.
const MOST_PORTS: usize = 64;
/// Where the packet's kind is read (a negative number, as 32 bits).
const PACKET_KIND: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE).cast_unsigned();
/// Length of an IPv6 header, behind which UDP begins.
const IPV6_HEADER: u32 = 40;
/// More fragments, and the offset: set in fragments alone.
const FRAGMENT: u32 = 0x3fff;
/// To let the whole packet in.
const ALL: u32 = u32::MAX;

const UDP: u32 = libc::IPPROTO_UDP as u32;
const BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
/// Behind the IPv4 header, whose length is in X.
const HALF_BEHIND: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;

/// The program for `config`.
pub(super) fn program(config: &BadChecksumsConfig) -> io::Result<Vec<sock_filter>> {
    let BadChecksumsConfig { address, ports, worker, workers, .. } = config;
    let wrong = if address.is_unspecified() {
        Some(format!("{address} is no address of a host"))
    } else if ports.is_empty() || ports.len() > MOST_PORTS {
        Some(format!("1 to {MOST_PORTS} ports can be received from, got {}", ports.len()))
    } else if worker >= workers {
        Some(format!("there is no worker {worker} among {workers}"))
    } else {
        None
    };
    if let Some(message) = wrong {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }

    let mut program = Program::default();
    // Neither what others send to each other nor what this host sends to others.
    program.load(WORD, PACKET_KIND);
    program.must_be(libc::PACKET_HOST.into());
    let (load, udp) = match address {
        IpAddr::V4(address) => program.ipv4(*address),
        IpAddr::V6(address) => program.ipv6(*address),
    };
    program.load(load, udp);
    program.push(op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, *workers));
    program.must_be(*worker);
    program.load(load, udp + 2);
    Ok(program.end_with_one_of(ports))
}

/// A program that lets a packet in if all of its conditions hold.
#[derive(Default)]
struct Program {
    steps: Vec<sock_filter>,
    /// The jumps that lead out, by position and by which way.
    out: Vec<(usize, Way)>,
}

#[derive(Clone, Copy)]
enum Way {
    IfTrue,
    IfFalse,
}

impl Program {
    /// Conditions on the IPv4 header; then how to read two bytes of the UDP header, and where it
    /// begins.
    fn ipv4(&mut self, address: Ipv4Addr) -> (u32, u32) {
        self.load(BYTE, NET + 9);
        self.must_be(UDP);
        self.load(WORD, NET + 16);
        self.must_be(address.into());
        self.load(HALF, NET + 6);
        self.must_not(libc::BPF_JSET, FRAGMENT);
        // X = length of the header, options included.
        self.load(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, NET);
        // RFC 768: a checksum of 0 is none.
        self.load(HALF_BEHIND, NET + UDP_CHECKSUM as u32);
        self.must_not(libc::BPF_JEQ, 0);
        (HALF_BEHIND, NET)
    }

    /// The same for IPv6. Extension headers are for nobody who sends through a tunnel.
    fn ipv6(&mut self, address: Ipv6Addr) -> (u32, u32) {
        self.load(BYTE, NET + 6);
        self.must_be(UDP);
        for (at, word) in (24..).step_by(4).zip(address.octets().as_chunks::<4>().0) {
            self.load(WORD, NET + at);
            self.must_be(u32::from_be_bytes(*word));
        }
        (HALF, NET + IPV6_HEADER)
    }

    /// What was loaded last is one of these, and the packet is let in.
    fn end_with_one_of(mut self, values: &[u16]) -> Vec<sock_filter> {
        let drop = self.steps.len() + values.len();
        for (position, value) in values.iter().enumerate() {
            // Over the others and the drop behind them.
            let jt = (values.len() - position) as u8;
            self.push(sock_filter { jt, ..jump(libc::BPF_JEQ, (*value).into()) });
        }
        self.push(op(libc::BPF_RET | libc::BPF_K, 0));
        self.push(op(libc::BPF_RET | libc::BPF_K, ALL));
        for (position, way) in self.out {
            let over = (drop - position - 1) as u8;
            let step = &mut self.steps[position];
            match way {
                Way::IfTrue => step.jt = over,
                Way::IfFalse => step.jf = over,
            }
        }
        self.steps
    }

    fn load(&mut self, how: u32, at: u32) {
        self.push(op(how, at));
    }

    /// What was loaded last is this.
    fn must_be(&mut self, value: u32) {
        self.out.push((self.steps.len(), Way::IfFalse));
        self.push(jump(libc::BPF_JEQ, value));
    }

    /// A comparison of what was loaded last with this does not hold.
    fn must_not(&mut self, comparison: u32, value: u32) {
        self.out.push((self.steps.len(), Way::IfTrue));
        self.push(jump(comparison, value));
    }

    fn push(&mut self, step: sock_filter) {
        self.steps.push(step);
    }
}

fn jump(comparison: u32, value: u32) -> sock_filter {
    op(libc::BPF_JMP | comparison | libc::BPF_K, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> BadChecksumsConfig {
        BadChecksumsConfig {
            address: [192, 0, 2, 1].into(),
            ports: vec![6081],
            worker: 0,
            workers: 1,
            recv_buffer: 0,
        }
    }

    #[test]
    fn every_way_leads_to_one_of_the_ends() {
        for address in [IpAddr::from([192, 0, 2, 1]), Ipv6Addr::LOCALHOST.into()] {
            let ports = (1..=MOST_PORTS as u16).collect();
            let program = program(&BadChecksumsConfig { address, ports, ..config() }).unwrap();
            let [.., drop, all] = &program[..] else { panic!("too short") };
            assert_eq!((drop.k, all.k), (0, ALL));
            let jumps = program.iter().enumerate().filter(|(_, s)| s.code & 7 == 5);
            for (position, step) in jumps {
                let ends = [step.jt, step.jf].map(|over| position + 1 + usize::from(over));
                assert!(ends.iter().all(|end| *end < program.len()), "{position}: {step:?}");
                // One way leads on, the other to an end.
                assert!(ends.contains(&(position + 1)));
                assert!(ends.iter().any(|end| *end >= program.len() - 2), "{position}: {step:?}");
            }
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for (config, expected) in [
            (
                BadChecksumsConfig { address: [0; 4].into(), ..config() },
                "0.0.0.0 is no address of a host",
            ),
            (
                BadChecksumsConfig { ports: vec![], ..config() },
                "1 to 64 ports can be received from, got 0",
            ),
            (
                BadChecksumsConfig { ports: vec![1; 65], ..config() },
                "1 to 64 ports can be received from, got 65",
            ),
            (
                BadChecksumsConfig { worker: 2, workers: 2, ..config() },
                "there is no worker 2 among 2",
            ),
            (BadChecksumsConfig { workers: 0, ..config() }, "there is no worker 0 among 0"),
        ] {
            let error = program(&config).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert_eq!(error.to_string(), expected);
        }
    }
}
