//! `[[attachment]]`: the devices through which packets enter and leave.

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;
use router::Topology;
use router::config::RouterFile;
use router::source::{Located, Problem};

use super::address::interface;
use super::field::Field;
use super::form::AttachmentForm;
use super::names::Names;
use super::reader::{Reader, Table};
use super::settings::AttachmentSettings;
use super::values::{DeviceName, Mtu, NetnsName, OutOfRange};

/// What the router's part of the file has, by name.
#[derive(Debug)]
pub(super) struct Places<'f> {
    pub(super) router: &'f RouterFile,
    pub(super) subnets: &'f Names,
    pub(super) gateways: &'f Names,
    pub(super) interfaces: &'f Names,
    pub(super) nat_gateways: &'f Names,
    pub(super) private_gateways: &'f Names,
    pub(super) egress_gateways: &'f Names,
    pub(super) opaques: &'f Names,
}

/// The names of all that can be attached.
#[derive(Debug)]
pub(super) struct PlaceNames([Names; 7]);

impl PlaceNames {
    /// Those of a file; `complete`, if it was understood.
    pub(super) fn of(router: &RouterFile, complete: bool) -> PlaceNames {
        let subnets = router.subnets.iter().map(|it| &it.name);
        let gateways = router.internet_gateways.iter().map(|it| &it.name);
        let interfaces = router.network_interfaces.iter().map(|it| &it.name);
        let nat = router.nat_gateways.iter().map(|it| &it.name);
        let private = router.virtual_private_gateways.iter().map(|it| &it.name);
        let egress = router.egress_only_internet_gateways.iter().map(|it| &it.name);
        let opaques = router.opaques.iter().map(|it| &it.name);
        PlaceNames([
            Names::of_router("subnet", "subnet", subnets, complete),
            Names::of_router("internet_gateway", "internet gateway", gateways, complete),
            Names::of_router("network_interface", "network interface", interfaces, complete),
            Names::of_router("nat_gateway", "NAT gateway", nat, complete),
            Names::of_router(
                "virtual_private_gateway",
                "virtual private gateway",
                private,
                complete,
            ),
            Names::of_router(
                "egress_only_internet_gateway",
                "egress-only internet gateway",
                egress,
                complete,
            ),
            Names::of_router("opaque", "opaque", opaques, complete),
        ])
    }

    /// The same with the file that they are of.
    pub(super) fn places<'f>(&'f self, router: &'f RouterFile) -> Places<'f> {
        let PlaceNames(names) = self;
        let [
            subnets,
            gateways,
            interfaces,
            nat_gateways,
            private_gateways,
            egress_gateways,
            opaques,
        ] = names;
        Places {
            router,
            subnets,
            gateways,
            interfaces,
            nat_gateways,
            private_gateways,
            egress_gateways,
            opaques,
        }
    }
}

/// What of the topology is attached, by its place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Subnet(usize),
    Gateway(usize),
    Interface(usize),
    NatGateway(usize),
    PrivateGateway(usize),
    EgressGateway(usize),
    Opaque(usize),
}

/// An attachment as far as it was understood.
#[derive(Debug)]
pub(super) struct AttachmentDraft {
    at: Option<Located<At>>,
    tun: Option<Located<DeviceName>>,
    netns: Option<NetnsName>,
    mtu: Mtu,
    addresses: Vec<Located<IpNet>>,
    /// Where a default route was asked for.
    default_route: Option<Range<usize>>,
    offload: bool,
    gso_max_size: Option<u32>,
    big_tcp: bool,
}

/// What every IPv4 host takes in one piece (RFC 791 §3.1). The kernel's own limit is a little more
/// than 300 bytes, and depends on how it was built (`MAX_TCP_HEADER`).
const MIN_GSO: i64 = 576;
/// The longest super-packet that a TUN device takes from the kernel (`GSO_LEGACY_MAX_SIZE`).
const MAX_GSO: i64 = 65_536;

