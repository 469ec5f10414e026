//! The sockets that the control plane serves.

use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::{AdminAddress, GatewaySettings};
use crate::runtime::error::StartError;

/// Only the owner of the process may administer.
pub(super) const SOCKET_MODE: u32 = 0o600;

/// Connections that may wait to be accepted. The kernel has its own limit (`net.core.somaxconn`,
/// 4096). A Unix client that finds no room gets EAGAIN in place of a connection.
const BACKLOG: i32 = 4096;

/// The sockets, bound before anything else is built.
#[derive(Debug)]
pub(in crate::runtime) struct Listeners {
    pub(super) admin: Option<Admin>,
    pub(super) metrics: Option<TcpListener>,
}

/// Where the admin API listens.
#[derive(Debug)]
pub(super) enum Admin {
    Unix(UnixListener, SocketFile),
    /// With the token that clients show.
    Tcp(TcpListener, String),
}

/// A socket in the file system, removed when it is dropped.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have removed it: then it is gone, as it should be.
        let _ = fs::remove_file(&self.0);
    }
}

impl Listeners {
    /// Binds what the settings name.
    pub fn bind(settings: &GatewaySettings) -> Result<Self, StartError> {
        let admin = match &settings.admin {
            None => None,
            Some(AdminAddress::Unix(path)) => {
                let listener = bind_unix(path).map_err(|error| StartError::Listen {
                    what: "the admin API",
                    address: path.display().to_string(),
                    error,
                })?;
                Some(Admin::Unix(listener, SocketFile(path.clone())))
            }
            Some(AdminAddress::Tcp { address, token_file }) => {
                let token = fs::read_to_string(token_file).map_err(|error| {
                    let what = "the admin API";
                    let address = format!("{address} (token file {})", token_file.display());
                    StartError::Listen { what, address, error }
                })?;
                let listener = bind_tcp("the admin API", *address)?;
                Some(Admin::Tcp(listener, token.trim().to_owned()))
            }
        };
        let metrics =
            settings.metrics.map(|address| bind_tcp("the metrics", address)).transpose()?;
        Ok(Self { admin, metrics })
    }
}

fn bind_tcp(what: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // As the standard library does: a restart does not wait for old connections to be forgotten.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    bind().map_err(|error| StartError::Listen { what, address: address.to_string(), error })
}

/// Binds a Unix socket in place of one that nobody serves any more.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err() {
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before it listens.
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// How many connections there may be, so that file descriptors are left for probes and devices.
/// The process's limit is raised as far as it may be.
pub(super) fn places() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return usize::MAX };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let limit = if raised { hard } else { soft };
    usize::try_from(limit / 4).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_clients_find_room_before_anybody_is_accepted() {
        let most = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let clients = most.trim().parse::<usize>().unwrap().min(1000);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let _listener = bind_unix(&path).unwrap();
        let clients: Vec<_> = (0..clients)
            .map(|number| {
                let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
                client.set_nonblocking(true).unwrap();
                let connected = client.connect(&SockAddr::unix(&path).unwrap());
                connected.map_or_else(|error| panic!("{number}: {error}"), |()| client)
            })
            .collect();
        assert!(clients.len() > 100);
    }
}
