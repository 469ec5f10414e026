//! Capture files of IP packets: what scenarios read and write.
//!
//! The formats are `netio`'s business. Captures whose frames may hold anything are read with
//! [`netio::pcap::Capture`] itself, as [`corpus`](crate::corpus) does.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netio::pcap::{Capture, CaptureError, CaptureWriter, LinkType};
use thiserror::Error;

/// An IP packet and when it was captured, since 1970 or since a gateway's start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Captured {
    /// When.
    pub time: Duration,
    /// The packet, from its IP header on.
    pub packet: Vec<u8>,
}

/// Reads the IP packets of a capture: all of its frames.
///
/// # Errors
/// [`Problem`] if a frame cannot be read, was cut short, or holds no IP packet.
pub fn read(path: &Path) -> Result<Vec<Captured>, Problem> {
    let problem = |cause| Problem { path: path.to_owned(), cause };
    let file = File::open(path).map_err(|error| problem(error.into()))?;
    let capture = Capture::read(file).map_err(|error| problem(error.into()))?;
    let packet = |(number, frame): (usize, Result<netio::pcap::Frame<'_>, _>)| {
        let frame = frame.map_err(Cause::from)?;
        match frame.ip().filter(|_| frame.is_complete()) {
            Some(ip) => Ok(Captured { time: frame.timestamp, packet: ip.to_vec() }),
            None => Err(Cause::NoPacket(number + 1)),
        }
    };
    capture.frames().enumerate().map(packet).collect::<Result<_, _>>().map_err(problem)
}

/// The bytes of a capture with these packets, the same for the same packets.
///
/// # Panics
/// If a time is out of the format's range.
pub fn bytes<'a>(packets: impl IntoIterator<Item = &'a Captured>) -> Vec<u8> {
    let mut writer = CaptureWriter::new(Vec::new(), LinkType::RAW).expect("memory to write to");
    for Captured { time, packet } in packets {
        writer.write(*time, &[packet]).expect("memory to write to");
    }
    writer.into_inner()
}

/// A capture that cannot be used.
#[derive(Debug, Error)]
#[error("{}: {cause}", path.display())]
pub struct Problem {
    /// Which.
    pub path: PathBuf,
    /// What is wrong with it.
    pub cause: Cause,
}

/// What is wrong with a capture.
#[derive(Debug, Error)]
pub enum Cause {
    /// The file cannot be opened.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is no capture, or not from its beginning to its end.
    #[error(transparent)]
    Format(#[from] CaptureError),
    /// A frame holds no whole IP packet.
    #[error("frame {0} holds no whole IP packet")]
    NoPacket(usize),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets::Ip;

    #[test]
    fn what_was_written_is_read() {
        let packets: Vec<_> = [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")]
            .iter()
            .zip(1..)
            .map(|((src, dst), millis)| Captured {
                time: Duration::from_millis(millis),
                packet: Ip::new(src, dst).udp((1, 2), b"hello"),
            })
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes(&packets)).unwrap();
        assert_eq!(read(file.path()).unwrap(), packets);
    }

    #[test]
    fn a_file_that_ends_early_is_named() {
        let packet = Captured { time: Duration::ZERO, packet: vec![0x45; 40] };
        let mut bytes = bytes([&packet]);
        bytes.pop();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let problem = read(file.path()).unwrap_err().to_string();
        assert!(problem.contains(file.path().to_str().unwrap()), "{problem}");
        assert!(problem.contains("in the middle of a packet"), "{problem}");
    }
}