/// Checks one table by itself.
pub(super) fn check(
    reader: &mut Reader<'_>,
    form: Located<AttachmentForm>,
    places: &Places<'_>,
) -> AttachmentDraft {
    let table = Table { name: "[[attachment]]", span: form.span() };
    let form = form.into_inner();
    let places_given = [
        ("subnet", form.subnet, places.subnets, At::Subnet as fn(usize) -> At),
        ("internet_gateway", form.internet_gateway, places.gateways, At::Gateway),
        ("interface", form.interface, places.interfaces, At::Interface),
        ("nat_gateway", form.nat_gateway, places.nat_gateways, At::NatGateway),
        (
            "virtual_private_gateway",
            form.virtual_private_gateway,
            places.private_gateways,
            At::PrivateGateway,
        ),
        (
            "egress_only_internet_gateway",
            form.egress_only_internet_gateway,
            places.egress_gateways,
            At::EgressGateway,
        ),
        ("opaque", form.opaque, places.opaques, At::Opaque),
    ];
    let at = place(reader, places_given, &table);
    let tun = reader.required("tun", form.tun, &table, "\"app-a\"");
    let help = "1 to 15 bytes without slash, colon, percent sign or space";
    let tun = reader.checked("tun", tun, DeviceName::new, help);
    let netns = reader.netns(form.netns);
    let addresses = reader.optional("addresses", form.addresses);
    let addresses = addresses.map(Located::into_inner).unwrap_or_default();
    let addresses = reader.items("addresses", addresses);
    let help = "an address of the device with its prefix length, such as \"10.0.1.11/24\"";
    let addresses: Vec<Located<IpNet>> = addresses
        .into_iter()
        .filter_map(|text| reader.checked("addresses", Some(text), interface, help))
        .collect();
    let cidrs = at.as_ref().map(|at| places.cidrs(*at.get())).unwrap_or_default();
    if let Some(at) = &at {
        check_addresses(reader, *at.get(), &addresses, &cidrs, places);
    }
    let ipv6 = addresses.iter().map(|address| **address).chain(cidrs.iter().copied());
    let ipv6 = ipv6.into_iter().any(|net| net.addr().is_ipv6());
    let mtu = reader.number("mtu", form.mtu, Mtu::new, Some("the default is 1500"));
    if let Some(mtu) = &mtu
        && *mtu.get() < Mtu::MIN_IPV6
        && ipv6
    {
        reader.report(
            mtu.problem(format!("an MTU of {} is too small for IPv6", mtu.get()))
                .label(format!("less than {}", Mtu::MIN_IPV6))
                .help(
                    "IPv6 needs 1280 bytes (RFC 8200, section 5), and this attachment has IPv6 addresses",
                ),
        );
    }
    let default_route = form.default_route.given().filter(|asked| ***asked).map(Located::span);
    reader.or_default("default_route", form.default_route, false);
    if let Some(asked) = &default_route
        && addresses.is_empty()
    {
        reader.report(
            Problem::at(asked.clone(), "a default route needs an address to send from")
                .label("this attachment has no `addresses`")
                .help("add addresses = [\"10.0.1.11/24\"], or leave this out"),
        );
    }
    let mtu = mtu.map(Located::into_inner).unwrap_or_default();
    let SuperPackets { offload, gso_max_size, big_tcp } =
        super_packets(reader, form.offload, form.gso_max_size, form.big_tcp, mtu);
    AttachmentDraft {
        at,
        tun,
        netns,
        mtu,
        addresses,
        default_route,
        offload,
        gso_max_size,
        big_tcp,
    }
}

/// What a device does with packets that stand for several.
struct SuperPackets {
    offload: bool,
    gso_max_size: Option<u32>,
    big_tcp: bool,
}

