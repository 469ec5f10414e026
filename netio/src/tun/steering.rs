//! Which queue of a TUN the kernel puts a packet into: by a program, the one whose number is the
//! upper half of the keyed hash of the packet's flow, a fraction of 2³², times the number of queues.
//!
//! Without a program the kernel goes by a hash of its own, and by what is written to each queue:
//! a good choice for flows that are answered, and for those that nobody answers none at all.
//!
//! The hash is SipHash-1-3 of what [`CanonicalKey::to_hash_words`] gives, so that whoever has the key
//! comes to the same number. It is of the flow as the IP header and the ports behind it say: a
//! fragment counts without ports, an ICMP error by its own addresses, and what follows an extension
//! header of IPv6 is not looked for.
//!
//! [`CanonicalKey::to_hash_words`]: geneve::flow::CanonicalKey::to_hash_words

use std::{
    fmt,
    fs::File,
    io,
    num::NonZero,
    os::fd::{AsRawFd, OwnedFd},
};

use geneve::flow::Stickiness;
use libc::c_int;

use crate::bpf::extended::{
    Assembler, If, Label,
    Op::{Add, And, Move, Multiply, Or, ShiftLeft, ShiftRight, Xor},
    Register::{self, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9},
    Width::{Byte, Half, Word},
};

/// A program that chooses queues, in the kernel.
///
/// The key is among its instructions, where nobody but root can read it back.
pub struct Program(OwnedFd);

impl Program {
    /// Gives the kernel a program for devices with so many queues. This needs `CAP_BPF` or
    /// `CAP_SYS_ADMIN` in the first user namespace, and Linux 4.16.
    ///
    /// # Errors
    /// What the kernel says: without those capabilities [`io::ErrorKind::PermissionDenied`].
    pub fn load(key: &[u8; 16], stickiness: Stickiness, queues: NonZero<u16>) -> io::Result<Self> {
        program(key, stickiness, queues).load(c"tun_steering").map(Self)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Program(…)")
    }
}

/// By what the kernel is told how to choose a queue of one device, which exists as long as this or
/// one of its queues.
#[derive(Debug)]
pub struct Steering {
    queue: File,
}

impl Steering {
    pub(super) fn of(queue: File) -> Self {
        Self { queue }
    }

