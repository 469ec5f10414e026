//! What an appliance does with the datagrams that it got before it sends them back.
//!
//! A plain echo keeps the payload and the UDP ports and swaps the outer addresses. A [`Change`] is
//! one way to do it differently: as appliances do, or as nobody should.

use std::net::{IpAddr, SocketAddr};

use geneve::header::MAX_LEN;
use geneve::{GeneveOption, Header, HeaderBuilder, OptionClass, OptionType};
use serde::{Deserialize, Deserializer, de};
use thiserror::Error;

use crate::gateway::{Datagram, Sent};

/// Sends a datagram back as a correct appliance does: outer addresses swapped, ports not.
pub fn echo(sent: &Sent) -> Datagram {
    let from = SocketAddr::new(sent.to.ip(), sent.from.port());
    Datagram { from, to: sent.from.ip(), bytes: sent.bytes.clone() }
}

/// Something done to all datagrams that are about to be sent back together.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Only these are sent, in this order; counted from 0.
    Only(Vec<usize>),
    /// Bytes are written over what was there.
    Set {
        /// Where, counted from the first byte of the Geneve header.
        at: usize,
        /// What.
        bytes: Hex,
    },
    /// Bytes follow behind the datagram.
    Append(Hex),
    /// Only the first so many bytes are sent.
    Truncate(usize),
    /// In place of each datagram, one for every length that is shorter.
    TruncateEverywhere,
    /// In place of each datagram, one for every bit of these bytes, in which that bit is wrong.
    InvertEachBit {
        /// The first byte, counted from the first of the Geneve header.
        from: usize,
        /// The one behind the last.
        to: usize,
    },
    /// The header is that of another datagram; counted from 0.
    HeaderOf(usize),
    /// An option is put behind the others.
    AddOption {
        /// Its class.
        class: u16,
        /// Its type, critical from 128 on.
        kind: u8,
        /// Its data.
        data: Hex,
    },
    /// The options are in the opposite order.
    ReverseOptions,
    /// An option is missing; counted from 0.
    RemoveOption(usize),
    /// An option is there a second time; counted from 0.
    RepeatOption(usize),
    /// Only one of them is changed, in a way that leaves as many as there were.
    On {
        /// Which; counted from 0.
        index: usize,
        /// How.
        change: Box<Change>,
    },
    /// It is sent from this address.
    From(IpAddr),
    /// It is sent to this address.
    To(IpAddr),
}

impl Change {
    /// Changes what is about to be sent.
    ///
    /// # Errors
    /// [`Impossible`] if the change does not fit the datagrams.
    pub fn apply(&self, datagrams: Vec<Datagram>) -> Result<Vec<Datagram>, Impossible> {
        let header = |index: usize| {
            let datagram = datagrams.get(index).ok_or(Impossible::NoDatagram(index))?;
            let (header, _) = Header::parse(&datagram.bytes).map_err(|_| Impossible::NoHeader)?;
            Ok(header.as_bytes().to_vec())
        };
        match self {
            Change::Only(indices) => indices
                .iter()
                .map(|&index| datagrams.get(index).cloned().ok_or(Impossible::NoDatagram(index)))
                .collect(),
            Change::TruncateEverywhere => Ok(datagrams
                .iter()
                .flat_map(|datagram| {
                    (0..datagram.bytes.len()).map(|len| Datagram {
                        bytes: datagram.bytes[..len].to_vec(),
                        ..datagram.clone()
                    })
                })
                .collect()),
            Change::InvertEachBit { from, to } => {
                let inverted = |datagram: Datagram| {
                    let len = datagram.bytes.len();
                    if *to > len {
                        return Err(Impossible::Short { needed: *to, len });
                    }
                    Ok((from * 8..to * 8).map(move |bit| {
                        let mut inverted = datagram.clone();
                        inverted.bytes[bit / 8] ^= 0x80 >> (bit % 8);
                        inverted
                    }))
                };
                let all: Vec<_> = datagrams.into_iter().map(inverted).collect::<Result<_, _>>()?;
                Ok(all.into_iter().flatten().collect())
            }
            Change::HeaderOf(index) => {
                let header = header(*index)?;
                datagrams.iter().map(|datagram| with_header(datagram, &header)).collect()
            }
            Change::On { index, change } => {
                let count = datagrams.len();
                let mut changed = change.apply(datagrams.clone())?;
                if changed.len() != count || *index >= count {
                    return Err(Impossible::NoDatagram(*index));
                }
                let mut datagrams = datagrams;
                datagrams[*index] = changed.swap_remove(*index);
                Ok(datagrams)
            }
            _ => datagrams.into_iter().map(|datagram| self.apply_to(datagram)).collect(),
        }
    }

