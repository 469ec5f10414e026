//! `[gateway]`: the process itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use router::source::{Located, Problem};

use super::address::{self, AddressError};
use super::field::Field;
use super::form::GatewayForm;
use super::reader::Reader;
use super::settings::{GatewaySettings, Semantics};
use super::values::{AdminAddress, OutOfRange};

/// A worker is a queue of each TUN, and the kernel gives a TUN 256 of them (`MAX_TAP_QUEUES`).
const MAX_WORKERS: i64 = 256;
/// Where secrets of a service are kept (Filesystem Hierarchy Standard 3.0 §5.8).
const SECRET_FILE: &str = "/var/lib/gwlb/secret";
/// Room for 30,000 new flows a second that live for half a minute.
const MAX_FLOWS: usize = 1 << 20;
/// Eight source ports a worker, so that receivers and paths that hash on ports see several flows.
const SOURCE_PORTS: usize = 8;
/// A table of a million flows is not full before ten seconds of a flood.
const NEW_FLOWS: u32 = 100_000;
/// More than any worker can look at.
const MOST_NEW_FLOWS: i64 = 10_000_000;
/// What fits in `sockaddr_un` with its closing zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// Checks the table; an absent one is all defaults.
pub(super) fn check(reader: &mut Reader<'_>, form: GatewayForm) -> GatewaySettings {
    let number = |reader: &mut Reader<'_>, key, field, min, max, default: usize| {
        let door = |number| OutOfRange::check(number, min, max);
        let number = reader.number(key, field, door, Some(&format!("the default is {default}")));
        number.map_or(default, Located::into_inner)
    };
    let secret_file = reader.optional("secret_file", form.secret_file);
    let secret_file = reader.absolute_path("secret_file", secret_file);
    let admin = admin(reader, form.admin, form.admin_token_file);
    let metrics = reader.optional("metrics", form.metrics);
    let metrics = reader.checked("metrics", metrics, address::listen, LISTEN_HELP);
    if let (Some(admin), Some(metrics)) = (&admin, &metrics)
        && let AdminAddress::Tcp { address, .. } = admin.get()
        && address == metrics.get()
    {
        reader.report(
            metrics
                .problem("the admin API and the metrics cannot share an address")
                .label("taken by `admin`")
                .and(admin.span(), "the admin API")
                .help("give one of them another port"),
        );
    }
    let new_flows = reader.number(
        "max_new_flows_per_second_per_worker",
        form.max_new_flows_per_second_per_worker,
        |number| OutOfRange::check(number, 0, MOST_NEW_FLOWS),
        Some("the default is 100000; 0 is no cap"),
    );
    GatewaySettings {
        workers: number(reader, "workers", form.workers, 0, MAX_WORKERS, 0),
        semantics: reader.or_default("semantics", form.semantics, Semantics::default()),
        secret_file: secret_file.map_or_else(|| SECRET_FILE.into(), Located::into_inner),
        admin: admin.map(Located::into_inner),
        metrics: metrics.map(Located::into_inner),
        max_flows_per_worker: number(
            reader,
            "max_flows_per_worker",
            form.max_flows_per_worker,
            1 << 10,
            1 << 26,
            MAX_FLOWS,
        ),
        source_ports_per_worker: number(
            reader,
            "source_ports_per_worker",
            form.source_ports_per_worker,
            1,
            64,
            SOURCE_PORTS,
        ),
        max_new_flows_per_second: new_flows.map_or(NEW_FLOWS, Located::into_inner),
    }
}

const LISTEN_HELP: &str = "write an IP address and a port: \"127.0.0.1:9961\", \"[::1]:9961\"";

fn admin(
    reader: &mut Reader<'_>,
    admin: Field<String>,
    token_file: Field<String>,
) -> Option<Located<AdminAddress>> {
    let token_file = reader.optional("admin_token_file", token_file);
    let token_file = reader.absolute_path("admin_token_file", token_file);
    let Some(admin) = reader.optional("admin", admin) else {
        if let Some(token_file) = token_file {
            reader.report(
                token_file
                    .problem("there is no admin API that would want a token")
                    .label("of no use without `admin`")
                    .help("add admin = \"127.0.0.1:9960\", or leave this out"),
            );
        }
        return None;
    };
    if let Ok(address) = admin.parse::<SocketAddr>() {
        return tcp_admin(reader, &admin, address, token_file);
    }
    if let Some(token_file) = token_file {
        reader.report(
            token_file
                .problem("a Unix socket is guarded by its owner and mode, not by a token")
                .label("only for a TCP address")
                .help("leave this out"),
        );
    }
    let help = "write the absolute path of a Unix socket, such as \"/run/gwlb/main.sock\", or a \
                loopback address and a port";
    reader.checked("admin", Some(admin), unix_socket, help)
}

fn tcp_admin(
    reader: &mut Reader<'_>,
    admin: &Located<String>,
    address: SocketAddr,
    token_file: Option<Located<PathBuf>>,
) -> Option<Located<AdminAddress>> {
    let at = |message| Problem::at(admin.span(), message);
    if !address.ip().is_loopback() {
        reader.report(
            at("the admin API is not for the network")
                .label("not a loopback address")
                .help("use 127.0.0.1 or [::1], or a Unix socket: \"/run/gwlb/main.sock\""),
        );
    }
    if address.port() == 0 {
        reader.report(
            at("`admin` cannot be a port of the system's choice")
                .label(AddressError::PortZero.to_string())
                .help(LISTEN_HELP),
        );
    }
    let Some(token_file) = token_file else {
        reader.report(
            at("the admin API on a TCP port needs a token")
                .label("everybody on this host can reach this port")
                .help("add admin_token_file = \"/etc/gwlb/token\", or use a Unix socket"),
        );
        return None;
    };
    let token_file = token_file.into_inner();
    Some(Located::new(AdminAddress::Tcp { address, token_file }, admin.span()))
}

fn unix_socket(text: &str) -> Result<AdminAddress, &'static str> {
    match Path::new(text) {
        path if !path.is_absolute() => Err("neither an absolute path nor an address and a port"),
        _ if text.len() > MAX_SOCKET_PATH => Err("longer than the path of a Unix socket can be"),
        path => Ok(AdminAddress::Unix(path.to_owned())),
    }
}
