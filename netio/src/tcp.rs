//! What the kernel knows of a TCP connection and shows nobody who only reads and writes.

use std::io;
use std::os::fd::AsFd;

use socket2::SockRef;

use crate::udp::options;

/// 32-bit words of the kernel's `struct tcp_info` up to the last one that is read here. Older
/// kernels fill fewer.
const WORDS: usize = 55;
/// Where `tcpi_total_retrans` is, in words.
const TOTAL_RETRANSMISSIONS: usize = 25;
/// Where `tcpi_dsack_dups` is, in words (since Linux 4.19).
const DUPLICATES: usize = 54;

/// What happened to a connection's segments so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpInfo {
    /// Segments that were sent more than once, each time but the first counted
    /// (`tcpi_total_retrans`).
    pub retransmissions: u32,
    /// Segments that the other end reported to have received twice (`tcpi_dsack_dups`, RFC 2883):
    /// so many retransmissions were not needed, since nothing had been lost. 0 in kernels before
    /// 4.19.
    pub duplicates: u32,
}

impl TcpInfo {
    /// Asks the kernel about a connection; one that was reset can be asked about as well, as long
    /// as its socket is open.
    ///
    /// # Errors
    /// What `getsockopt(TCP_INFO)` says, for example about a socket that is none of TCP.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let mut words = [0; WORDS];
        options::get(&SockRef::from(socket), libc::IPPROTO_TCP, libc::TCP_INFO, &mut words)?;
        Ok(Self { retransmissions: words[TOTAL_RETRANSMISSIONS], duplicates: words[DUPLICATES] })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::link::Links;
    use crate::netns::ScratchNetns;

    #[test]
    fn an_undisturbed_connection_repeats_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut there, _) = listener.accept().unwrap();
        here.write_all(b"hello").unwrap();
        there.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(TcpInfo::of(&here).unwrap(), TcpInfo::default());
        assert_eq!(TcpInfo::of(&std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).ok(), None);
    }

    #[test]
    fn what_is_not_acknowledged_is_counted_when_it_is_repeated() {
        let test = "what_is_not_acknowledged_is_counted_when_it_is_repeated";
        let (Some(near), Some(far)) = (ScratchNetns::for_test(test), ScratchNetns::for_test(test))
        else {
            return;
        };
        let (links, far_links) = (Links::in_netns(&near).unwrap(), Links::in_netns(&far).unwrap());
        links.create_veth("near", "far", &far).unwrap();
        for (links, name, address) in [(&links, "near", 1), (&far_links, "far", 2)] {
            links.add_address(name, [192, 0, 2, address].into(), 24).unwrap();
            links.set_up(name).unwrap();
        }
        let listener = far.run(|| TcpListener::bind("192.0.2.2:0")).unwrap().unwrap();
        let to = listener.local_addr().unwrap();
        let mut here = near.run(|| TcpStream::connect(to)).unwrap().unwrap();
        let (_there, _) = listener.accept().unwrap();
        far_links.set_down("far").unwrap();
        here.write_all(b"hello").unwrap();
        here.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        // The first repetition comes after 200 ms; nothing ever comes to be read.
        let repeated = (0..500).any(|_| {
            here.read(&mut [0]).unwrap_err();
            TcpInfo::of(&here).unwrap().retransmissions > 0
        });
        assert!(repeated);
    }
}
