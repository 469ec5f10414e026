//! Datagrams that come back.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;

/// Where the echo service listens.
pub(in crate::lab) const PORT: u16 = 7;
/// Payload lengths, from one byte to what fits into 1500 bytes with IPv6.
const LENGTHS: [usize; 8] = [1, 8, 64, 250, 512, 1000, 1280, 1452];

/// Sends datagrams of several lengths, one after the other, and returns how many came back as they
/// were, of how many. Blocks.
pub(in crate::lab) fn echo(to: SocketAddr) -> io::Result<(usize, usize)> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(super::PATIENCE))?;
    let mut returned = 0;
    for (number, length) in LENGTHS.into_iter().enumerate() {
        let sent = vec![number as u8 + 1; length];
        socket.send(&sent)?;
        let mut back = vec![0; length + 1];
        match socket.recv(&mut back) {
            Ok(len) if back[..len] == sent => returned += 1,
            Ok(_) => {}
            // The one that is lost is not waited for twice, nor are those after it.
            Err(error) if is_timeout(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok((returned, LENGTHS.len()))
}

/// Echoes from a thread of its own, until the process ends.
pub(super) fn serve(socket: UdpSocket) {
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        loop {
            // An error is an ICMP message about an earlier echo; the next datagram is unharmed.
            if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..len], from);
            }
        }
    });
}

/// A read that ran out of time says `WouldBlock` on Linux.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        serve(socket);
        assert_eq!(echo(to).unwrap(), (LENGTHS.len(), LENGTHS.len()));
    }
}
