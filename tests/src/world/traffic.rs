//! Real traffic between the hosts of a world, through their kernels' stacks.
//!
//! Services and clients are plain sockets; they know nothing of the gateway. Every call has a limit
//! on how long it may stand still ([`LIMIT`]).

mod echo;
mod ping;
mod stream;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

pub use echo::{EchoServer, datagrams, exchange};
pub use ping::ping;
pub use stream::{Stream, Transfer, transfer};

use super::{Family, Host, LIMIT};

/// Payload lengths from nothing to what fits a packet of 1500 bytes with either IP header.
pub const LENGTHS: [usize; 8] = [1, 8, 64, 250, 512, 1000, 1280, 1452];

/// Tries to open a TCP connection to a port on which the other host may listen or not.
///
/// # Errors
/// What the kernel says: refused, timed out, …
pub fn connect(from: &Host, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream = from.run(|| TcpStream::connect_timeout(&to, patience))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Listens on a port of a host; 0 is any port.
pub fn listen(on: &Host, family: Family, port: u16) -> TcpListener {
    let address = SocketAddr::new(on.address(family), port);
    on.run(|| TcpListener::bind(address)).expect("a free port on a host with its address")
}
