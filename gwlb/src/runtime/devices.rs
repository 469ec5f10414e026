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
use netio::tun::steering::Steering;
use netio::tun::{MAX_PACKET, Tun, TunConfig, TunQueue};
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
    /// For each worker, its queue of each device, in the same order. As the kernel numbers them, a
    /// queue has the number of its worker.
    pub queues: Vec<Vec<TunQueue>>,
    /// How the kernel is told which queue to choose, for each device, in the same order.
    pub steering: Vec<Steering>,
    /// Whom to ask for each device's counters, in the same order.
    pub links: Vec<PortLinks>,
    /// What each of them takes in one write, in the same order.
    pub limits: Vec<Limits>,
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
            steering: Vec::new(),
            links: Vec::new(),
            limits: Vec::new(),
        };
        for attachment in &settings.attachments {
            let netns = open_netns(attachment.netns.as_ref())?;
            let (mut tun, steering) = create(attachment, workers, &netns)?;
            devices.steering.push(steering);
            devices.limits.push(limits(attachment, tun.udp_segmentation()));
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

fn create(
    attachment: &AttachmentSettings,
    workers: u16,
    netns: &Netns,
) -> Result<(Tun, Steering), StartError> {
    if attachment.big_tcp && !netio::tun::takes_big_tcp().map_err(StartError::Kernel)? {
        return Err(StartError::BigTcp(attachment.tun.to_string()));
    }
    let config = tun_config(attachment, workers);
    let created = netns.run(|| {
        let tun = Tun::create(&config)?;
        let steering = tun.steering()?;
        Ok((tun, steering))
    })?;
    created.map_err(|error| StartError::Tun {
        name: config.name.clone(),
        netns: netns.name().to_owned(),
        error,
    })
}

fn tun_config(attachment: &AttachmentSettings, workers: u16) -> TunConfig {
    let mtu = attachment.mtu.get();
    let trimmed = || attachment.gso_max_size.unwrap_or_else(|| gso_max_size(mtu));
    TunConfig {
        name: attachment.tun.as_str().to_owned(),
        queues: usize::from(workers),
        mtu,
        offload: attachment.offload,
        // Who takes no super-packets is given none, however long they might be.
        gso_max_size: attachment.offload.then(trimmed),
    }
}

/// What a device takes in one write.
fn limits(attachment: &AttachmentSettings, udp: bool) -> Limits {
    match attachment {
        AttachmentSettings { offload: false, .. } => Limits::PLAIN,
        AttachmentSettings { big_tcp: true, .. } => Limits { udp, ..Limits::BIG_TCP },
        _ => Limits { udp, ..Limits::default() },
    }
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

/// What Linux's TCP leaves free of a device's limit, for headers of all kinds: `MAX_TCP_HEADER` and one,
/// where the kernel is built with all that makes the former large (`sk_dst_gso_max_size`, Linux 6.18).
const LEFT_FREE: u32 = 321;

/// The longest super-packet that the kernel is to give, so that the segments of one that its own TCP
/// makes go out to an appliance in one send: a batch of UDP holds 65,507 bytes, and every segment takes
/// the Geneve header along. At an MTU of 1500 these are 42 segments.
fn gso_max_size(mtu: u32) -> u32 {
    let header = Dialect::ALL.iter().map(Dialect::header_len).max().unwrap_or(0);
    let segments = (MAX_GSO_BYTES as u32 / (mtu + header as u32)).max(1);
    let longest = segments * mtu.saturating_sub(BULK_HEADERS) + BULK_HEADERS;
    (longest + LEFT_FREE).min(MAX_PACKET as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn super_packets_fit_one_send() {
        // 42 segments of 1448 bytes: measured to be the best for an MTU of 1500.
        assert_eq!(gso_max_size(1500) - LEFT_FREE, 42 * 1448 + 52);
        // As Linux counts them, which gives a 43rd to none.
        assert_eq!((gso_max_size(1500) - LEFT_FREE) / 1448, 42);
        assert!(gso_max_size(65_535) > 65_000, "a huge MTU leaves one segment");
    }

    #[test]
    fn a_device_is_as_its_attachment_says() {
        let text = include_str!("../../examples/two-zones.toml");
        let source = router::source::Source::new("two-zones.toml", text);
        let mut attachment = crate::config::parse(&source).unwrap().attachments.remove(0);
        let described = |attachment: &AttachmentSettings| {
            let TunConfig { queues, offload, gso_max_size, .. } = tun_config(attachment, 3);
            assert_eq!(queues, 3);
            (offload, gso_max_size, limits(attachment, true))
        };
        assert_eq!(described(&attachment), (true, Some(61_189), Limits::default()));
        attachment.gso_max_size = Some(30_000);
        attachment.big_tcp = true;
        let big = Limits { max_bytes: 128 * 1448 + 52, across_push: true, ..Limits::default() };
        assert_eq!(described(&attachment), (true, Some(30_000), big));
        assert!(!limits(&attachment, false).udp, "the kernel has no USO");
        attachment = AttachmentSettings { offload: false, big_tcp: false, ..attachment };
        assert_eq!(described(&attachment), (false, None, Limits::PLAIN));
    }
}
