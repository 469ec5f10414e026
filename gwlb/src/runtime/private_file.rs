//! Files that hold a secret: read only if nobody else could read or change them.
//!
//! The rules are those of ssh for private keys (ssh(1), FILES): what others may read is not secret, so
//! it is refused and not only warned of.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use zeroize::Zeroizing;

/// Only the owner reads and writes.
pub(super) const MODE: u32 = 0o600;

/// Reads a file of at most `most` bytes, which leave memory with the caller's last use of them. Of
/// a longer file one byte more is read, which tells that it is longer.
///
/// A symbolic link is followed; what counts is the file behind it.
///
/// # Errors
/// What the kernel says, and [`io::ErrorKind::PermissionDenied`] with what is to be done where
/// somebody but root and the process's user owns the file, or somebody but its owner may read it.
pub(super) fn read(path: &Path, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Opening a pipe would wait for somebody to write to it.
    let flags = OFlag::O_NONBLOCK.bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    let refuse = |message: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    if !metadata.is_file() {
        return refuse("it is no regular file".to_owned());
    }
    let owner = metadata.uid();
    if owner != 0 && owner != geteuid().as_raw() {
        return refuse(format!("it belongs to another user ({owner}), who may change it"));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return refuse(format!("mode {mode:04o} lets others read it; make it {MODE:04o}"));
    }
    // With all the room at once: what grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    /// A user without any rights, on every Linux.
    const NOBODY: u32 = 65_534;

    #[test]
    fn what_others_may_read_or_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "x").unwrap();
        let made = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        for mode in [0o644, 0o640, 0o620, 0o604, 0o602, 0o610] {
            made(mode);
            let error = read(&path, 9).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert!(error.to_string().contains(&format!("mode {mode:04o}")), "{error}");
        }
        for mode in [0o600, 0o400] {
            made(mode);
            assert_eq!(read(&path, 9).unwrap().as_slice(), b"x");
        }
        // A link to it is no way around the rules, and no obstacle.
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(read(&link, 9).unwrap().as_slice(), b"x");
        made(0o644);
        assert!(read(&link, 9).is_err());
    }

    #[test]
    fn what_belongs_to_somebody_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        if let Err(error) = chown(&path, Some(NOBODY), None) {
            return netio::netns::skip_test("what_belongs_to_somebody_else_is_refused", error);
        }
        let error = read(&path, 9).unwrap_err().to_string();
        assert!(error.contains("another user (65534)"), "{error}");
    }

    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        for path in [pipe.as_path(), folder.path()] {
            let error = read(path, 9).unwrap_err().to_string();
            assert!(error.contains("no regular file"), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_too_long_is_read_to_one_byte_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, [7; 100]).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&path, 9).unwrap().len(), 10);
    }
}