fn super_packets(
    reader: &mut Reader<'_>,
    offload: Field<bool>,
    gso_max_size: Field<i64>,
    big_tcp: Field<bool>,
    mtu: Mtu,
) -> SuperPackets {
    let off = offload.given().filter(|on| !***on).map(Located::span);
    let offload = reader.or_default("offload", offload, true);
    let door = |bytes| OutOfRange::check::<u32>(bytes, MIN_GSO, MAX_GSO);
    let help = "absent, it is as long as one send to an appliance holds";
    let gso_max_size = reader.number("gso_max_size", gso_max_size, door, Some(help));
    if let Some(size) = &gso_max_size
        && *size.get() < mtu.get()
    {
        reader.report(
            size.problem(format!("super-packets of {} bytes are no use", size.get()))
                .label(format!("a single packet has up to {mtu}"))
                .help("give `mtu` at least, or leave this out"),
        );
    }
    let big = big_tcp.given().filter(|on| ***on).map(Located::span);
    let big_tcp = reader.or_default("big_tcp", big_tcp, false);
    if let Some(off) = off {
        let sizes = gso_max_size.as_ref().map(|size| ("gso_max_size", size.span()));
        for (key, span) in sizes.into_iter().chain(big.map(|span| ("big_tcp", span))) {
            reader.report(
                Problem::at(span, format!("`{key}` is about super-packets, which are off"))
                    .label("of no use here")
                    .and(off.clone(), "this turns them off")
                    .help("leave one of the two out"),
            );
        }
    }
    SuperPackets { offload, gso_max_size: gso_max_size.map(Located::into_inner), big_tcp }
}

/// A key, what it says, the names that it may say, and what it means.
type Given<'p> = (&'static str, Field<String>, &'p Names, fn(usize) -> At);

/// What is attached: exactly one of the keys says it.
fn place(reader: &mut Reader<'_>, given: [Given<'_>; 7], table: &Table) -> Option<Located<At>> {
    let read = given.map(|(key, field, names, at)| (key, reader.optional(key, field), names, at));
    let mut said =
        read.into_iter().filter_map(|(key, name, names, at)| Some((key, name?, names, at)));
    let Some((first_key, name, names, at)) = said.next() else {
        reader.report(
            Problem::at(table.span.clone(), "an attachment of nothing")
                .label("this [[attachment]] needs `subnet`, `internet_gateway`, or another place")
                .help("for example: subnet = \"app-a\""),
        );
        return None;
    };
    if let Some((key, second, ..)) = said.next() {
        reader.report(
            second
                .problem(format!("an attachment is of one place, not of `{first_key}` and `{key}`"))
                .label("either this")
                .and(name.span(), "or this")
                .help("make two attachments of it, each with a device of its own"),
        );
        return None;
    }
    let index = names.resolve(reader, &name)?;
    Some(Located::new(at(index), name.span()))
}

/// A device inside of the VPC has addresses of its subnet; one outside has none of the VPC.
fn check_addresses(
    reader: &mut Reader<'_>,
    at: At,
    addresses: &[Located<IpNet>],
    cidrs: &[IpNet],
    places: &Places<'_>,
) {
    for address in addresses {
        let ip = address.addr();
        let within = cidrs.iter().find(|cidr| cidr.contains(&ip));
        match within {
            None if places.subnet(at).is_some() && !cidrs.is_empty() => reader.report(
                address
                    .problem(format!(
                        "{ip} is outside of {}{}",
                        if matches!(at, At::Subnet(_)) { "" } else { "the subnet of " },
                        places.describe(at)
                    ))
                    .label("nothing would be delivered to it")
                    .help(format!("the subnet has {}", join(cidrs))),
            ),
            Some(cidr) if places.subnet(at).is_some() && is_reserved(*cidr, ip) => reader.report(
                address
                    .problem(format!("{ip} is no host of {cidr}"))
                    .label("the address of the network, or its broadcast address")
                    .help("choose an address in between"),
            ),
            Some(cidr) if places.subnet(at).is_none() => reader.report(
                address
                    .problem(format!("{ip} is inside of the VPC"))
                    .label(format!("in {cidr}"))
                    .help(format!(
                        "the device of {} is the side that is not the VPC: give it an address that \
                         is not the VPC's",
                        places.describe(at)
                    )),
            ),
            _ => {}
        }
    }
}

