//! Why a gateway could not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use netio::link::LinkError;
use netio::netns::NetnsError;
use nix::errno::Errno;
use thiserror::Error;

/// What could not be had. Nothing was left behind.
#[derive(Debug, Error)]
pub enum StartError {
    /// A namespace that the configuration names.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A TUN device.
    #[error("cannot create the TUN device \"{name}\" in {netns}: {error}{}", tun_hint(error))]
    Tun {
        /// Its name.
        name: String,
        /// Its namespace.
        netns: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// Setting up a device.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A socket of the underlay.
    #[error("cannot open UDP {address} in {netns}: {error}{}", bind_hint(error))]
    Udp {
        /// The address.
        address: SocketAddr,
        /// The underlay's namespace.
        netns: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// The secret.
    #[error("cannot {action} the secret file {}: {error}", path.display())]
    Secret {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// A listener of the control plane.
    #[error("cannot serve {what} on {address}: {error}")]
    Listen {
        /// The admin API or the metrics.
        what: &'static str,
        /// Where.
        address: String,
        /// What went wrong.
        error: io::Error,
    },
    /// The certificates that HTTPS health checks are verified with.
    #[error("{0}")]
    CaFile(Box<dyn std::error::Error + Send + Sync>),
    /// A setting that sockets have from the beginning.
    #[error("`{0}` of a node that is there already cannot be changed while the gateway runs")]
    Fixed(&'static str),
    /// Something that takes privileges, which a running gateway has given up.
    #[error("a running gateway cannot have {0}: it has given up the privileges; restart it")]
    OnlyAtStart(String),
    /// A CPU that `pin_workers` names.
    #[error("no worker can stay on CPU {cpu}: the CPUs for this process are {}", numbers(allowed))]
    Cpu {
        /// Its number.
        cpu: usize,
        /// Those that there are, less what a cgroup, a container or `taskset` withholds.
        allowed: Vec<usize>,
    },
    /// A device that is to take more than this kernel does.
    #[error("`big_tcp` of the device \"{0}\" needs Linux 6.3 or later; leave it out")]
    BigTcp(String),
    /// Something about itself that the system does not say.
    #[error("cannot find out what this system has: {0}")]
    Kernel(io::Error),
    /// Privileges that could not be given up.
    #[error("cannot give up privileges: {0}")]
    Privileges(io::Error),
    /// A thread, a poller or the like.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// A worker's event queue, or the memory of its flow table.
    #[error("cannot set up a worker's event queue and flow table: {0}")]
    Worker(io::Error),
}

/// `0-3, 8`: numbers in order, neighbours together.
fn numbers(numbers: &[usize]) -> String {
    let ranges = numbers.chunk_by(|one, next| one + 1 == *next);
    let range = |range: &[usize]| match range {
        [first, .., last] => format!("{first}-{last}"),
        single => single.iter().map(ToString::to_string).collect(),
    };
    ranges.map(range).collect::<Vec<_>>().join(", ")
}

fn tun_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => {
            " (needs CAP_NET_ADMIN, and write access to /dev/net/tun)"
        }
        Some(Errno::ENOENT | Errno::ENODEV) => " (is the kernel module \"tun\" loaded?)",
        _ => "",
    }
}

fn bind_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            " (a node's address must be set on a device of the load balancer's netns)"
        }
        io::ErrorKind::AddrInUse => " (is another gateway running there?)",
        io::ErrorKind::PermissionDenied => {
            " (CAP_NET_BIND_SERVICE for a port below 1024, CAP_NET_RAW for \
             tolerate_bad_udp_checksum; a running gateway has given them up)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_is_not_there_is_told_with_those_that_are() {
        let error = StartError::Cpu { cpu: 64, allowed: vec![0, 1, 2, 5, 8, 9] };
        let told = "no worker can stay on CPU 64: the CPUs for this process are 0-2, 5, 8-9";
        assert_eq!(error.to_string(), told);
    }
}
