//! The fields of flow logs and the format strings that name them, in the syntax of AWS's flow logs.

use std::fmt;
use std::str::FromStr;

use router::source::nearest;
use thiserror::Error;

/// Makes the enumeration of fields together with the tables about it.
macro_rules! log_fields {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $version:literal;)+) => {
        /// A field of a flow log.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum LogField {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl LogField {
            /// All fields, in the order of the reference.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in format strings.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The version of AWS's flow logs that brought it; 0 for those that only we have.
            pub const fn version(self) -> u8 {
                match self { $(Self::$variant => $version,)+ }
            }

            /// What it says.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

log_fields! {
    /// The version of the format: 2, or the largest version that a field of the format has.
    Version = "version", 2;
    /// `-`: the gateway knows no accounts.
    AccountId = "account-id", 2;
    /// The endpoint, by its name; by its id on the wire if it has no name any more.
    InterfaceId = "interface-id", 2;
    /// The source address of the packets, inside of the VPC.
    SrcAddr = "srcaddr", 2;
    /// The destination address of the packets, inside of the VPC.
    DstAddr = "dstaddr", 2;
    /// The source port; 0 for protocols without ports, and where stickiness looks at none.
    SrcPort = "srcport", 2;
    /// The destination port, likewise.
    DstPort = "dstport", 2;
    /// The number of the protocol; 0 where stickiness does not look at it.
    Protocol = "protocol", 2;
    /// Packets in the window, each segment of a super-packet counted.
    Packets = "packets", 2;
    /// Their bytes, IP headers included.
    Bytes = "bytes", 2;
    /// When the first of them came, in seconds since 1970.
    Start = "start", 2;
    /// When the last of them came, in seconds since 1970.
    End = "end", 2;
    /// `ACCEPT`: they went on. `REJECT`: they were dropped, or answered in place of going on.
    Action = "action", 2;
    /// `OK`; `NODATA`: nothing came in the window; `SKIPDATA`: some records of it were lost.
    LogStatus = "log-status", 2;
    /// The VPC of the endpoint.
    VpcId = "vpc-id", 3;
    /// The subnet of the endpoint.
    SubnetId = "subnet-id", 3;
    /// `-`: an endpoint is no instance.
    InstanceId = "instance-id", 3;
    /// The TCP flags that were seen, added up: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32.
    TcpFlags = "tcp-flags", 3;
    /// `IPv4` or `IPv6`.
    Type = "type", 3;
    /// The same as `srcaddr`: the gateway hands packets on as they are.
    PktSrcAddr = "pkt-srcaddr", 3;
    /// The same as `dstaddr`.
    PktDstAddr = "pkt-dstaddr", 3;
    /// `-`: the gateway knows no regions.
    Region = "region", 4;
    /// The zone of the endpoint.
    AzId = "az-id", 4;
    /// `-`.
    SublocationType = "sublocation-type", 4;
    /// `-`.
    SublocationId = "sublocation-id", 4;
    /// `-`: the gateway knows no services of AWS.
    PktSrcAwsService = "pkt-src-aws-service", 5;
    /// `-`, likewise.
    PktDstAwsService = "pkt-dst-aws-service", 5;
    /// `ingress`: packets are counted as they come to the endpoint.
    FlowDirection = "flow-direction", 5;
    /// `-`: it is for egress.
    TrafficPath = "traffic-path", 5;
    /// The endpoint, as `interface-id` has it.
    Endpoint = "endpoint", 0;
    /// The load balancer that serves the endpoint.
    LoadBalancer = "load-balancer", 0;
    /// The zone of the load balancer's node.
    Zone = "zone", 0;
    /// The address and port of the target that inspected the packets, also if it has been
    /// deregistered since; `bypass` if nobody did.
    Target = "target", 0;
    /// The flow cookie that the packets carried.
    Cookie = "cookie", 0;
    /// Why the packets were rejected, as the counters of drops name it.
    DropReason = "drop-reason", 0;
}

/// What a line of a flow log has, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFormat(Vec<LogField>);

impl LogFormat {
    /// The fields.
    pub fn fields(&self) -> &[LogField] {
        &self.0
    }

    /// The version that its lines state.
    pub fn version(&self) -> u8 {
        self.0.iter().map(|field| field.version()).fold(2, u8::max)
    }
}

impl Default for LogFormat {
    /// The fields of version 2.
    fn default() -> Self {
        Self(LogField::ALL.iter().copied().filter(|field| field.version() == 2).collect())
    }
}

/// Why a text is no format.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormatError {
    /// It names nothing.
    #[error("a format without fields")]
    Empty,
    /// A word of it is no field in braces.
    #[error("{0:?} is not written as a field is")]
    NotAField(String),
    /// There is no such field.
    #[error("{}", unknown(.0))]
    Unknown(String),
}

fn unknown(name: &str) -> String {
    let names = LogField::ALL.iter().map(|field| field.name());
    match nearest(name, names) {
        Some(near) => format!("no field {name:?}; did you mean {near:?}?"),
        None => format!("no field {name:?}"),
    }
}

impl FromStr for LogFormat {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let field = |word: &str| {
            let name = word.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            let name = name.ok_or_else(|| FormatError::NotAField(word.to_owned()))?;
            let found = LogField::ALL.iter().copied().find(|field| field.name() == name);
            found.ok_or_else(|| FormatError::Unknown(name.to_owned()))
        };
        let fields = text.split_whitespace().map(field).collect::<Result<Vec<_>, _>>()?;
        if fields.is_empty() { Err(FormatError::Empty) } else { Ok(Self(fields)) }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, field) in self.0.iter().enumerate() {
            let space = if number > 0 { " " } else { "" };
            write!(f, "{space}${{{}}}", field.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_version_2_has() {
        let format = LogFormat::default();
        assert_eq!(
            format.to_string(),
            "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} \
             ${protocol} ${packets} ${bytes} ${start} ${end} ${action} ${log-status}"
        );
        assert_eq!(format.version(), 2);
        assert_eq!(format.to_string().parse(), Ok(format));
    }

    #[test]
    fn every_field_can_be_asked_for_by_its_name() {
        for field in LogField::ALL {
            let format: LogFormat = format!("${{{}}}", field.name()).parse().unwrap();
            assert_eq!(format.fields(), [*field]);
            assert_eq!(format.version(), field.version().max(2));
            assert!(!field.help().is_empty());
        }
    }

    #[test]
    fn the_reference_describes_every_field() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/flow-logs.md");
        let reference = std::fs::read_to_string(path).unwrap();
        for field in LogField::ALL {
            let version = match field.version() {
                0 => "ours".to_owned(),
                version => version.to_string(),
            };
            let row = format!("\n| `{}` | {version} | {} |\n", field.name(), field.help());
            assert!(reference.contains(&row), "no row like {row}");
        }
    }

    #[test]
    fn what_is_no_format_is_said() {
        let refused = |text: &str| text.parse::<LogFormat>().unwrap_err().to_string();
        assert!(refused(" ").contains("without fields"));
        assert!(refused("${version} srcaddr").contains("\"srcaddr\" is not written"));
        assert!(refused("${scraddr}").contains("did you mean \"srcaddr\"?"));
        assert!(refused("${colour}").contains("no field \"colour\""));
    }
}