    fn apply_to(&self, mut datagram: Datagram) -> Result<Datagram, Impossible> {
        match self {
            Change::Set { at, bytes } => {
                let len = datagram.bytes.len();
                let end = at + bytes.0.len();
                let place = datagram.bytes.get_mut(*at..end);
                let place = place.ok_or(Impossible::Short { needed: end, len })?;
                place.copy_from_slice(&bytes.0);
            }
            Change::Append(bytes) => datagram.bytes.extend_from_slice(&bytes.0),
            Change::Truncate(len) => datagram.bytes.truncate(*len),
            Change::AddOption { class, kind, data } => {
                let added = GeneveOption {
                    class: OptionClass::new(*class),
                    kind: OptionType::new(*kind),
                    data: &data.0,
                };
                return with_options(&datagram, |options| options.push(added));
            }
            Change::ReverseOptions => return with_options(&datagram, |options| options.reverse()),
            Change::RemoveOption(index) => {
                return with_options(&datagram, |options| {
                    options.remove(*index);
                });
            }
            Change::RepeatOption(index) => {
                return with_options(&datagram, |options| options.push(options[*index]));
            }
            Change::From(address) => datagram.from.set_ip(*address),
            Change::To(address) => datagram.to = *address,
            Change::Only(_)
            | Change::TruncateEverywhere
            | Change::InvertEachBit { .. }
            | Change::HeaderOf(_)
            | Change::On { .. } => {}
        }
        Ok(datagram)
    }
}

/// Why a change cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Impossible {
    /// The appliance did not get so many datagrams.
    #[error("there is no datagram {0}, counted from 0")]
    NoDatagram(usize),
    /// The datagram is too short.
    #[error("{needed} bytes are to be changed, the datagram has {len}")]
    Short {
        /// Up to which byte the change would reach.
        needed: usize,
        /// How many there are.
        len: usize,
    },
    /// The datagram has no valid Geneve header, or would have none.
    #[error("the datagram has no valid Geneve header")]
    NoHeader,
}

fn with_header(datagram: &Datagram, header: &[u8]) -> Result<Datagram, Impossible> {
    let (_, payload) = Header::parse(&datagram.bytes).map_err(|_| Impossible::NoHeader)?;
    let bytes = [header, payload].concat();
    Ok(Datagram { bytes, ..datagram.clone() })
}

fn with_options<'a>(
    datagram: &'a Datagram,
    change: impl FnOnce(&mut Vec<GeneveOption<'a>>),
) -> Result<Datagram, Impossible> {
    let (header, _) = Header::parse(&datagram.bytes).map_err(|_| Impossible::NoHeader)?;
    let mut options = header.options().collect();
    change(&mut options);
    let mut bytes = [0; MAX_LEN];
    let builder = HeaderBuilder::new(header.protocol()).vni(header.vni()).options(&options);
    let len = builder.write(&mut bytes).map_err(|_| Impossible::NoHeader)?;
    with_header(datagram, &bytes[..len])
}

