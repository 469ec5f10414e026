//! The secret file: 32 random bytes, made on the first start, for nobody else to read.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::StartError;
use super::private_file::{self, MODE};
use crate::dataplane::keys::Secret;

/// Reads the secret, or makes it if there is no such file.
pub(super) fn load_or_create(path: &Path) -> Result<Secret, StartError> {
    match load(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path)
            .map_err(|error| StartError::Secret { action: "create", path: path.into(), error }),
        other => {
            other.map_err(|error| StartError::Secret { action: "read", path: path.into(), error })
        }
    }
}

fn load(path: &Path) -> io::Result<Secret> {
    let bytes = private_file::read(path, Secret::LEN)?;
    let bytes = <&[u8; Secret::LEN]>::try_from(bytes.as_slice()).map_err(|_| {
        let message = format!("it has not {} bytes; remove it to have a new one made", Secret::LEN);
        io::Error::new(io::ErrorKind::InvalidData, message)
    })?;
    Ok(Secret::from_bytes(*bytes))
}

/// Writes a new secret beside its place and links it there: two gateways that start at the same
/// time end up with the same one, and nobody ever sees half of it.
fn create(path: &Path) -> io::Result<Secret> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(directory) = directory {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut bytes = Zeroizing::new([0; Secret::LEN]);
    let mut random = File::open("/dev/urandom")?;
    random.read_exact(&mut *bytes)?;
    // A name that nobody else has: gateways in containers have the same process id every time.
    let mut name = [0; 8];
    random.read_exact(&mut name)?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{:016x}", u64::from_ne_bytes(name)));
    let draft = Path::new(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(draft)?;
    let written = file.write_all(&*bytes).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| match std::fs::hard_link(draft, path) {
        // Another gateway was faster, and its secret is ours.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let removed = std::fs::remove_file(draft);
    linked.and(removed)?;
    load(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn made_once_and_then_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/secret");
        load_or_create(&path).unwrap();
        let first = std::fs::read(&path).unwrap();
        load_or_create(&path).unwrap();
        assert_eq!(first, std::fs::read(&path).unwrap());
        assert_eq!(first.len(), Secret::LEN);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft left");
    }

    /// Whoever made it, and whatever is in it.
    #[test]
    fn what_another_process_of_the_same_id_left_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let left = directory.path().join(format!("secret.{}", std::process::id()));
        std::fs::write(&left, "half a sec").unwrap();
        load_or_create(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap().len(), Secret::LEN);
        assert_eq!(std::fs::read(&left).unwrap(), b"half a sec", "it may be somebody's");
    }

    #[test]
    fn what_cannot_be_written_says_why() {
        // A directory where not even root makes files.
        let error = load_or_create(Path::new("/sys/gwlb-secret")).unwrap_err().to_string();
        assert!(error.contains("create") && !error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_secret_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        for (content, mode, expected) in [
            (&b"short"[..], 0o600, "32 bytes"),
            (&[7; 32], 0o644, "0644"),
            (&[7; 33], 0o600, "32 bytes"),
        ] {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = load_or_create(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
