//! One packet: as it is described, in hexadecimal digits, or from a capture.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use super::file;
use crate::cli::client::{Client, GatewayArgs};
use crate::cli::{FAILED, WRONG_USE, fail, for_people, print};

/// Which packet.
#[derive(Debug, Args)]
pub(super) struct PacketArgs {
    /// Where the packet enters: `internet_gateway:NAME`, `subnet:NAME`, `endpoint:NAME`, …; not
    /// needed for Geneve between gateway and appliance.
    #[arg(long, value_name = "PLACE")]
    from: Option<String>,
    /// The address that it comes from.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["hex", "pcap"])]
    source: Option<IpAddr>,
    /// The address that it is for.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["hex", "pcap"])]
    destination: Option<IpAddr>,
    /// tcp (the default), udp, icmp, icmpv6 or a number.
    #[arg(long, conflicts_with_all = ["hex", "pcap"])]
    protocol: Option<String>,
    /// The port that it comes from.
    #[arg(long, value_name = "PORT", conflicts_with_all = ["hex", "pcap"])]
    source_port: Option<u16>,
    /// The port that it goes to.
    #[arg(long, alias = "port", value_name = "PORT", conflicts_with_all = ["hex", "pcap"])]
    destination_port: Option<u16>,
    /// TCP flags: syn (the default), or such as syn,ack.
    #[arg(long, conflicts_with_all = ["hex", "pcap"])]
    flags: Option<String>,
    /// The length of the IP packet in bytes; without it, it has no payload.
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["hex", "pcap"])]
    length: Option<u16>,
    /// Routers may cut it: IPv4's "don't fragment" is not set.
    #[arg(long, conflicts_with_all = ["hex", "pcap"])]
    may_fragment: bool,
    /// The IP packet in hexadecimal digits.
    #[arg(long, value_name = "BYTES", conflicts_with = "pcap")]
    hex: Option<String>,
    /// A capture to take it from: pcap or pcapng, of Ethernet, raw IP or Linux "cooked" devices.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Which packet of the capture, counted from 1.
    #[arg(long, value_name = "N", requires = "pcap", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..))]
    packet: u64,
}

impl PacketArgs {
    /// What all of them are called.
    pub(super) const ALL: [&str; 11] = [
        "from",
        "source",
        "destination",
        "protocol",
        "source_port",
        "destination_port",
        "flags",
        "length",
        "may_fragment",
        "hex",
        "pcap",
    ];

    /// What the gateway is asked.
    fn request(&self, text: bool) -> Result<Value, String> {
        let mut request = json!({
            "from": self.from,
            "source": self.source,
            "destination": self.destination,
            "protocol": self.protocol,
            "source_port": self.source_port,
            "destination_port": self.destination_port,
            "flags": self.flags,
            "length": self.length,
            "may_fragment": self.may_fragment,
            "text": text,
        });
        if let Some(file) = &self.pcap {
            let packet = file::packet(file, self.packet)?;
            let digits = packet.iter().fold(String::new(), |mut digits, byte| {
                let _ = write!(digits, "{byte:02x}");
                digits
            });
            request["packet"] = json!(digits);
        } else if let Some(digits) = &self.hex {
            request["packet"] = json!(digits);
        }
        Ok(request)
    }
}

pub(super) fn run(arguments: &PacketArgs, gateway: &GatewayArgs, json: bool) -> ExitCode {
    let request = match arguments.request(for_people(json)) {
        Ok(request) => request,
        Err(error) => {
            fail(&error);
            return ExitCode::from(WRONG_USE);
        }
    };
    gateway.ask(async |client: &Client| {
        let answer = client.json(Method::POST, "/v1/explain", &request).await?;
        let explanation = &answer["explanation"];
        let printed = match answer["text"].as_str() {
            Some(text) => print(&format!("{text}\n")),
            None => print(&format!("{explanation:#}\n")),
        };
        let delivered = explanation["delivered"] == true;
        Ok(if delivered { printed } else { ExitCode::from(FAILED) })
    })
}
