//! Captures that others made, real and hostile.
//!
//! They stay where they are: in the folder that `GWLB_CORPUS` names, or in `shared/corpus` beside
//! the checkout. The folder `inner` has packets to carry, the folder `geneve` has packets that are
//! carried already.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use geneve::{Header, PORT, ProtocolType, outer};
use netio::pcap::{Capture, Frame, LinkType};

use crate::notice;

/// The environment variable that names another corpus.
pub const VARIABLE: &str = "GWLB_CORPUS";

/// A capture of the corpus.
#[derive(Debug)]
pub struct CorpusFile {
    /// Folder and name.
    pub name: String,
    /// Its frames and what they begin with.
    pub capture: Capture,
}

/// The captures of one folder of the corpus, by name; `None`, and a notice for people, if the
/// folder is not there.
///
/// # Panics
/// If the folder is there and has no captures, or one that cannot even be opened.
pub fn captures(folder: &str) -> Option<Vec<CorpusFile>> {
    let path = root().join(folder);
    if !path.is_dir() {
        notice::skip("corpus", format!("{} is not there (set {VARIABLE})", path.display()));
        return None;
    }
    let mut paths: Vec<_> = fs::read_dir(&path)
        .expect("a folder that can be listed")
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no captures", path.display());
    Some(paths.iter().map(|path| open(folder, path)).collect())
}

/// One capture of the corpus; `None`, and a notice, if it is not there.
///
/// # Panics
/// If it cannot be opened.
pub fn capture(folder: &str, name: &str) -> Option<CorpusFile> {
    let path = root().join(folder).join(name);
    if !path.is_file() {
        notice::skip("corpus", format!("{} is not there (set {VARIABLE})", path.display()));
        return None;
    }
    Some(open(folder, &path))
}

/// The folder that holds the corpus, whether it is there or not.
pub fn root() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    std::env::var_os(VARIABLE).map_or_else(beside, PathBuf::from)
}

fn open(folder: &str, path: &Path) -> CorpusFile {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{folder}/{file}");
    let capture = File::open(path).map_err(Into::into).and_then(Capture::read);
    match capture {
        Ok(capture) => CorpusFile { name, capture },
        Err(error) => panic!("{name}: {error}"),
    }
}

impl CorpusFile {
    /// The frames up to the first that the file's own format forbids.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.capture.frames().map_while(Result::ok)
    }

    /// The IP packets in the frames, with whatever follows them.
    pub fn packets(&self) -> Vec<Vec<u8>> {
        self.frames().filter_map(|frame| frame.ip().map(<[u8]>::to_vec)).collect()
    }
}

/// The UDP payload of an IP packet that carries Geneve.
pub fn geneve_datagram(packet: &[u8]) -> Option<&[u8]> {
    let (outer, payload) = outer::parse(packet).ok()?;
    (outer.dst.port() == PORT).then(|| &packet[payload])
}

/// The IP packet inside a Geneve datagram, directly or in an Ethernet frame.
pub fn inner_packet(datagram: &[u8]) -> Option<Vec<u8>> {
    let (header, payload) = Header::parse(datagram).ok()?;
    match header.protocol() {
        ProtocolType::IPV4 | ProtocolType::IPV6 => Some(payload.to_vec()),
        ProtocolType::ETHERNET => {
            let frame = Frame {
                timestamp: std::time::Duration::ZERO,
                link: LinkType::ETHERNET,
                bytes: payload.into(),
                original_len: payload.len() as u32,
            };
            frame.ip().map(<[u8]>::to_vec)
        }
        _ => None,
    }
}
