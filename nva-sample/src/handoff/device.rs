//! The TUN device that packets are handed over through, and what the kernel has to be told about
//! it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netio::link::{LinkError, Links, Route};
use netio::netns::{Netns, NetnsError};
use tun_tap::{Iface, Mode};

/// A TUN device. It exists as long as this does.
pub struct Device {
    iface: Iface,
}

/// How to set a device up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Whether the kernel is to send everything back where it came from.
    pub hairpin: bool,
}

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The device could not be made.
    #[error(
        "cannot make the TUN device {name:?}: {error} (it takes /dev/net/tun and CAP_NET_ADMIN)"
    )]
    Open {
        /// Its name.
        name: String,
        /// What the system says.
        error: io::Error,
    },
    /// The device could not be set up.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A setting of the kernel could not be changed.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

impl Device {
    /// Makes a device in the network namespace of the calling thread.
    pub fn open(setup: &Setup) -> Result<Self, SetupError> {
        let Setup { name, mtu, addresses, hairpin } = setup;
        let iface = Iface::without_packet_info(name, Mode::Tun)
            .map_err(|error| SetupError::Open { name: name.clone(), error })?;
        let device = Self { iface };
        let netns = Netns::current()?;
        let links = Links::in_netns(&netns)?;
        links.set_mtu(device.name(), *mtu)?;
        // Up first: an IPv6 address can be reached only on a device that is.
        links.set_up(device.name())?;
        for network in addresses {
            links.add_address(device.name(), network.addr(), network.prefix_len())?;
        }
        if *hairpin {
            device.send_back(&netns, &links)?;
        }
        Ok(device)
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        self.iface.name()
    }

    /// Gives the kernel a packet.
    pub fn send(&self, packet: &[u8]) -> io::Result<usize> {
        self.iface.send(packet)
    }

    /// Waits for a packet from the kernel.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.iface.recv(buffer)
    }

    /// Has the kernel forward what comes from the device, and everything it knows no better way
    /// for, to the device.
    fn send_back(&self, netns: &Netns, links: &Links) -> Result<(), SetupError> {
        let device = self.name();
        netns.set_sysctl("net.ipv4.ip_forward", "1")?;
        netns.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
        for scope in ["all", device] {
            // A packet comes from where the route to its source leads, or from elsewhere.
            netns.set_sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "0")?;
            // Nobody is to be told of a better way than back.
            netns.set_sysctl(&format!("net/ipv4/conf/{scope}/send_redirects"), "0")?;
        }
        for any in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
            links.add_route(&Route::new(any, 0).device(device))?;
        }
        Ok(())
    }
}
