//! Much data in one connection, with a hash at both ends.
//!
//! The sender sends, says that this was all, and gets the hash of what arrived as the answer. There
//! is no other form, so a changed byte is just that: another hash.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use blake3::{Hash, Hasher};

use crate::runtime::clock;

/// Where it listens.
pub(in crate::lab) const PORT: u16 = 5001;
/// What one write takes. Much more than a super-packet, so that the kernel always has enough.
const CHUNK: usize = 1 << 20;
/// What one read takes at most.
const READ: usize = 256 << 10;
/// How long the stream may stand still.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a transfer went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::lab) struct Sent {
    /// From the first byte to the answer.
    pub duration: Duration,
    /// Whether what arrived has the hash of what was sent.
    pub identical: bool,
}

/// Sends `bytes` of data that `seed` determines, counting in `progress`. Blocks.
pub(in crate::lab) fn send(
    to: SocketAddr,
    bytes: u64,
    seed: u64,
    progress: &AtomicU64,
) -> io::Result<Sent> {
    let mut data = Data::new(seed, bytes);
    let expected = hash(Data::new(seed, bytes));
    let mut stream = super::connect(to, PATIENCE)?;
    let start = clock::now();
    while let Some(chunk) = data.next_chunk() {
        stream.write_all(chunk)?;
        progress.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answer = [0; blake3::OUT_LEN];
    stream.read_exact(&mut answer)?;
    let duration = clock::now().saturating_duration_since(start);
    Ok(Sent { duration, identical: Hash::from_bytes(answer) == expected })
}

/// Receives on threads of their own, until the process ends.
pub(super) fn serve(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                // The sender finds out by the missing answer.
                if let Err(error) = receive(stream) {
                    tracing::debug!(%error, "a transfer ended early");
                }
            });
        }
    });
}

fn receive(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut hasher = Hasher::new();
    io::copy(&mut BufReader::with_capacity(READ, &stream), &mut hasher)?;
    stream.write_all(hasher.finalize().as_bytes())
}

/// Data without repetition, cheap to make: one block of noise, stamped with its number.
struct Data {
    block: Vec<u8>,
    number: u64,
    left: u64,
}

impl Data {
    fn new(seed: u64, bytes: u64) -> Self {
        let mut block = vec![0; CHUNK];
        Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut block);
        Self { block, number: 0, left: bytes }
    }

    fn next_chunk(&mut self) -> Option<&[u8]> {
        if self.left == 0 {
            return None;
        }
        self.block[..8].copy_from_slice(&self.number.to_le_bytes());
        self.number += 1;
        let len = self.left.min(CHUNK as u64);
        self.left -= len;
        Some(&self.block[..len as usize])
    }
}

fn hash(mut data: Data) -> Hash {
    let mut hasher = Hasher::new();
    while let Some(chunk) = data.next_chunk() {
        hasher.update(chunk);
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn what_arrives_is_what_was_sent() {
        let (listener, to) = listener();
        serve(listener);
        let bytes = 3 * CHUNK as u64 + 17;
        let progress = AtomicU64::new(0);
        let sent = send(to, bytes, 1, &progress).unwrap();
        assert!(sent.identical);
        assert_eq!(progress.into_inner(), bytes);
    }

    #[test]
    fn one_changed_byte_is_noticed() {
        let (listener, to) = listener();
        let (behind, behind_address) = self::listener();
        serve(behind);
        // Passes everything on, but for one byte of the payload.
        thread::spawn(move || {
            let (mut from, _) = listener.accept().unwrap();
            let mut on = TcpStream::connect(behind_address).unwrap();
            let mut bytes = vec![0; 1000];
            from.read_exact(&mut bytes).unwrap();
            bytes[999] ^= 1;
            on.write_all(&bytes).unwrap();
            io::copy(&mut from, &mut on).unwrap();
            on.shutdown(Shutdown::Write).unwrap();
            io::copy(&mut on, &mut from).unwrap();
        });
        let sent = send(to, CHUNK as u64, 1, &AtomicU64::new(0)).unwrap();
        assert!(!sent.identical);
    }

    #[test]
    fn seeds_make_different_data() {
        assert_ne!(hash(Data::new(1, 100)), hash(Data::new(2, 100)));
        assert_ne!(hash(Data::new(1, 100)), hash(Data::new(1, 101)));
    }
}
