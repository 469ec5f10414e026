//! Capture files, as far as these tests need them: every frame, and the IP packet in it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};

/// A folder of the corpus, or `None` and a notice if it is not there. The corpus is `GWLB_CORPUS`,
/// or else the folder `shared/corpus` beside the checkout.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    in_corpus(name, Path::is_dir)
}

/// A capture of the corpus, or `None` and a notice if it is not there.
pub(crate) fn file(name: &str) -> Option<PathBuf> {
    in_corpus(name, Path::is_file)
}

fn in_corpus(name: &str, is_there: fn(&Path) -> bool) -> Option<PathBuf> {
    let corpus = std::env::var_os("GWLB_CORPUS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"),
        PathBuf::from,
    );
    let path = corpus.join(name);
    if is_there(&path) {
        return Some(path);
    }
    // Past the test harness, which would keep it to itself, and in one piece.
    let notice = format!("SKIP corpus: {} is not there (set GWLB_CORPUS)\n", path.display());
    std::io::stderr().write_all(notice.as_bytes()).unwrap();
    None
}

/// The captures of a folder, by name.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds no captures", folder.display());
    files
}

/// One frame of a capture.
pub(crate) struct Frame {
    link: Link,
    bytes: Vec<u8>,
}

/// The link types that these tests look into.
#[derive(Clone, Copy)]
enum Link {
    Ethernet,
    Raw,
    LinuxCooked,
    Other,
}

impl Link {
    /// The registry of link types is <https://www.tcpdump.org/linktypes.html>. The upper half of a
    /// capture's field tells of frame check sequences.
    fn new(link_type: u32) -> Link {
        match link_type & 0xffff {
            1 => Link::Ethernet,
            12 | 101 | 228 | 229 => Link::Raw,
            113 => Link::LinuxCooked,
            _ => Link::Other,
        }
    }
}

/// Reads the frames of a capture, up to the first that the file's own format forbids.
pub(crate) fn frames(path: &Path) -> Vec<Frame> {
    let file = fs::read(path).unwrap();
    let frames =
        if file.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) { pcapng(&file) } else { pcap(&file) };
    assert!(!frames.is_empty(), "{} holds no frames", path.display());
    frames
}

fn pcap(file: &[u8]) -> Vec<Frame> {
    let mut reader = PcapReader::new(file).unwrap();
    let link = Link::new(reader.header().datalink.into());
    let mut frames = Vec::new();
    while let Some(Ok(packet)) = reader.next_raw_packet() {
        frames.push(Frame { link, bytes: packet.data.into_owned() });
    }
    frames
}

fn pcapng(file: &[u8]) -> Vec<Frame> {
    let mut reader = PcapNgReader::new(file).unwrap();
    let (mut links, mut frames) = (Vec::new(), Vec::new());
    while let Some(Ok(block)) = reader.next_block() {
        match block {
            Block::InterfaceDescription(interface) => {
                links.push(Link::new(interface.linktype.into()));
            }
            Block::EnhancedPacket(packet) => {
                let link = links[packet.interface_id as usize];
                frames.push(Frame { link, bytes: packet.data.into_owned() });
            }
            _ => {}
        }
    }
    frames
}

impl Frame {
    /// The IP packet that the frame claims to carry, with whatever stands behind it.
    pub(crate) fn ip(&self) -> Option<&[u8]> {
        let ether_type = match self.link {
            Link::Raw => return Some(&self.bytes),
            Link::Ethernet => 12,
            Link::LinuxCooked => 14,
            Link::Other => return None,
        };
        ip_behind(self.bytes.get(ether_type..)?)
    }
}

/// The IP packet in an Ethernet frame.
pub(crate) fn ip_in_ethernet(frame: &[u8]) -> Option<&[u8]> {
    ip_behind(frame.get(12..)?)
}

/// The IP packet behind an `EtherType` and possibly VLAN tags.
fn ip_behind(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        bytes = match bytes {
            [0x08, 0x00, ip @ ..] | [0x86, 0xdd, ip @ ..] => return Some(ip),
            [0x81, 0x00, _, _, rest @ ..] | [0x88, 0xa8, _, _, rest @ ..] => rest,
            _ => return None,
        };
    }
}
