//! What the kernel counts in a network namespace and tells nobody: packets that it threw away
//! before any socket saw them.
//!
//! Only those that explain why nothing comes back through a tunnel. What a socket itself lost is
//! asked of it ([`crate::udp::UdpSocket::kernel_drops`]).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::netns::{Netns, NetnsError};

/// A namespace's counters, since it was made. They only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Datagrams over IPv4 with a wrong UDP checksum (`Udp: InCsumErrors` of `/proc/net/snmp`).
    pub udp_checksum_errors: u64,
    /// The same over IPv6 (`Udp6InCsumErrors` of `/proc/net/snmp6`); 0 in a kernel without IPv6.
    pub udp6_checksum_errors: u64,
    /// Packets over IPv4 that came in by a device by which their source is not reached
    /// (`TcpExt: IPReversePathFilter` of `/proc/net/netstat`, the setting `rp_filter`).
    pub reverse_path_filtered: u64,
}

/// Reads a namespace's [`Counters`], from whatever thread, time and again.
///
/// It keeps the namespace alive as a socket inside would.
#[derive(Debug)]
pub struct CounterReader {
    snmp: File,
    snmp6: Option<File>,
    netstat: File,
}

impl CounterReader {
    /// A reader for `netns`.
    ///
    /// # Errors
    /// [`NetnsError::System`] if the namespace cannot be entered or has no `/proc/net`.
    pub fn open(netns: &Netns) -> Result<Self, NetnsError> {
        // A file belongs to the namespace in which it was opened. `/proc/net` would be that of the
        // process's first thread.
        netns.run(|| {
            let open = |name: &str| {
                let path = format!("/proc/thread-self/net/{name}");
                File::open(&path).map_err(|error| {
                    NetnsError::system("look into", netns.name(), "open its counters", error)
                })
            };
            Ok(Self { snmp: open("snmp")?, snmp6: open("snmp6").ok(), netstat: open("netstat")? })
        })?
    }

    /// The counters of this moment.
    ///
    /// # Errors
    /// What reading says, or [`io::ErrorKind::InvalidData`] if a counter is not there.
    pub fn read(&self) -> io::Result<Counters> {
        let udp6_checksum_errors = match &self.snmp6 {
            Some(file) => by_line(&text(file)?, "Udp6InCsumErrors")?,
            None => 0,
        };
        Ok(Counters {
            udp_checksum_errors: by_table(&text(&self.snmp)?, "Udp:", "InCsumErrors")?,
            udp6_checksum_errors,
            reverse_path_filtered: by_table(
                &text(&self.netstat)?,
                "TcpExt:",
                "IPReversePathFilter",
            )?,
        })
    }
}

/// A file of `/proc` from its beginning to its end.
fn text(file: &File) -> io::Result<String> {
    let mut bytes = Vec::new();
    // All at once, where that is possible: numbers that grow meanwhile move those behind them.
    let mut piece = vec![0; 64 * 1024];
    loop {
        match file.read_at(&mut piece, bytes.len() as u64) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// From a file of pairs of lines, both beginning with `table`: names, and in the same order values.
fn by_table(text: &str, table: &str, name: &str) -> io::Result<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(table));
    let value = lines.next().zip(lines.next()).and_then(|(names, values)| {
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
    });
    number(value, name)
}

/// From a file with a name and a value on each line.
fn by_line(text: &str, name: &str) -> io::Result<u64> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let value = pairs.find(|(known, _)| *known == name).map(|(_, value)| value.trim());
    number(value, name)
}

fn number(value: Option<&str>, name: &str) -> io::Result<u64> {
    value.and_then(|value| value.parse().ok()).ok_or_else(|| {
        let message = format!("the kernel shows no counter {name}");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &str = "\
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti
Udp: 1 2 3 4 5 6 7 8
UdpLite: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors
UdpLite: 0 0 0 0 0 0 9
";

    #[test]
    fn counters_are_found_by_name() {
        assert_eq!(by_table(SNMP, "Udp:", "InCsumErrors").unwrap(), 7);
        assert_eq!(by_table(SNMP, "UdpLite:", "InCsumErrors").unwrap(), 9);
        let snmp6 = "Udp6InErrors                    \t1\nUdp6InCsumErrors                \t2\n";
        assert_eq!(by_line(snmp6, "Udp6InCsumErrors").unwrap(), 2);
    }

    #[test]
    fn a_counter_that_is_missing_is_named() {
        for missing in [
            by_table(SNMP, "Tcp:", "InCsumErrors"),
            by_table(SNMP, "Udp:", "Nothing"),
            by_table("Udp: InCsumErrors\n", "Udp:", "InCsumErrors"),
            by_table("Udp: InCsumErrors\nUdp: many\n", "Udp:", "InCsumErrors"),
            by_line("Udp6InErrors 1\n", "Udp6InCsumErrors"),
        ] {
            let error = missing.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().starts_with("the kernel shows no counter "), "{error}");
        }
    }
}
