//! VXLAN devices between two hosts (RFC 7348), in the kernel's own defaults.

use std::net::IpAddr;

use rtnetlink::LinkVxlan;

use super::{LinkError, Links};

/// A VXLAN device with one host at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan<'a> {
    /// The name of the device: 1 to 15 bytes.
    pub name: &'a str,
    /// The number of the network, 24 bits.
    pub vni: u32,
    /// The link that it sends by.
    pub link: &'a str,
    /// The outer address of this end.
    pub local: IpAddr,
    /// The outer address of the other end.
    pub remote: IpAddr,
    /// The UDP port of both ends; 4789 is VXLAN's own.
    pub port: u16,
}

impl Links {
    /// Makes a VXLAN device, which is down.
    pub fn create_vxlan(&self, vxlan: &Vxlan<'_>) -> Result<(), LinkError> {
        let Vxlan { name, vni, link, local, remote, port } = *vxlan;
        let builder = LinkVxlan::new(name, vni).dev(self.get(link)?.index).port(port);
        let builder = match local {
            IpAddr::V4(address) => builder.local(address),
            IpAddr::V6(address) => builder.local6(address),
        };
        let message = match remote {
            IpAddr::V4(address) => builder.remote(address),
            IpAddr::V6(address) => builder.remote6(address),
        };
        self.wait(self.handle.link().add(message.build()).execute())
            .map_err(|error| self.error(format!("create VXLAN {name:?} to {remote}"), error))
    }
}