/// Whether an IPv4 address names the network as a whole. In prefixes of 31 and 32 none does
/// (RFC 3021).
fn is_reserved(cidr: IpNet, ip: IpAddr) -> bool {
    matches!(cidr, IpNet::V4(v4) if v4.prefix_len() < 31)
        && (ip == cidr.network() || ip == cidr.broadcast())
}

fn join(cidrs: &[IpNet]) -> String {
    cidrs.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" and ")
}

/// Reports what is attached twice, devices with one name, and addresses that two devices have.
pub(super) fn check_together(
    reader: &mut Reader<'_>,
    drafts: &[AttachmentDraft],
    places: &Places<'_>,
) {
    for (index, draft) in drafts.iter().enumerate() {
        let before = &drafts[..index];
        if let Some(at) = &draft.at
            && let Some(first) =
                before.iter().filter_map(|draft| draft.at.as_ref()).find(|a| *a == at)
        {
            reader.report(second(
                at.problem(format!("{} is attached twice", places.describe(*at.get()))),
                first.span(),
                "it has one device; several hosts can share it behind the device",
            ));
        }
        if let Some(tun) = &draft.tun
            && let Some(first) = before
                .iter()
                .filter(|other| other.netns == draft.netns)
                .filter_map(|other| other.tun.as_ref())
                .find(|first| *first == tun)
        {
            let place = draft.netns.as_ref().map_or_else(
                || "the gateway's own namespace".to_owned(),
                |netns| format!("namespace {:?}", netns.as_str()),
            );
            reader.report(second(
                tun.problem(format!("two devices are named {:?} in {place}", tun.get().as_str())),
                first.span(),
                "rename one, or put it into another namespace",
            ));
        }
        check_default_route(reader, draft, before);
        for address in &draft.addresses {
            let others = before.iter().flat_map(|draft| &draft.addresses);
            let same_ip = |other: &&Located<IpNet>| other.addr() == address.addr();
            if let Some(first) = others.chain(own_before(draft, address)).find(same_ip) {
                reader.report(second(
                    address.problem(format!("{} is given to two devices", address.addr())),
                    first.span(),
                    "packets for it are delivered to one of them",
                ));
            }
        }
    }
}

/// A namespace has one default route in each address family.
fn check_default_route(
    reader: &mut Reader<'_>,
    draft: &AttachmentDraft,
    before: &[AttachmentDraft],
) {
    let Some(asked) = &draft.default_route else { return };
    for other in before.iter().filter(|other| other.netns == draft.netns) {
        let Some(first) = &other.default_route else { continue };
        let same_family = |a: &Located<IpNet>| {
            other.addresses.iter().any(|b| a.addr().is_ipv4() == b.addr().is_ipv4())
        };
        if draft.addresses.iter().any(same_family) {
            reader.report(second(
                Problem::at(asked.clone(), "two default routes in one namespace"),
                first.clone(),
                "leave one out, or put the devices into namespaces of their own",
            ));
        }
    }
}

/// The addresses of the same attachment that stand before this one.
fn own_before<'d>(
    draft: &'d AttachmentDraft,
    address: &Located<IpNet>,
) -> impl Iterator<Item = &'d Located<IpNet>> {
    let start = address.span().start;
    draft.addresses.iter().filter(move |other| other.span().start < start)
}

fn second(problem: Problem, first: Range<usize>, help: &str) -> Problem {
    problem.label("the second one").and(first, "the first one").help(help)
}

