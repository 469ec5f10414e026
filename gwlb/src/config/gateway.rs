//! `[gateway]`: the process itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
/// As many CPUs as the C library's sets have room for (`CPU_SETSIZE`), less one.
const LAST_CPU: i64 = 1023;
/// A tenth of a second: whoever polls for longer between packets polls all the time.
const MAX_BUSY_POLL: i64 = 100_000;
/// 64 batches of 64 KiB.
const UDP_BUFFER: usize = 4 << 20;
/// One batch.
const MIN_UDP_BUFFER: i64 = 65_536;
/// The kernel's own limit: it doubles what it is asked for, in 31 bits (`__sock_set_rcvbuf`).
const MAX_UDP_BUFFER: i64 = (i32::MAX / 2) as i64;
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
    let workers_given = form.workers.given().map(|given| Located::new(**given, given.span()));
    let pin_workers = pin_workers(reader, form.pin_workers, workers_given);
    let buffer = |reader: &mut Reader<'_>, key, field| {
        number(reader, key, field, MIN_UDP_BUFFER, MAX_UDP_BUFFER, UDP_BUFFER)
    };
    let busy_poll = number(reader, "busy_poll_us", form.busy_poll_us, 0, MAX_BUSY_POLL, 0);
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
        pin_workers,
        busy_poll: Duration::from_micros(busy_poll as u64),
        udp_receive_buffer: buffer(
            reader,
            "udp_receive_buffer_bytes",
            form.udp_receive_buffer_bytes,
        ),
        udp_send_buffer: buffer(reader, "udp_send_buffer_bytes", form.udp_send_buffer_bytes),
        huge_pages: reader.or_default("huge_pages", form.huge_pages, false),
        flow_records: reader.or_default("flow_records", form.flow_records, true),
    }
}

/// The CPUs that workers stay on: each once, and as many as there are workers. Whether the machine
/// has them is seen when the gateway starts.
fn pin_workers(
    reader: &mut Reader<'_>,
    field: Field<Vec<Field<i64>>>,
    workers: Option<Located<i64>>,
) -> Vec<usize> {
    let Some(list) = reader.optional("pin_workers", field) else { return Vec::new() };
    let span = list.span();
    let list = list.into_inner();
    let given = list.len();
    let mut cpus: Vec<Located<usize>> = Vec::new();
    for cpu in list {
        let door = |cpu| OutOfRange::check(cpu, 0, LAST_CPU);
        let help = "the number of a CPU, as `lscpu --extended` shows them";
        let Some(cpu) = reader.number("pin_workers", cpu, door, Some(help)) else { continue };
        if let Some(first) = cpus.iter().find(|known| **known == cpu) {
            reader.report(
                cpu.problem(format!("two workers cannot have CPU {} each for itself", cpu.get()))
                    .label("the second one")
                    .and(first.span(), "the first one")
                    .help("name each CPU once"),
            );
        }
        cpus.push(cpu);
    }
    let counted = |workers: i64| usize::try_from(workers).is_ok_and(|workers| workers == given);
    let different = workers.filter(|it| (1..=MAX_WORKERS).contains(&**it) && !counted(**it));
    if let Some(workers) = different.filter(|_| given > 0) {
        reader.report(
            Problem::at(span, format!("{} workers cannot stay on {given} CPUs", workers.get()))
                .label(format!("{given} here"))
                .and(workers.span(), format!("{} workers", workers.get()))
                .help("name one CPU for each worker, or leave `workers` out: one for each CPU"),
        );
    }
    cpus.into_iter().map(Located::into_inner).collect()
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
