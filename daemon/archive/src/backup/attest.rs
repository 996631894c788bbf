//! The server's own manifest of a backup, compared with what was stored.
//!
//! The form is PostgreSQL's (documentation, "Backup Manifest Format"). The sums in it are for accidents on the way, not against
//! intruders; the digests in our own listing are.
//!
//! **Invariant:** a backup whose files are not the ones that the server says it sent is not finished.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER_PERMISSIVE;
use serde::Deserialize;

use crate::manifest::tree::TreePath;
use crate::trouble::Trouble;

/// So many differences are named.
const NAMED: usize = 5;

#[derive(Deserialize)]
struct ServerManifest {
    #[serde(rename = "Files")]
    files: Vec<ServerFile>,
}

#[derive(Deserialize)]
struct ServerFile {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

/// What was stored, in short: a key made of each path, its length, its CRC-32C.
#[derive(Default)]
pub(super) struct Attest {
    stored: HashMap<u64, (u64, u32)>,
}

impl Attest {
    pub(super) fn stored(&mut self, tablespace: Option<u32>, path: &TreePath, size: u64, crc: u32) {
        let mut full = Vec::new();
        if let Some(oid) = tablespace {
            full.extend_from_slice(format!("pg_tblspc/{oid}/").as_bytes());
        }
        full.extend_from_slice(path.as_bytes());
        self.stored.insert(key(&full), (size, crc));
    }

    /// Compares all of it.
    ///
    /// # Errors
    /// Something differs: it is named.
    pub(super) fn compare(&self, text: &[u8]) -> Result<(), Trouble> {
        const LAST: &[u8] = b"\n\"Manifest-Checksum\": \"";
        let refused = |what: String| {
            Trouble::Refused(format!(
                "what was stored is not what the server says it sent: {what}. Run the backup again"
            ))
        };
        let wrong = |why: &dyn std::fmt::Display| refused(format!("its manifest cannot be read: {why}"));
        let parsed: ServerManifest = serde_json::from_slice(text).map_err(|error| wrong(&error))?;
        let from = text.windows(LAST.len()).rposition(|window| window == LAST);
        let from = from.ok_or_else(|| wrong(&"it has no sum over itself"))?;
        let sum = text[from + LAST.len()..].split(|byte| *byte == b'"').next().unwrap_or_default();
        let sum = HEXLOWER_PERMISSIVE.decode(sum).map_err(|error| wrong(&error))?;
        if sum != digest(&SHA256, &text[..=from]).as_ref() {
            return Err(wrong(&"the sum over it is another one"));
        }

        let (mut seen, mut found, mut differ) = (0, Vec::new(), 0_u64);
        for file in &parsed.files {
            let path = file.path().map_err(|error| wrong(&error))?;
            let stored = self.stored.get(&key(&path));
            seen += usize::from(stored.is_some());
            let what = match stored {
                None => "is missing".to_owned(),
                Some((size, _)) if *size != file.size => format!("has {size} bytes, not {}", file.size),
                Some((_, crc)) if file.crc().is_some_and(|sum| sum != crc.to_le_bytes()) => {
                    "has another CRC-32C".to_owned()
                }
                Some(_) => continue,
            };
            differ += 1;
            if found.len() < NAMED {
                found.push(format!("{} {what}", String::from_utf8_lossy(&path)));
            }
        }
        if seen < self.stored.len() && differ == 0 {
            differ += 1;
            found.push(format!("{} files are not in its manifest", self.stored.len() - seen));
        }
        match differ {
            0 => Ok(()),
            differ => Err(refused(format!("{} ({differ} in all)", found.join(", ")))),
        }
    }
}

impl ServerFile {
    fn path(&self) -> Result<Vec<u8>, String> {
        match (&self.path, &self.encoded) {
            (Some(path), _) => Ok(path.clone().into_bytes()),
            (None, Some(hex)) => {
                HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).map_err(|error| error.to_string())
            }
            (None, None) => Err("a file has no path".to_owned()),
        }
    }

    /// Its CRC-32C, as the server writes it: the bytes of the number, in the order they have in memory.
    fn crc(&self) -> Option<Vec<u8>> {
        let sum = self.checksum.as_ref().filter(|_| self.algorithm.as_deref() == Some("CRC32C"))?;
        Some(HEXLOWER_PERMISSIVE.decode(sum.as_bytes()).unwrap_or_default())
    }
}

fn key(path: &[u8]) -> u64 {
    blake3::hash(path).as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
