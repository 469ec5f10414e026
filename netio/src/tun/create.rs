//! Opening the queues of a new TUN device, by the `ioctl` calls that `linux/if_tun.h` defines.

use std::{
    fs::{File, OpenOptions},
    io, mem,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
};

use libc::{c_int, c_uint, c_ulong, ifreq};

use super::{TunConfig, invalid};

const DEVICE: &str = "/dev/net/tun";

/// `MAX_TAP_QUEUES` of the kernel.
const MAX_QUEUES: usize = 256;

/// Opens the queues of a device that did not exist before, and says whether UDP super-packets are
/// possible.
pub(super) fn open_queues(config: &TunConfig) -> io::Result<(Vec<File>, bool)> {
    if !(1..=MAX_QUEUES).contains(&config.queues) {
        let queues = config.queues;
        return Err(invalid(format!("a TUN has 1 to {MAX_QUEUES} queues, not {queues}")));
    }
    let mut request = request(&config.name)?;
    let mut flags = libc::IFF_TUN | libc::IFF_NO_PI;
    if config.offload {
        flags |= libc::IFF_VNET_HDR;
    }
    if config.queues > 1 {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let mut files = Vec::with_capacity(config.queues);
    for index in 0..config.queues {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(DEVICE)
            .map_err(|error| told(&format!("open {DEVICE}"), &error))?;
        // Only the first queue creates the device, and must not join one that is there.
        let exclusive = if index == 0 { libc::IFF_TUN_EXCL } else { 0 };
        request.ifr_ifru.ifru_flags = (flags | exclusive) as libc::c_short;
        attach(&file, &mut request, config)?;
        files.push(file);
    }
    let udp = config.offload && offer(&files[0])?;
    Ok((files, udp))
}

/// A request about the interface `name`.
fn request(name: &str) -> io::Result<ifreq> {
    // SAFETY: an `ifreq` is a name and a union of plain values, for which zero is valid.
    let mut request: ifreq = unsafe { mem::zeroed() };
    // The kernel takes `%` for a pattern, and would choose a name.
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains(['\0', '%']) {
        let longest = request.ifr_name.len() - 1;
        return Err(invalid(format!("{name:?} is no interface name of 1 to {longest} bytes")));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

fn attach(file: &File, request: &mut ifreq, config: &TunConfig) -> io::Result<()> {
    // SAFETY: TUNSETIFF reads and writes an `ifreq`.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut *request) } == 0 {
        return Ok(());
    }
    let (error, name) = (io::Error::last_os_error(), &config.name);
    if error.raw_os_error() == Some(libc::EBUSY) {
        let message = format!("there is an interface {name:?} already");
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    Err(told(&format!("create TUN {name:?}"), &error))
}

/// Offers the kernel to take super-packets and unfinished checksums from it.
fn offer(file: &File) -> io::Result<bool> {
    const TCP: c_uint =
        libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    const UDP: c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let set = |offloads: c_uint| -> c_int {
        // SAFETY: TUNSETOFFLOAD takes a number, not a pointer.
        unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, c_ulong::from(offloads)) }
    };
    if set(TCP | UDP) == 0 {
        return Ok(true);
    }
    // Before Linux 6.2 there was none for UDP.
    match set(TCP) {
        0 => Ok(false),
        _ => Err(told("offer offloads to the kernel", &io::Error::last_os_error())),
    }
}

/// The error, with what was attempted.
fn told(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
