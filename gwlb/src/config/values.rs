//! The checked values that settings are made of: each has one door, which says what is wrong.
//!
//! Nothing here knows TOML or spans; [`super::form`] asks for these values and adds the place.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

/// The name of a load balancer or a target group, as AWS takes it: 1–32 letters, digits and hyphens,
/// with no hyphen at either end (semantics 1a).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Why a string cannot name a load balancer or a target group.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing, or too much.
    #[error("a name has 1 to {max} characters, this one has {actual}", max = Name::MAX_LEN)]
    Length {
        /// The characters found.
        actual: usize,
    },
    /// Something else than an ASCII letter, a digit or a hyphen.
    #[error("a name cannot hold {0:?}")]
    Character(char),
    /// A hyphen at the start or the end.
    #[error("a name cannot start or end with a hyphen")]
    Hyphen,
}

impl Name {
    /// The most characters.
    pub const MAX_LEN: usize = 32;

    /// Takes 1–32 ASCII letters, digits and hyphens, with no hyphen at either end.
    pub fn new(name: &str) -> Result<Name, NameError> {
        let actual = name.chars().count();
        if actual == 0 || actual > Self::MAX_LEN {
            return Err(NameError::Length { actual });
        }
        let bad = |c: char| !c.is_ascii_alphanumeric() && c != '-';
        if let Some(character) = name.chars().find(|&c| bad(c)) {
            return Err(NameError::Character(character));
        }
        if name.starts_with('-') || name.ends_with('-') {
            return Err(NameError::Hyphen);
        }
        Ok(Name(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A UDP or TCP port: 1–65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(u16);

impl Port {
    /// The Geneve port (RFC 8926 §3.3).
    pub const GENEVE: Port = Port(geneve::PORT);
    /// The health-check port that AWS and Alibaba start from (semantics 1b, 2b).
    pub const HEALTH_CHECK: Port = Port(80);

    /// Takes 1–65535.
    pub fn new(port: i64) -> Result<Port, OutOfRange> {
        OutOfRange::check(port, 1, 65_535).map(Port)
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// The share of new flows that a target gets, relative to the others: 0–1000.
///
/// A target of weight 0 keeps the flows that it has and gets no new ones. The clouds have no
/// weights on their gateway load balancers; every target there counts the same, as it does here
/// at the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u16);

impl Weight {
    /// The largest weight.
    pub const MAX: Weight = Weight(1000);

    /// Takes 0–1000.
    pub fn new(weight: i64) -> Result<Weight, OutOfRange> {
        OutOfRange::check(weight, 0, Self::MAX.0.into()).map(Weight)
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for Weight {
    /// 100: room to weigh a target down as well as up. Alibaba's network load balancer starts
    /// from the same number (semantics 2b).
    fn default() -> Weight {
        Weight(100)
    }
}

/// The MTU of an attachment's device, in bytes: 68–65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtu(u32);

impl Mtu {
    /// The least that IPv4 works with (RFC 791 §3.2).
    pub const MIN_IPV4: Mtu = Mtu(68);
    /// The least that IPv6 works with (RFC 8200 §5).
    pub const MIN_IPV6: Mtu = Mtu(1280);
    /// The most that a Linux TUN device takes, which is the most that an IPv4 length can say.
    pub const MAX: Mtu = Mtu(65_535);

    /// Takes 68–65535. Whether IPv6 is spoken, which needs 1280, is for the caller to know.
    pub fn new(mtu: i64) -> Result<Mtu, OutOfRange> {
        OutOfRange::check(mtu, Self::MIN_IPV4.0.into(), Self::MAX.0.into()).map(Mtu)
    }

    /// The number of bytes.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for Mtu {
    /// 1500: what every Ethernet carries, and the packet size of Alibaba's balancer (semantics 2a).
    fn default() -> Mtu {
        Mtu(1500)
    }
}

/// The name of a network device, as the Linux kernel accepts it for a TUN.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName(String);

/// Why a string cannot name a network device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeviceNameError {
    /// Nothing, or more than the kernel's `IFNAMSIZ` leaves.
    #[error("a device name has 1 to {max} bytes, this one has {actual}", max = DeviceName::MAX_LEN)]
    Length {
        /// The bytes found.
        actual: usize,
    },
    /// A character that the kernel refuses, or takes for a pattern (`%`).
    #[error("a device name cannot hold {0:?}")]
    Character(char),
    /// A name that means something else to the kernel.
    #[error("{0:?} is reserved")]
    Reserved(String),
}

impl DeviceName {
    /// `IFNAMSIZ` (16) without the closing zero.
    pub const MAX_LEN: usize = 15;

    /// Takes what `dev_valid_name` of the kernel takes, without the names and the character that
    /// have a meaning of their own.
    pub fn new(name: &str) -> Result<DeviceName, DeviceNameError> {
        if name.is_empty() || name.len() > Self::MAX_LEN {
            return Err(DeviceNameError::Length { actual: name.len() });
        }
        // The kernel refuses '/', ':' and space; '%' starts a pattern such as "tun%d".
        let bad = |c: char| "/:%".contains(c) || c.is_whitespace() || c.is_control();
        if let Some(character) = name.chars().find(|&c| bad(c)) {
            return Err(DeviceNameError::Character(character));
        }
        // "all" and "default" would collide with the directories of the same name in /proc/sys/net.
        if [".", "..", "lo", "all", "default"].contains(&name) {
            return Err(DeviceNameError::Reserved(name.to_owned()));
        }
        Ok(DeviceName(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An existing network namespace: a name under `/run/netns`, or an absolute path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsName(String);

/// Why a string cannot name a network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NetnsNameError {
    /// An empty string.
    #[error("a network namespace needs a name")]
    Empty,
    /// Neither a plain name nor an absolute path.
    #[error("{0:?} is neither a plain name nor an absolute path")]
    Relative(String),
}

impl NetnsName {
    /// Where `ip netns` and `netio` keep named namespaces.
    const DIRECTORY: &str = "/run/netns/";

    /// Takes a plain name, as `ip netns list` shows them, or an absolute path, such as
    /// `/proc/1234/ns/net`. A path into `/run/netns` is the same as the name.
    pub fn new(name: &str) -> Result<NetnsName, NetnsNameError> {
        let name = name
            .strip_prefix(Self::DIRECTORY)
            .or_else(|| name.strip_prefix("/var/run/netns/"))
            .unwrap_or(name);
        let relative = name.contains('/') && !name.starts_with('/');
        match name {
            "" => Err(NetnsNameError::Empty),
            name if relative || name == "." || name == ".." || name.contains('\0') => {
                Err(NetnsNameError::Relative(name.to_owned()))
            }
            name => Ok(NetnsName(name.to_owned())),
        }
    }

    /// The name or the path, as `netio` opens it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where the admin API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// A Unix socket: whoever may write to the file may administer.
    Unix(PathBuf),
    /// A TCP port of this host only; every request shows the token.
    Tcp {
        /// A loopback address and its port.
        address: SocketAddr,
        /// The file that holds the token.
        token_file: PathBuf,
    },
}

/// The HTTP status codes that a health check takes for healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher(Vec<(u16, u16)>);

/// Why a string is not a list of status codes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MatcherError {
    /// One item is neither a code nor a range.
    #[error("{0:?} is neither a status code nor a range of them")]
    Syntax(String),
    /// A code that no health check may take for healthy.
    #[error("{code} is outside {min} to {max}", min = Matcher::MIN, max = Matcher::MAX)]
    Code {
        /// The code found.
        code: u16,
    },
    /// A range that ends before it starts.
    #[error("{0:?} ends before it starts")]
    Backwards(String),
}

impl Matcher {
    /// The least code that counts as healthy (semantics 1b).
    pub const MIN: u16 = 200;
    /// The greatest code that counts as healthy (semantics 1b).
    pub const MAX: u16 = 399;

    /// Takes codes and ranges of codes, separated by commas: `"200"`, `"200-299,302"`.
    pub fn new(text: &str) -> Result<Matcher, MatcherError> {
        text.split(',').map(|item| Self::item(item.trim())).collect::<Result<_, _>>().map(Matcher)
    }

    fn item(item: &str) -> Result<(u16, u16), MatcherError> {
        let (low, high) = item.split_once('-').unwrap_or((item, item));
        let code = |digits: &str| {
            // `u16::from_str` takes a sign, which no status code has.
            let valid = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
            let code = valid.then(|| digits.parse().ok()).flatten();
            let code: u16 = code.ok_or_else(|| MatcherError::Syntax(item.to_owned()))?;
            match code {
                Self::MIN..=Self::MAX => Ok(code),
                code => Err(MatcherError::Code { code }),
            }
        };
        match (code(low)?, code(high)?) {
            (low, high) if low > high => Err(MatcherError::Backwards(item.to_owned())),
            range => Ok(range),
        }
    }

    /// Whether a health check that got this status code found the target healthy.
    pub fn matches(&self, code: u16) -> bool {
        self.0.iter().any(|&(low, high)| (low..=high).contains(&code))
    }
}

impl Default for Matcher {
    /// 200–399 (semantics 1b).
    fn default() -> Matcher {
        Matcher(vec![(Self::MIN, Self::MAX)])
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, &(low, high)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if low == high {
                write!(f, "{comma}{low}")?;
            } else {
                write!(f, "{comma}{low}-{high}")?;
            }
        }
        Ok(())
    }
}

/// A number outside of what a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{actual} is outside {min} to {max}")]
pub struct OutOfRange {
    /// The number found.
    pub actual: i64,
    /// The least that is allowed.
    pub min: i64,
    /// The most that is allowed.
    pub max: i64,
}

impl OutOfRange {
    /// The number, if it is within the range, both ends included.
    pub(super) fn check<T: TryFrom<i64>>(actual: i64, min: i64, max: i64) -> Result<T, OutOfRange> {
        let within = Some(actual).filter(|actual| (min..=max).contains(actual));
        within.and_then(|actual| T::try_from(actual).ok()).ok_or(OutOfRange { actual, min, max })
    }
}

macro_rules! display_inner {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
display_inner!(Name, Port, Weight, Mtu, DeviceName, NetnsName);

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn numbers_have_their_ranges() {
        assert_eq!(Port::new(0).unwrap_err(), OutOfRange { actual: 0, min: 1, max: 65_535 });
        assert_eq!(Port::new(65_535).unwrap().get(), 65_535);
        assert!(Port::new(65_536).is_err() && Port::new(i64::MIN).is_err());
        assert_eq!(Weight::new(0).unwrap().get(), 0);
        assert_eq!(Weight::new(1000).unwrap(), Weight::MAX);
        assert!(Weight::new(1001).is_err() && Weight::new(-1).is_err());
        assert_eq!(Mtu::new(68).unwrap(), Mtu::MIN_IPV4);
        assert_eq!(Mtu::new(65_535).unwrap(), Mtu::MAX);
        assert!(Mtu::new(67).is_err() && Mtu::new(65_536).is_err());
    }

    #[rstest]
    #[case("fw", None)]
    #[case("a", None)]
    #[case("the-firewalls-of-the-edge-team-1", None)]
    #[case("the-firewalls-of-the-edge-team-12", Some(NameError::Length { actual: 33 }))]
    #[case("", Some(NameError::Length { actual: 0 }))]
    #[case("fw_1", Some(NameError::Character('_')))]
    #[case("für", Some(NameError::Character('ü')))]
    #[case("-fw", Some(NameError::Hyphen))]
    #[case("fw-", Some(NameError::Hyphen))]
    fn names_are_as_aws_takes_them(#[case] name: &str, #[case] error: Option<NameError>) {
        assert_eq!(Name::new(name).err(), error);
    }

    #[rstest]
    #[case("app-a", None)]
    #[case("fifteen.bytes.1", None)]
    #[case("sixteen.bytes.12", Some(DeviceNameError::Length { actual: 16 }))]
    // Eight characters, and two bytes each.
    #[case("üüüüüüüü", Some(DeviceNameError::Length { actual: 16 }))]
    #[case("", Some(DeviceNameError::Length { actual: 0 }))]
    #[case("tun%d", Some(DeviceNameError::Character('%')))]
    #[case("a b", Some(DeviceNameError::Character(' ')))]
    #[case("a:0", Some(DeviceNameError::Character(':')))]
    #[case("..", Some(DeviceNameError::Reserved("..".to_owned())))]
    #[case("lo", Some(DeviceNameError::Reserved("lo".to_owned())))]
    fn device_names_are_as_the_kernel_takes_them(
        #[case] name: &str,
        #[case] error: Option<DeviceNameError>,
    ) {
        assert_eq!(DeviceName::new(name).err(), error);
    }

    #[test]
    fn a_namespace_has_one_name_however_it_is_written() {
        let name = NetnsName::new("app-a").unwrap();
        assert_eq!(NetnsName::new("/run/netns/app-a").unwrap(), name);
        assert_eq!(NetnsName::new("/var/run/netns/app-a").unwrap(), name);
        assert_eq!(NetnsName::new("/proc/1/ns/net").unwrap().as_str(), "/proc/1/ns/net");
        assert_eq!(NetnsName::new("").unwrap_err(), NetnsNameError::Empty);
        for relative in ["a/b", "..", "/run/netns/../x", "nul\0"] {
            assert!(NetnsName::new(relative).is_err(), "{relative:?}");
        }
    }

    #[rstest]
    #[case("200", &[200], &[201, 199])]
    #[case("200-299", &[200, 250, 299], &[199, 300])]
    #[case("200,302, 307-308", &[200, 302, 307, 308], &[201, 306, 399])]
    #[case("200-399", &[200, 399], &[400, 0])]
    fn a_matcher_is_codes_and_ranges(
        #[case] text: &str,
        #[case] good: &[u16],
        #[case] bad: &[u16],
    ) {
        let matcher = Matcher::new(text).unwrap();
        assert!(good.iter().all(|&code| matcher.matches(code)), "{matcher}");
        assert!(bad.iter().all(|&code| !matcher.matches(code)), "{matcher}");
        assert_eq!(matcher.to_string(), text.replace(' ', ""));
    }

    #[rstest]
    #[case("")]
    #[case("200,")]
    #[case("2xx")]
    #[case("+20")]
    #[case("0200")]
    #[case("200-")]
    #[case("200-250-299")]
    #[case("199")]
    #[case("200-400")]
    #[case("299-200")]
    fn anything_else_is_no_matcher(#[case] text: &str) {
        assert!(Matcher::new(text).is_err());
    }
}
