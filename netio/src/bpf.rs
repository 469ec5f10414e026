//! Classic BPF: the small programs by which a socket has the kernel choose packets. What takes more
//! than that is written in [`extended`].

pub(crate) mod extended;

use std::io;

use libc::{c_int, sock_filter, sock_fprog};
use socket2::Socket;

use crate::udp::options;

/// Offsets count from the IP header (a negative number, as 32 bits).
pub(crate) const NET: u32 = libc::SKF_NET_OFF.cast_unsigned();

/// An instruction that does not jump.
pub(crate) fn op(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Gives `socket` a program, by the option for its purpose.
pub(crate) fn attach(
    socket: &Socket,
    option: c_int,
    program: &mut [sock_filter],
) -> io::Result<()> {
    // The kernel copies the program before the call returns.
    let program = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    options::set(socket, libc::SOL_SOCKET, option, &program)
}
