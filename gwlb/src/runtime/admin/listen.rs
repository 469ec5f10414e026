//! The sockets that the control plane serves.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

use super::token::Token;
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
    Tcp(TcpListener, Token),
}

/// A socket in the file system, removed when it is dropped, if it is still the same one.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Its device and inode.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: identity(path) }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have put another one there, who is to keep it.
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
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
                Some(Admin::Unix(listener, SocketFile::new(path)))
            }
            Some(AdminAddress::Tcp { address, token_file }) => {
                let token = Token::read(token_file).map_err(|error| {
                    let what = "the admin API";
                    let address = format!("{address} (token file {})", token_file.display());
                    StartError::Listen { what, address, error }
                })?;
                let listener = bind_tcp("the admin API", *address)?;
                Some(Admin::Tcp(listener, token))
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
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        check_directory(directory)?;
    }
    match fs::symlink_metadata(path) {
        // A symbolic link is no socket, whatever it leads to.
        Ok(found) if !found.file_type().is_socket() => {
            let message = "there is something else of this name, which is no socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?;
            }
            // Somebody is there, or may be: binding will say so.
            _ => {}
        },
        Err(_) => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file gets the mode of the socket that is bound (`unix_bind_bsd` in the kernel): at no
    // moment has it another one, and no path is followed twice.
    fchmod(&socket, Mode::from_bits_truncate(SOCKET_MODE))?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Refuses a directory in which others could put a socket of their own in the place of ours, to be
/// asked and told what is meant for the gateway. The directories above it are not looked at.
fn check_directory(directory: &Path) -> io::Result<()> {
    const STICKY: u32 = 0o1000;
    // By its group or by anybody.
    const WRITABLE: u32 = 0o022;
    let metadata = fs::metadata(directory)?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    let ours = owner == 0 || owner == geteuid().as_raw();
    if ours && (mode & WRITABLE == 0 || mode & STICKY != 0) {
        return Ok(());
    }
    let whose = if ours { format!("has mode {mode:04o}") } else { format!("is user {owner}'s") };
    let message = format!(
        "its directory {} {whose}, so others could put a socket of their own there; use one that \
         only the gateway's user may change",
        directory.display(),
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
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
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    fn fails(path: &Path) -> String {
        bind_unix(path).unwrap_err().to_string()
    }

    #[test]
    fn only_its_owner_may_connect_and_enter_what_was_made_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/for/it.sock");
        let _listener = bind_unix(&path).unwrap();
        assert_eq!(mode(&path), SOCKET_MODE);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(mode(&folder.path().join("made")), 0o700);
    }

    #[test]
    fn what_nobody_serves_any_more_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let first = bind_unix(&path).unwrap();
        assert!(fails(&path).contains("in use"), "somebody serves there");
        drop(first);
        let _second = bind_unix(&path).unwrap();

        let precious = folder.path().join("precious");
        fs::write(&precious, "data").unwrap();
        assert!(fails(&precious).contains("no socket"));
        assert_eq!(fs::read_to_string(&precious).unwrap(), "data");
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("precious");
        fs::write(&precious, "data").unwrap();
        fs::set_permissions(&precious, Permissions::from_mode(0o644)).unwrap();
        let nowhere = folder.path().join("nowhere");
        let socket = folder.path().join("a-stale-socket");
        drop(bind_unix(&socket).unwrap());
        for target in [&precious, &nowhere, &socket] {
            let link = folder.path().join("admin.sock");
            symlink(target, &link).unwrap();
            assert!(fails(&link).contains("no socket"), "{target:?}");
            assert_eq!(&fs::read_link(&link).unwrap(), target, "the link is as it was");
            fs::remove_file(&link).unwrap();
        }
        assert_eq!(mode(&precious), 0o644);
        assert!(!nowhere.exists() && socket.exists());
    }

    #[test]
    fn a_directory_that_others_may_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let set = |mode| fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        for refused in [0o777, 0o770, 0o720, 0o702] {
            set(refused);
            let expected = format!("has mode {refused:04o}");
            assert!(fails(&path).contains(&expected), "{}", fails(&path));
            assert!(!path.exists());
        }
        // Where nobody removes what is another's, as in /tmp.
        set(0o1777);
        drop(bind_unix(&path).unwrap());
        set(0o755);
        if let Err(error) = std::os::unix::fs::chown(folder.path(), Some(65_534), None) {
            return netio::netns::skip_test("a_directory_that_others_may_change", error);
        }
        assert!(fails(&path).contains("is user 65534's"), "{}", fails(&path));
    }

    #[test]
    fn the_socket_of_a_successor_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let first = (bind_unix(&path).unwrap(), SocketFile::new(&path));
        fs::remove_file(&path).unwrap();
        let second = (bind_unix(&path).unwrap(), SocketFile::new(&path));
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

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