    /// Has the kernel choose by this program from now on; or, with `None`, as it does by itself.
    /// It needs no privilege.
    ///
    /// # Errors
    /// What the kernel says: Linux before 4.16 knows of no such thing.
    pub fn choose_by(&self, program: Option<&Program>) -> io::Result<()> {
        let fd: c_int = program.map_or(-1, |program| program.0.as_raw_fd());
        let queue = self.queue.as_raw_fd();
        // SAFETY: TUNSETSTEERINGEBPF reads one number, a program's file descriptor or -1; the
        // kernel holds the program by itself then.
        match unsafe { libc::ioctl(queue, libc::TUNSETSTEERINGEBPF, &raw const fd) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The protocols whose ports count.
const WITH_PORTS: [i32; 2] = [libc::IPPROTO_TCP, libc::IPPROTO_UDP];
/// More fragments, and the offset: set in fragments of IPv4 alone.
const FRAGMENT: i32 = 0x3fff;
/// Length of an IPv6 header, without any other behind it.
const IPV6_HEADER: i32 = 40;
/// What is hashed, in bytes.
const HASHED_V4: u64 = 14;
const HASHED_V6: u64 = 38;
/// Where the IP version stands in the word that is hashed last.
const VERSION: i32 = 40;
/// And the protocol.
const PROTOCOL: i32 = 32;

/// The program. The packet begins with its IP header.
fn program(key: &[u8; 16], stickiness: Stickiness, queues: NonZero<u16>) -> Assembler {
    let mut a = Assembler::new();
    let (v4, v6, hash) = (a.label(), a.label(), a.label());
    a.with(Move, R6, R1);
    a.load_packet(Byte, 0);
    a.by(ShiftRight, R0, 4);
    a.jump_if_it(R0, If::Equal, 4, v4);
    a.jump_if_it(R0, If::Equal, 6, v6);
    a.by(Move, R0, 0);
    a.exit();

    a.place(v4);
    words_of_ipv4(&mut a, stickiness);
    a.jump(hash);
    a.place(v6);
    words_of_ipv6(&mut a, stickiness);

    a.place(hash);
    siphash(&mut a, key);
    a.by(ShiftRight, R0, 32);
    a.by(Multiply, R0, queues.get().into());
    a.by(ShiftRight, R0, 32);
    a.exit();
    a
}

/// Leaves in R5 and R6 what is hashed of an IPv4 packet.
fn words_of_ipv4(a: &mut Assembler, stickiness: Stickiness) {
    version_and_protocol(a, stickiness, 4, 9);
    ports(a, stickiness, |a, none| {
        a.load_packet(Half, 6);
        a.by(And, R0, FRAGMENT);
        a.jump_if_it(R0, If::NotEqual, 0, none);
        // The length of the header, in words of four bytes.
        a.load_packet(Byte, 0);
        a.by(And, R0, 0xf);
        a.by(ShiftLeft, R0, 2);
        a.with(Move, R1, R0);
        a.load_packet_at(Word, R1);
    });
    a.load_packet(Word, 12);
    a.with(Move, R8, R0);
    a.load_packet(Word, 16);

    // The ends, each a number of 48 bits: the address, then the port.
    let ordered = a.label();
    a.with(Move, R1, R7);
    a.by(ShiftRight, R1, 16);
    a.by(ShiftLeft, R8, 16);
    a.with(Or, R8, R1);
    a.by(And, R7, 0xffff);
    a.by(ShiftLeft, R0, 16);
    a.with(Or, R0, R7);
    a.jump_if(R8, If::AtMost, R0, ordered);
    a.with(Move, R1, R0);
    a.with(Move, R0, R8);
    a.with(Move, R8, R1);
    a.place(ordered);

    // Version, protocol, low port, high port.
    a.with(Move, R5, R8);
    a.by(And, R5, 0xffff);
    a.by(ShiftLeft, R5, 16);
    a.with(Or, R5, R9);
    a.with(Move, R1, R0);
    a.by(And, R1, 0xffff);
    a.with(Or, R5, R1);
    // Low address, high address.
    a.by(ShiftRight, R8, 16);
    a.by(ShiftLeft, R8, 32);
    a.by(ShiftRight, R0, 16);
    a.with(Or, R8, R0);
    a.with(Move, R6, R8);
}

/// Leaves in R5 to R9 what is hashed of an IPv6 packet.
fn words_of_ipv6(a: &mut Assembler, stickiness: Stickiness) {
    version_and_protocol(a, stickiness, 6, 6);
    ports(a, stickiness, |a, _| a.load_packet(Word, IPV6_HEADER));
    for word in 0..4 {
        let at = 8 + 8 * i32::from(word);
        a.load_packet(Word, at);
        a.with(Move, R8, R0);
        a.by(ShiftLeft, R8, 32);
        a.load_packet(Word, at + 4);
        a.with(Or, R8, R0);
        a.put(word, R8);
    }
    // Source and destination, two words each, and in R5 and R0 their ports.
    for (word, to) in [R1, R2, R3, R4].into_iter().enumerate() {
        a.get(to, word as u8);
    }
    a.with(Move, R5, R7);
    a.by(ShiftRight, R5, 16);
    a.with(Move, R0, R7);
    a.by(And, R0, 0xffff);

    let (as_is, reversed, done) = (a.label(), a.label(), a.label());
    for (src, dst) in [(R1, R3), (R2, R4), (R5, R0)] {
        a.jump_if(src, If::Less, dst, as_is);
        a.jump_if(src, If::Greater, dst, reversed);
    }
    a.place(as_is);
    a.by(ShiftLeft, R5, 16);
    a.with(Or, R5, R0);
    a.with(Or, R5, R9);
    for (to, from) in [(R6, R1), (R7, R2), (R8, R3), (R9, R4)] {
        a.with(Move, to, from);
    }
    a.jump(done);
    a.place(reversed);
    a.by(ShiftLeft, R0, 16);
    a.with(Or, R5, R0);
    a.with(Or, R5, R9);
    for (to, from) in [(R6, R3), (R7, R4), (R8, R1), (R9, R2)] {
        a.with(Move, to, from);
    }
    a.place(done);
}

/// Leaves in R9 the word that is hashed last, but for the ports; and in R8 the protocol, if it
/// counts.
fn version_and_protocol(a: &mut Assembler, stickiness: Stickiness, version: i32, protocol: i32) {
    a.by(Move, R9, version);
    a.by(ShiftLeft, R9, VERSION);
    if stickiness != Stickiness::TwoTuple {
        a.load_packet(Byte, protocol);
        a.with(Move, R8, R0);
        a.by(ShiftLeft, R0, PROTOCOL);
        a.with(Or, R9, R0);
    }
}

/// Leaves the ports in R7, as `load` loads them into R0 for a protocol with ports; or 0 where there
/// are none that count.
fn ports(a: &mut Assembler, stickiness: Stickiness, load: impl FnOnce(&mut Assembler, Label)) {
    a.by(Move, R7, 0);
    if stickiness != Stickiness::FiveTuple {
        return;
    }
    let (some, none) = (a.label(), a.label());
    for protocol in WITH_PORTS {
        a.jump_if_it(R8, If::Equal, protocol, some);
    }
    a.jump(none);
    a.place(some);
    load(a, none);
    a.with(Move, R7, R0);
    a.place(none);
}

/// Leaves in R0 the SipHash-1-3 of the word in R6, for IPv6 also of those in R7 to R9, and of the six
/// bytes in R5.
fn siphash(a: &mut Assembler, key: &[u8; 16]) {
    // "somepseudorandomlygeneratedbytes"
    const INITIAL: [u64; 4] = [
        0x736f_6d65_7073_6575,
        0x646f_7261_6e64_6f6d,
        0x6c79_6765_6e65_7261,
        0x7465_6462_7974_6573,
    ];
    let (words, _) = key.as_chunks();
    for (number, (state, initial)) in STATE.into_iter().zip(INITIAL).enumerate() {
        a.set(state, initial ^ u64::from_le_bytes(words[number % 2]));
    }
    let (v4, last) = (a.label(), a.label());
    take(a, R6);
    a.with(Move, R0, R5);
    a.by(ShiftRight, R0, VERSION);
    a.jump_if_it(R0, If::Equal, 4, v4);
    for word in [R7, R8, R9] {
        take(a, word);
    }
    a.set(R0, HASHED_V6 << 56);
    a.jump(last);
    a.place(v4);
    a.set(R0, HASHED_V4 << 56);
    a.place(last);
    a.with(Or, R5, R0);
    take(a, R5);
    a.by(Xor, R3, 0xff);
    for _ in 0..3 {
        round(a);
    }
    a.with(Move, R0, R1);
    for state in [R2, R3, R4] {
        a.with(Xor, R0, state);
    }
}

/// The state of the hash; R0 is its scratch paper.
const STATE: [Register; 4] = [R1, R2, R3, R4];

/// Takes a word into the hash.
fn take(a: &mut Assembler, word: Register) {
    a.with(Xor, R4, word);
    round(a);
    a.with(Xor, R1, word);
}

/// `SIPROUND`
fn round(a: &mut Assembler) {
    let [v0, v1, v2, v3] = STATE;
    add_and_mix(a, v0, v1, 13);
    add_and_mix(a, v2, v3, 16);
    rotate(a, v0, 32);
    add_and_mix(a, v2, v1, 17);
    add_and_mix(a, v0, v3, 21);
    rotate(a, v2, 32);
}

fn add_and_mix(a: &mut Assembler, sum: Register, with: Register, bits: i32) {
    a.with(Add, sum, with);
    rotate(a, with, bits);
    a.with(Xor, with, sum);
}

/// Rotates to the left. The kernel's machine has no instruction for it.
fn rotate(a: &mut Assembler, register: Register, bits: i32) {
    a.with(Move, R0, register);
    a.by(ShiftLeft, register, bits);
    a.by(ShiftRight, R0, 64 - bits);
    a.with(Or, register, R0);
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
        os::fd::AsFd,
    };

    use geneve::{
        IpVersion, arbitrary,
        flow::{CanonicalKey, FlowKey},
        inner::Transport,
    };
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    use super::*;
    use crate::{bpf::extended::tests::run, netns::skip_test};

    const SIX: NonZero<u16> = NonZero::new(6).unwrap();

    /// Whether this environment lets us load programs and try them; else the test is skipped.
    fn may(test: &str) -> bool {
        let tried = Program::load(&[0; 16], Stickiness::FiveTuple, SIX)
            .and_then(|program| run(program.0.as_fd(), &[0x45; 64], 1));
        tried.map_err(|error| skip_test(test, error)).is_ok()
    }

    fn answer(program: &Program, packet: &[u8]) -> u32 {
        run(program.0.as_fd(), packet, 1).unwrap().0
    }

    /// The owner of a flow, as everybody else finds it.
    fn owner(key: &[u8; 16], flow: &CanonicalKey, queues: NonZero<u16>) -> u32 {
        let bytes: Vec<_> = flow.to_hash_words().bytes().collect();
        let hash = SipHasher13::new_with_key(key).hash(&bytes);
        (((hash >> 32) * u64::from(queues.get())) >> 32) as u32
    }

    /// A packet of a flow, with a header of as many words if it is IPv4, and nothing behind the
    /// ports.
    fn packet(flow: &FlowKey, words: u8) -> Vec<u8> {
        let mut packet = match (flow.src(), flow.dst()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut header = vec![0; usize::from(words) * 4];
                (header[0], header[9]) = (4 << 4 | words, flow.protocol());
                header[12..16].copy_from_slice(&src.octets());
                header[16..20].copy_from_slice(&dst.octets());
                header
            }
            (src, dst) => {
                let mut header = vec![6 << 4, 0, 0, 0, 0, 8, flow.protocol(), 64];
                for address in [src, dst] {
                    let IpAddr::V6(address) = address else { unreachable!("one version") };
                    header.extend(address.octets());
                }
                header
            }
        };
        packet
            .extend([flow.src_port().to_be_bytes(), flow.dst_port().to_be_bytes()].as_flattened());
        packet.extend([0xff; 4]);
        packet
    }

    /// Ends that are often the same in part, for what comes second and third in their order.
    fn ends() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        let word = || prop::sample::select(&[0_u64, 1, 1 << 31, 1 << 63, u64::MAX][..]);
        let v6 = move || {
            (word(), word()).prop_map(|(high, low)| {
                IpAddr::from(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)))
            })
        };
        let v4 = prop::sample::select(&[0_u32, 1, 1 << 31, u32::MAX][..]);
        let v4 = v4.prop_map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits)));
        let port = || prop::sample::select(&[0_u16, 1, 0x7fff, 0x8000, u16::MAX][..]);
        let address = prop_oneof![(v4.clone(), v4), (v6(), v6())];
        let close = (address, port(), port())
            .prop_map(|((src, dst), a, b)| (SocketAddr::new(src, a), SocketAddr::new(dst, b)));
        prop_oneof![close, arbitrary::socket_pair()]
    }

    /// It is what the hash of the flow says, in both directions, whatever counts of the flow.
    #[test]
    fn the_kernel_chooses_the_owner() {
        if !may("the_kernel_chooses_the_owner") {
            return;
        }
        let stickiness = prop::sample::select(&Stickiness::ALL[..]);
        proptest!(|(
            key: [u8; 16], (src, dst) in ends(), other: u8, words in 5..=15_u8,
            queues in 1_u16.., stickiness in stickiness,
        )| {
            let queues = NonZero::new(queues).unwrap();
            let program = Program::load(&key, stickiness, queues).unwrap();
            for protocol in [6, 17, other] {
                let flow = FlowKey::new(src, dst, protocol).unwrap();
                let known = if [6, 17].contains(&protocol) { flow } else { flow.portless() };
                let expected = owner(&key, &known.sticky(stickiness), queues);
                for flow in [flow, flow.reversed()] {
                    prop_assert_eq!(answer(&program, &packet(&flow, words)), expected, "{}", flow);
                }
            }
        });
    }

    /// And so it is for all that the parser reads, but for what is documented to be otherwise.
    #[test]
    fn it_reads_packets_as_the_parser_does() {
        if !may("it_reads_packets_as_the_parser_does") {
            return;
        }
        let stickiness = prop::sample::select(&Stickiness::ALL[..]);
        proptest!(|(key: [u8; 16], valid in arbitrary::packet(), stickiness in stickiness)| {
            let program = Program::load(&key, stickiness, SIX).unwrap();
            let answer = answer(&program, &valid.bytes);
            prop_assert!(answer < 6);
            let inner = valid.inner;
            let bare = inner.version == IpVersion::V4 || inner.header_len == 40;
            // Only fragments may end before their ports, and they count without.
            if bare && !matches!(inner.transport, Transport::IcmpError { .. }) {
                let expected = owner(&key, &inner.flow_key().sticky(stickiness), SIX);
                prop_assert_eq!(answer, expected, "{:?}", inner);
            }
        });
    }

    /// Whatever it is fed, it comes to an end, with a queue that there is.
    #[test]
    fn noise_gets_some_queue() {
        if !may("noise_gets_some_queue") {
            return;
        }
        let load = |stickiness| Program::load(&[7; 16], stickiness, SIX).unwrap();
        let programs = Stickiness::ALL.map(load);
        proptest!(|(noise in prop::collection::vec(any::<u8>(), 40..100))| {
            for program in &programs {
                prop_assert!(answer(program, &noise) < 6);
            }
        });
    }

    #[test]
    fn what_is_cut_short_gets_the_first_queue() {
        if !may("what_is_cut_short_gets_the_first_queue") {
            return;
        }
        let pairs = [("10.0.0.1:1", "10.0.0.2:2"), ("[fd00::1]:1", "[fd00::2]:2")];
        for (src, dst) in pairs {
            let flow = FlowKey::new(src.parse().unwrap(), dst.parse().unwrap(), 17).unwrap();
            // A key with which the whole packet gets another one.
            let key =
                (0..=u8::MAX).map(|n| [n; 16]).find(|key| owner(key, &flow.canonical(), SIX) != 0);
            let program = Program::load(&key.unwrap(), Stickiness::FiveTuple, SIX).unwrap();
            let packet = packet(&flow, 5);
            let ports = packet.len() - 8;
            assert_ne!(answer(&program, &packet[..ports + 4]), 0);
            assert_eq!(answer(&program, &packet[..ports + 3]), 0);
        }
    }

    /// The key is written to one place, which is wiped.
    #[test]
    fn a_program_is_not_moved_while_it_is_written() {
        for stickiness in Stickiness::ALL {
            assert!(program(&[1; 16], stickiness, SIX).stayed());
        }
        let Ok(program) = Program::load(b"a key of 16 byte", Stickiness::FiveTuple, SIX) else {
            return;
        };
        assert_eq!(format!("{program:?}"), "Program(…)");
    }

    #[test]
    #[ignore = "a measurement: cargo test --release -p netio --lib -- --ignored --nocapture how_long"]
    fn how_long_a_choice_takes() {
        for (src, dst) in [("10.0.0.1:1", "10.0.0.2:2"), ("[fd00::1]:1", "[fd00::2]:2")] {
            let flow = FlowKey::new(src.parse().unwrap(), dst.parse().unwrap(), 17).unwrap();
            let program = Program::load(&[1; 16], Stickiness::FiveTuple, SIX).unwrap();
            let (_, nanoseconds) = run(program.0.as_fd(), &packet(&flow, 5), 1_000_000).unwrap();
            println!("{flow}: {nanoseconds} ns");
        }
    }
}
