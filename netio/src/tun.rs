//! TUN devices: IP packets between the kernel's stack and this program, super-packets included.
//!
//! With offload on, the kernel hands over what TCP (or UDP with `UDP_SEGMENT`) sent in one piece,
//! up to 64 KiB uncut and without checksums, and takes the same back; the virtio-net header in
//! front of each packet becomes an [`Offload`]. Addresses and routes are set by [`crate::link`].
//!
//! This is a small module of its own because the published crates join a device of the same name
//! instead of refusing it, and copy packets between their own buffers to cut and to join them.

mod create;
pub mod steering;
pub(crate) mod virtio;

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    sys::uio::{readv, writev},
};

use crate::{
    device::{Device, Slot},
    link::Links,
    netns::Netns,
    offload::{MAX_PIECES, Offload},
};
use steering::Steering;

/// The longest packet that is read: a TUN takes super-packets of up to 65,536 bytes, whatever its
/// `gso_max_size`, from the kernel.
pub const MAX_PACKET: usize = 65_536;

/// How many pieces one packet may be sent in: those of a coalesced super-packet and its headers.
pub const MAX_SEND_PIECES: usize = MAX_PIECES + 1;

/// As many pieces as the kernel takes without allocating (`UIO_FASTIOV`).
const FEW_PIECES: usize = 8;

/// What device to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunConfig {
    /// The interface's name: 1 to 15 bytes.
    pub name: String,
    /// How many queues it has: 1 to 256. The kernel spreads flows over them, by a hash and by what
    /// is written to each, unless [`Tun::steering`] has it choose otherwise.
    pub queues: usize,
    /// The interface's MTU in bytes: 68 to 65,535.
    pub mtu: u32,
    /// Whether packets carry a virtio-net header: super-packets and unfinished checksums, both
    /// ways.
    pub offload: bool,
    /// The longest super-packet that the kernel makes, in bytes. `None` leaves its default of
    /// 65,536.
    pub gso_max_size: Option<u32>,
}

/// Whether this kernel takes TCP super-packets over IPv4 that are longer than 65,535 bytes, whose
/// length field is 0 (IPv4 BIG TCP): Linux 6.3 and later.
///
/// # Errors
/// If the kernel does not say which one it is, in `/proc/sys/kernel/osrelease`.
pub fn takes_big_tcp() -> io::Result<bool> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let version = version(&release).ok_or_else(|| invalid(format!("no Linux: {release:?}")))?;
    Ok(version >= BIG_TCP_SINCE)
}

/// The first kernel with IPv4 BIG TCP (`iph_totlen`).
const BIG_TCP_SINCE: (u32, u32) = (6, 3);

/// The first two numbers of a release such as `6.12.4-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let (major, rest) = release.trim().split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A TUN device that this program created. It exists as long as one of its queues.
#[derive(Debug)]
pub struct Tun {
    name: String,
    queues: Vec<TunQueue>,
    udp_segmentation: bool,
}

impl Tun {
    /// Creates the device, down and without addresses, in the network namespace of the calling
    /// thread. This needs `CAP_NET_ADMIN` there, and a `/dev/net/tun` that may be opened.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if there is an interface of that name,
    /// [`io::ErrorKind::InvalidInput`] if the configuration is out of range, and whatever else the
    /// kernel says. Nothing is left behind.
    pub fn create(config: &TunConfig) -> io::Result<Self> {
        let (files, udp_segmentation) = create::open_queues(config)?;
        let links = Links::in_netns(&Netns::current().map_err(io::Error::other)?);
        let links = links.map_err(io::Error::other)?;
        links.set_mtu(&config.name, config.mtu).map_err(io::Error::other)?;
        if let Some(bytes) = config.gso_max_size {
            links.set_gso_max_size(&config.name, bytes).map_err(io::Error::other)?;
        }
        let queues = files.into_iter().map(|file| TunQueue::new(file, config.offload)).collect();
        Ok(Self { name: config.name.clone(), queues, udp_segmentation })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the kernel also hands over and takes UDP super-packets (USO, Linux 6.2).
    pub fn udp_segmentation(&self) -> bool {
        self.udp_segmentation
    }

    /// By what the kernel is told which queue it should choose. To be asked for while the queues
    /// are here.
    ///
    /// # Errors
    /// If the queues were taken, or no file descriptor is left.
    pub fn steering(&self) -> io::Result<Steering> {
        let queue = self.queues.first().ok_or_else(|| invalid("no queue is left".to_owned()))?;
        Ok(Steering::of(queue.file.try_clone()?))
    }

    /// The device's queues, to be given to the threads that serve them, in the order in which the
    /// kernel numbers them, from 0; the second call returns none.
    pub fn take_queues(&mut self) -> Vec<TunQueue> {
        std::mem::take(&mut self.queues)
    }
}

/// One queue of a TUN device.
#[derive(Debug)]
pub struct TunQueue {
    file: File,
    offload: bool,
    syscalls: u64,
    discarded: u64,
}

impl TunQueue {
    fn new(file: File, offload: bool) -> Self {
        Self { file, offload, syscalls: 0, discarded: 0 }
    }