impl Places<'_> {
    /// The subnet that a device is in.
    fn subnet(&self, at: At) -> Option<&Located<String>> {
        match at {
            At::Subnet(index) => Some(&self.router.subnets[index].name),
            At::Interface(index) => Some(&self.router.network_interfaces[index].subnet),
            At::NatGateway(index) => Some(&self.router.nat_gateways[index].subnet),
            At::Gateway(_) | At::PrivateGateway(_) | At::EgressGateway(_) | At::Opaque(_) => None,
        }
    }

    /// The addresses of its subnet, or of the VPC that a device leads out of; what is not an address
    /// range is the router's to report.
    fn cidrs(&self, at: At) -> Vec<IpNet> {
        let vpc = match at {
            At::Gateway(index) => Some(&self.router.internet_gateways[index].vpc),
            At::PrivateGateway(index) => Some(&self.router.virtual_private_gateways[index].vpc),
            At::EgressGateway(index) => Some(&self.router.egress_only_internet_gateways[index].vpc),
            At::Opaque(index) => Some(&self.router.opaques[index].vpc),
            At::Subnet(_) | At::Interface(_) | At::NatGateway(_) => None,
        };
        let cidrs = match (self.subnet(at), vpc) {
            (Some(subnet), _) => {
                let mut subnets = self.router.subnets.iter();
                subnets.find(|known| known.name == *subnet).map(|subnet| &subnet.cidrs)
            }
            (None, Some(vpc)) => {
                self.router.vpcs.iter().find(|known| known.name == *vpc).map(|vpc| &vpc.cidrs)
            }
            (None, None) => None,
        };
        cidrs.into_iter().flatten().filter_map(|cidr| cidr.parse().ok()).collect()
    }

    fn describe(&self, at: At) -> String {
        let (kind, name) = match at {
            At::Subnet(index) => ("subnet", self.subnets.of(index)),
            At::Gateway(index) => ("internet gateway", self.gateways.of(index)),
            At::Interface(index) => ("network interface", self.interfaces.of(index)),
            At::NatGateway(index) => ("NAT gateway", self.nat_gateways.of(index)),
            At::PrivateGateway(index) => {
                ("virtual private gateway", self.private_gateways.of(index))
            }
            At::EgressGateway(index) => {
                ("egress-only internet gateway", self.egress_gateways.of(index))
            }
            At::Opaque(index) => ("opaque", self.opaques.of(index)),
        };
        format!("{kind} {name:?}")
    }
}

impl AttachmentDraft {
    /// Where a default route of the gateway's own namespace was asked for.
    pub(super) fn own_default_route(&self) -> Option<Range<usize>> {
        self.default_route.clone().filter(|_| self.netns.is_none())
    }

    /// The settings, if everything was understood.
    pub(super) fn finish(
        self,
        places: &Places<'_>,
        topology: &Topology,
    ) -> Option<AttachmentSettings> {
        use router::Attachment;
        let at = match *self.at?.get() {
            At::Subnet(index) => {
                topology.subnet_by_name(places.subnets.of(index)).map(Attachment::Subnet)
            }
            At::Gateway(index) => {
                let name = places.gateways.of(index);
                topology.gateway_by_name(name).map(Attachment::InternetGateway)
            }
            At::Interface(index) => {
                let name = places.interfaces.of(index);
                topology.network_interface_by_name(name).map(Attachment::Interface)
            }
            At::NatGateway(index) => {
                let name = places.nat_gateways.of(index);
                topology.nat_gateway_by_name(name).map(Attachment::Interface)
            }
            At::PrivateGateway(index) => {
                let name = places.private_gateways.of(index);
                topology.virtual_private_gateway_by_name(name).map(Attachment::Edge)
            }
            At::EgressGateway(index) => {
                let name = places.egress_gateways.of(index);
                topology.egress_only_internet_gateway_by_name(name).map(Attachment::Edge)
            }
            At::Opaque(index) => {
                topology.opaque_by_name(places.opaques.of(index)).map(Attachment::Edge)
            }
        }?;
        Some(AttachmentSettings {
            at,
            tun: self.tun?.into_inner(),
            netns: self.netns,
            mtu: self.mtu,
            addresses: self.addresses.into_iter().map(Located::into_inner).collect(),
            default_route: self.default_route.is_some(),
            offload: self.offload,
            gso_max_size: self.gso_max_size,
            big_tcp: self.big_tcp,
        })
    }
}
