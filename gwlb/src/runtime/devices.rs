//! The TUN devices of the attachments, as the gateway starts: made, and set up with their addresses
//! and routes.
//!
//! This takes privileges, which a running gateway has not any more, so attachments stay what they
//! were at the start ([`crate::config::diff()`] says so of every change). The devices go with the
//! process.

use std::net::IpAddr;

use geneve::dialect::Dialect;
use ipnet::IpNet;
use netio::link::{Links, Route};
use netio::netns::Netns;
use netio::offload::Limits;
use netio::tun::{Tun, TunConfig, TunQueue};
use netio::udp::MAX_GSO_BYTES;

use super::error::StartError;
use super::rooms::open_netns;
use super::shared::PortLinks;
use crate::config::{AttachmentSettings, Settings};

/// The devices of all attachments.
#[derive(Debug)]
pub(super) struct Devices {
    /// In the order of the configuration, which numbers them for the life of the process.
    pub attachments: Vec<AttachmentSettings>,
    /// For each worker, its queue of each device, in the same order.
    pub queues: Vec<Vec<TunQueue>>,
    /// Whom to ask for each device's counters, in the same order.
    pub links: Vec<PortLinks>,
    /// What all of them take in one write.
    pub limits: Limits,
}

impl Devices {
    /// Makes the devices that `settings` name, with a queue for each worker.
    ///
    /// # Errors
    /// What could not be had; then there is none of them.
    pub fn create(settings: &Settings, workers: u16) -> Result<Self, StartError> {
        let mut devices = Self {
            attachments: settings.attachments.clone(),
            queues: (0..workers).map(|_| Vec::new()).collect(),
            links: Vec::new(),
            limits: Limits::default(),
        };
        for attachment in &settings.attachments {
            let netns = open_netns(attachment.netns.as_ref())?;
            let mut tun = create(attachment, workers, &netns)?;
            devices.limits.udp &= tun.udp_segmentation();
            for (queues, queue) in devices.queues.iter_mut().zip(tun.take_queues()) {
                queues.push(queue);
            }
            let links = set_up(attachment, &netns)?;
            let netns = attachment.netns.as_ref().map(|netns| netns.as_str().to_owned());
            let tun = attachment.tun.as_str().to_owned();
            devices.links.push(PortLinks { tun, netns, links });
        }
        Ok(devices)
    }
}

fn create(attachment: &AttachmentSettings, workers: u16, netns: &Netns) -> Result<Tun, StartError> {
    let config = TunConfig {
        name: attachment.tun.as_str().to_owned(),
        queues: usize::from(workers),
        mtu: attachment.mtu.get(),
        offload: true,
        gso_max_size: Some(gso_max_size(attachment.mtu.get())),
    };
    netns.run(|| Tun::create(&config))?.map_err(|error| StartError::Tun {
        name: config.name.clone(),
        netns: netns.name().to_owned(),
        error,
    })
}

/// Sets up a new device: the addresses on it, and the routes behind it.
fn set_up(attachment: &AttachmentSettings, netns: &Netns) -> Result<Links, StartError> {
    let links = Links::in_netns(netns)?;
    let name = attachment.tun.as_str();
    links.set_up(name)?;
    for network in &attachment.addresses {
        links.add_address(name, network.addr(), network.prefix_len())?;
    }
    for any in default_routes(attachment) {
        links.add_route(&Route::new(any, 0).device(name))?;
    }
    Ok(links)
}

/// Where the default routes of an attachment lead from: the families that it has addresses of.
fn default_routes(attachment: &AttachmentSettings) -> impl Iterator<Item = IpAddr> {
    let v4 = attachment.addresses.iter().any(|network| matches!(network, IpNet::V4(_)));
    let v6 = attachment.addresses.iter().any(|network| matches!(network, IpNet::V6(_)));
    let wanted = attachment.default_route;
    [(v4, ANY_V4), (v6, ANY_V6)].into_iter().filter(move |(has, _)| wanted && *has).map(|(_, a)| a)
}

const ANY_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
const ANY_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);

/// IPv4 and TCP headers with timestamps, as Linux sends them in bulk.
const BULK_HEADERS: u32 = 52;

/// The longest super-packet whose segments go out to an appliance in one send: a batch of UDP
/// holds 65,507 bytes, and every segment takes the Geneve header along. At an MTU of 1500 these
/// are 42 segments.
fn gso_max_size(mtu: u32) -> u32 {
    let header = Dialect::ALL.iter().map(Dialect::header_len).max().unwrap_or(0);
    let segments = (MAX_GSO_BYTES as u32 / (mtu + header as u32)).max(1);
    segments * mtu.saturating_sub(BULK_HEADERS) + BULK_HEADERS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn super_packets_fit_one_send() {
        // 42 segments of 1448 bytes: measured to be the best for an MTU of 1500.
        assert_eq!(gso_max_size(1500), 42 * 1448 + 52);
        assert!(gso_max_size(65_535) > 65_000, "a huge MTU leaves one segment");
    }
}
