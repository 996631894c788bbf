//! What a server says by the way, or as its last word: notices and errors.
//!
//! **Invariant:** nothing is decided on the text. A page is only *named* by it; that pages are bad at all is the
//! SQLSTATE of the error that ends the backup.

use std::fmt;
use std::path::PathBuf;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

/// Characters that are kept of each text.
const LONGEST: usize = 300;

/// An error or a notice of the server, shortened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// SQLSTATE: PostgreSQL's appendix A, "Error codes".
    pub sqlstate: String,
    /// The message, in the server's language.
    pub message: String,
    /// More of it, or nothing.
    pub detail: String,
}

impl Said {
    pub(super) fn read(mut fields: ErrorFields<'_>) -> Self {
        let mut said = Self::default();
        // Fields that cannot be read end it: what was read before them is still worth having.
        while let Ok(Some(field)) = fields.next() {
            let text = || String::from_utf8_lossy(field.value_bytes()).chars().take(LONGEST).collect();
            match field.type_() {
                b'C' => said.sqlstate = text(),
                b'M' => said.message = text(),
                b'D' => said.detail = text(),
                _ => {}
            }
        }
        said
    }

    /// Whether the SQLSTATE is this one, or of this class.
    pub(super) fn is(&self, state: &str) -> bool {
        self.sqlstate.starts_with(state)
    }

    /// The page that a warning of a base backup is about, when it says so in English: "checksum verification failed in
    /// file "./base/5/16384", block 3: calculated …".
    pub(super) fn bad_page(&self) -> Option<(PathBuf, u32)> {
        let rest = self.message.strip_prefix("checksum verification failed in file \"")?;
        let (file, rest) = rest.split_once("\", block ")?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let block = rest.get(..digits)?.parse().ok()?;
        let file = file.strip_prefix("./").unwrap_or(file);
        Some((PathBuf::from(file), block))
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        write!(f, " (SQLSTATE {})", self.sqlstate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(message: &str) -> Said {
        Said { sqlstate: "01000".to_owned(), message: message.to_owned(), detail: String::new() }
    }

    #[test]
    fn a_bad_page_is_named_by_file_and_block() {
        let said = warning(
            "checksum verification failed in file \"./base/5/16384.1\", block 131072: calculated 9C1 but expected 0",
        );
        assert_eq!(said.bad_page(), Some((PathBuf::from("base/5/16384.1"), 131_072)));
    }

    #[test]
    fn what_is_said_otherwise_names_no_page() {
        for message in [
            "file \"./base/5/1\" has a total of 7 checksum verification failures",
            "checksum verification failed in file \"./base/5/1\", block ",
            "checksum verification failed in file \"./base/5/1\", block 99999999999: calculated",
            "could not verify checksum in file \"./base/5/1\", block 3: read buffer size 5 and page size 8192 differ",
            "",
        ] {
            assert_eq!(warning(message).bad_page(), None, "{message}");
        }
    }
}
