//! The token that clients over TCP show. Only its hash stays in memory.

use std::fmt;
use std::io;
use std::path::Path;

use zeroize::Zeroizing;

use crate::runtime::private_file;

/// The shortest token, in bytes: so many hexadecimal digits are 64 random bits, which cannot be
/// guessed through a socket.
const SHORTEST: usize = 16;
/// The longest, in bytes: any longer, and it is probably another file.
const LONGEST: usize = 4096;

/// The token, as what is compared with.
#[derive(Clone)]
pub(super) struct Token(blake3::Hash);

impl Token {
    /// Reads the token that stands in a file. White space around it does not count.
    pub fn read(path: &Path) -> io::Result<Self> {
        let wrong = |message: String| io::Error::new(io::ErrorKind::InvalidData, message);
        let bytes = private_file::read(path, LONGEST)?;
        let token = bytes.trim_ascii();
        if !(SHORTEST..=LONGEST).contains(&token.len()) {
            let found = token.len();
            let message = format!("a token has {SHORTEST} to {LONGEST} bytes, and not {found}");
            return Err(wrong(message));
        }
        // What could not stand in a header nobody could show.
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(wrong("a token is of visible ASCII characters without spaces".to_owned()));
        }
        let header = Zeroizing::new([b"Bearer ", token].concat());
        Ok(Self(blake3::hash(&header)))
    }

    /// Whether this is what a client has to send in the header `Authorization`. Compared by hash
    /// and in constant time, so that the time it takes tells nothing about the token.
    pub fn is_shown_by(&self, header: &[u8]) -> bool {
        blake3::hash(header) == self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(content: &str) -> io::Result<Token> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        Token::read(&path)
    }

    #[test]
    fn only_the_whole_token_opens() {
        let token = read(" 0123456789abcdef\n").unwrap();
        assert!(token.is_shown_by(b"Bearer 0123456789abcdef"));
        for wrong in [
            "",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef ",
            "Bearer 0123456789abcdeg",
            "bearer 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert!(!token.is_shown_by(wrong.as_bytes()), "{wrong:?}");
        }
    }

    #[test]
    fn what_could_be_guessed_or_not_be_shown_is_no_token() {
        for (content, expected) in [
            ("", "and not 0"),
            ("\n \n", "and not 0"),
            ("short", "and not 5"),
            ("two words of a token", "without spaces"),
            ("0123456789abcdef\n0123456789abcdef", "without spaces"),
            ("0123456789abcdefé", "visible ASCII"),
        ] {
            let error = read(content).unwrap_err().to_string();
            assert!(error.contains(expected), "{content:?}: {error}");
        }
        assert!(read(&"x".repeat(LONGEST + 1)).is_err());
    }

    #[test]
    fn it_does_not_show() {
        let token = read("0123456789abcdef").unwrap();
        assert_eq!(format!("{token:?}"), "Token(…)");
    }
}
