//! The TSIG key: read when it is used, never shown.
//!
//! **Invariant:** no text made here holds any of the key.

use std::path::Path;

use hickory_proto::rr::TSigner;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use tokio::io::AsyncReadExt;

use super::{Rfc2136Options, UpdateError};
use crate::value;

/// A key file is one line; whatever is longer is not one.
const MOST: u64 = 4096;

/// How far the clocks may be apart, in seconds (RFC 8945, section 10, recommends 300).
const FUDGE: u16 = 300;

/// The algorithms of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// `hmac-sha256`.
    #[default]
    HmacSha256,
    /// `hmac-sha384`.
    HmacSha384,
    /// `hmac-sha512`.
    HmacSha512,
}

impl KeyAlgorithm {
    /// Reads `hmac-sha256`, `hmac-sha384` or `hmac-sha512`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "hmac-sha256" => Some(Self::HmacSha256),
            "hmac-sha384" => Some(Self::HmacSha384),
            "hmac-sha512" => Some(Self::HmacSha512),
            _ => None,
        }
    }

    fn wire(self) -> TsigAlgorithm {
        match self {
            Self::HmacSha256 => TsigAlgorithm::HmacSha256,
            Self::HmacSha384 => TsigAlgorithm::HmacSha384,
            Self::HmacSha512 => TsigAlgorithm::HmacSha512,
        }
    }
}

/// Reads the key file and makes a signer of it.
pub(super) async fn signer(options: &Rfc2136Options) -> Result<TSigner, UpdateError> {
    let secret = read(&options.key_file).await?;
    let name = value::name(&options.key_name)?;
    TSigner::new(secret, options.key_algorithm.wire(), name, FUDGE)
        .map_err(|_| UpdateError::KeyText { path: options.key_file.clone() })
}

async fn read(path: &Path) -> Result<Vec<u8>, UpdateError> {
    let unreadable = |source| UpdateError::KeyFile { path: path.to_owned(), source };
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text).await.map_err(unreadable)?;
    base64(text.trim_ascii()).ok_or_else(|| UpdateError::KeyText { path: path.to_owned() })
}

/// Base64 with padding (RFC 4648, section 4); none when it is anything else, or empty.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for (index, four) in text.chunks_exact(4).enumerate() {
        let last = (index + 1) * 4 == text.len();
        let mut bits = 0_u32;
        for (at, byte) in four.iter().enumerate() {
            let padded = last && at >= 4 - padding;
            bits = (bits << 6) | if padded { 0 } else { sextet(*byte)? };
        }
        let [_, decoded @ ..] = bits.to_be_bytes();
        bytes.extend_from_slice(decoded.get(..if last { 3 - padding } else { 3 })?);
    }
    Some(bytes)
}

fn sextet(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648_section_10() {
        for (text, bytes) in
            [("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob"), ("Zm9vYmFy", "foobar")]
        {
            assert_eq!(base64(text.as_bytes()).unwrap(), bytes.as_bytes());
        }
        for bad in ["", "Zg", "Zg=", "Z===", "====", "Zm9v\nZm9v", "Zm=v", "key zone"] {
            assert_eq!(base64(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_bad_key_file_is_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "hunter2 hunter2").unwrap();
        let error = read(&path).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("key file {} does not hold one line of base64", path.display())
        );
        // A folder, a missing file and an endless one end with an error, not with memory.
        assert!(matches!(read(folder.path()).await, Err(UpdateError::KeyFile { .. })));
        assert!(matches!(read(&folder.path().join("none")).await, Err(UpdateError::KeyFile { .. })));
        assert!(matches!(read(Path::new("/dev/zero")).await, Err(UpdateError::KeyText { .. })));
    }
}