/// Bytes, written as hexadecimal digits with spaces where one likes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hex, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits: Option<Vec<u8>> = text
            .chars()
            .filter(|character| *character != ' ')
            .map(|character| Some(character.to_digit(16)? as u8))
            .collect();
        match digits {
            Some(digits) if digits.len() % 2 == 0 => {
                Ok(Hex(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()))
            }
            _ => Err(de::Error::custom(format!("{text:?} is no sequence of hexadecimal bytes"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use geneve::{Dialect, ProtocolType, Tags};

    use super::*;

    fn datagram(cookie: u32) -> Datagram {
        let mut bytes = vec![0; Dialect::AWS.header_len()];
        let tags = Tags { endpoint: 1, attachment: 2, cookie };
        Dialect::AWS.write(&tags, ProtocolType::IPV4, &mut bytes).unwrap();
        bytes.extend_from_slice(b"inner");
        Datagram { from: "192.0.2.11:61000".parse().unwrap(), to: [192, 0, 2, 1].into(), bytes }
    }

    fn changed(text: &str, datagrams: &[Datagram]) -> Result<Vec<Datagram>, Impossible> {
        #[derive(Deserialize)]
        struct Form {
            change: Change,
        }
        let form: Form = toml::from_str(&format!("change = {text}")).unwrap();
        form.change.apply(datagrams.to_vec())
    }

    #[test]
    fn datagrams_are_chosen_cut_and_readdressed() {
        let both = [datagram(1), datagram(2)];
        let [one, two] = &both;
        assert_eq!(
            changed("{ only = [1, 0, 1] }", &both).unwrap(),
            [two, one, two].map(Clone::clone)
        );
        assert_eq!(changed("{ only = [2] }", &both), Err(Impossible::NoDatagram(2)));
        let cut = changed("\"truncate_everywhere\"", &both).unwrap();
        let expected = both.iter().flat_map(|whole| (0..45).map(|len| &whole.bytes[..len]));
        assert!(cut.iter().map(|cut| &cut.bytes[..]).eq(expected));
        let inverted = changed("{ invert_each_bit = { from = 4, to = 6 } }", &both[..1]).unwrap();
        assert_eq!(inverted.len(), 16);
        let ones = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
        let of_zeros = |inverted: &Datagram| ones(&inverted.bytes[4..6]) == 1;
        assert!(inverted.iter().all(of_zeros), "each bit of two bytes of zeros");
        let on = |change| changed(&format!("{{ on = {{ index = 1, change = {change} }} }}"), &both);
        let cut = on("{ truncate = 7 }").unwrap();
        assert_eq!(cut.iter().map(|it| it.bytes.len()).collect::<Vec<_>>(), [45, 7]);
        assert_eq!(on("{ header_of = 0 }").unwrap(), [datagram(1), datagram(1)]);
        assert_eq!(on("{ only = [0] }"), Err(Impossible::NoDatagram(1)));
        let moved = changed("{ from = \"192.0.2.99\" }", &both[..1]).unwrap();
        assert_eq!(moved[0].from, "192.0.2.99:61000".parse().unwrap());
        let moved = changed("{ to = \"192.0.2.2\" }", &both[..1]).unwrap();
        assert_eq!(moved[0].to, IpAddr::from([192, 0, 2, 2]));
    }

    #[test]
    fn bytes_are_written_over_and_behind() {
        let one = [datagram(1)];
        let set = changed("{ set = { at = 1, bytes = \"80 00\" } }", &one).unwrap();
        assert_eq!(set[0].bytes[..4], [8, 0x80, 0, 0]);
        let error = changed("{ set = { at = 44, bytes = \"8000\" } }", &one);
        assert_eq!(error, Err(Impossible::Short { needed: 46, len: 45 }));
        let longer = changed("{ append = \"21\" }", &one).unwrap();
        assert!(longer[0].bytes.ends_with(b"inner!"));
        assert_eq!(changed("{ truncate = 7 }", &one).unwrap()[0].bytes.len(), 7);
    }

    #[test]
    fn headers_are_exchanged_and_options_changed() {
        let both = [datagram(1), datagram(2)];
        let swapped = changed("{ header_of = 1 }", &both).unwrap();
        assert_eq!(swapped, [datagram(2), datagram(2)]);
        let kinds = |change: &str| {
            let changed = changed(change, &both[..1]).unwrap();
            let (header, payload) = Header::parse(&changed[0].bytes).unwrap();
            assert_eq!(payload, b"inner");
            assert!(header.flags_agree());
            header.options().map(|option| option.kind.get()).collect::<Vec<_>>()
        };
        assert_eq!(kinds("\"reverse_options\""), [3, 2, 1]);
        assert_eq!(kinds("{ remove_option = 1 }"), [1, 3]);
        assert_eq!(kinds("{ repeat_option = 1 }"), [1, 2, 3, 2]);
        let added = "{ add_option = { class = 1, kind = 128, data = \"00000000\" } }";
        assert_eq!(kinds(added), [1, 2, 3, 128]);
    }
}