    /// Whether its packets carry a virtio-net header ([`TunConfig::offload`]).
    pub fn has_offload(&self) -> bool {
        self.offload
    }

    /// How many system calls receiving and sending have made.
    pub fn syscalls(&self) -> u64 {
        self.syscalls
    }

    /// How many packets were read but discarded: longer than their slot, or with a virtio-net
    /// header that asks for what was never offered.
    pub fn discarded(&self) -> u64 {
        self.discarded
    }

    /// Reads one packet into the slot; `None` if nothing is waiting.
    fn read(&mut self, slot: &mut Slot<Offload>) -> io::Result<Option<Read>> {
        slot.packet.clear();
        let spare = slot.packet.spare_mut();
        let room = spare.len();
        let mut header = [0; virtio::HEADER];
        // The kernel cuts off what does not fit and says nothing; this byte tells.
        let mut beyond = [0; 1];
        let header_len = if self.offload { virtio::HEADER } else { 0 };
        let read = loop {
            let mut pieces = [
                IoSliceMut::new(&mut header[..header_len]),
                IoSliceMut::new(&mut *spare),
                IoSliceMut::new(&mut beyond),
            ];
            self.syscalls += 1;
            match readv(&self.file, &mut pieces) {
                Ok(read) => break read,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        let len = read.saturating_sub(header_len);
        if read < header_len || len > room {
            return Ok(Some(Read::Unusable));
        }
        let offload = if self.offload { virtio::decode(header) } else { Some(Offload::NONE) };
        let Some(offload) = offload else {
            return Ok(Some(Read::Unusable));
        };
        slot.packet.set_len(len).map_err(io::Error::other)?;
        slot.meta = offload;
        Ok(Some(Read::Packet))
    }

    /// Writes `header` and `pieces` as one packet. `N` is at least one more than there are pieces.
    fn write<const N: usize>(&mut self, header: &[u8], pieces: &[IoSlice<'_>]) -> io::Result<()> {
        let mut all = [IoSlice::new(&[]); N];
        let (first, rest) = if header.is_empty() {
            (pieces.len(), &mut all[..])
        } else {
            all[0] = IoSlice::new(header);
            (pieces.len() + 1, &mut all[1..])
        };
        rest[..pieces.len()].copy_from_slice(pieces);
        loop {
            self.syscalls += 1;
            match writev(&self.file, &all[..first]) {
                // The kernel takes a packet whole or not at all.
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

enum Read {
    Packet,
    Unusable,
}

impl Device for TunQueue {
    type Meta = Offload;

    /// Reads packets until the slots are full or nothing is left: one system call each, and one
    /// more to find that nothing is left. Slots should have room for [`MAX_PACKET`] with offload
    /// on, else for the MTU.
    fn recv(&mut self, slots: &mut [Slot<Offload>]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(slot) = slots.get_mut(filled) {
            match self.read(slot) {
                Ok(Some(Read::Packet)) => filled += 1,
                Ok(Some(Read::Unusable)) => self.discarded += 1,
                Ok(None) => break,
                // What was read before must not be lost; the error will come again.
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Writes one packet, gathered from up to [`MAX_SEND_PIECES`] pieces.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for too many pieces, or for a super-packet or an unfinished
    /// checksum on a device without offload.
    fn send(&mut self, meta: &Offload, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        if pieces.len() > MAX_SEND_PIECES {
            let got = pieces.len();
            return Err(invalid(format!("a packet in {got} pieces, at most {MAX_SEND_PIECES}")));
        }
        let mut header = [0; virtio::HEADER];
        let header = if self.offload {
            let first = pieces.iter().find_map(|piece| piece.first().copied());
            header = virtio::encode(meta, first.map_or(0, |byte| byte >> 4));
            &header[..]
        } else if *meta == Offload::NONE {
            &header[..0]
        } else {
            return Err(invalid(format!("{meta:?} on a TUN without offload")));
        };
        if pieces.len() < FEW_PIECES {
            self.write::<FEW_PIECES>(header, pieces)
        } else {
            self.write::<{ MAX_SEND_PIECES + 1 }>(header, pieces)
        }
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart_by_number_and_not_by_letter() {
        let big = |release| version(release).map(|version| version >= BIG_TCP_SINCE);
        assert_eq!(big("6.3.0-rc1\n"), Some(true));
        assert_eq!(big("6.18"), Some(true), "not 6.1");
        assert_eq!(big("7.0-custom"), Some(true));
        assert_eq!(big("6.2.16-generic"), Some(false));
        assert_eq!(big("5.15.0"), Some(false));
        assert_eq!(big("what"), None);
        takes_big_tcp().unwrap();
    }
}
