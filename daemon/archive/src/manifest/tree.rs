//! What a backup holds, thing by thing: one line of JSON each, in the `list` stream.
//!
//! **Invariant:** a path that was read leads down, never up or away: it is relative, and no part of it is `.` or `..`.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

/// The longest path, in bytes.
const LONGEST_PATH: usize = 4096;

/// The longest part of a path, in bytes.
const LONGEST_PART: usize = 255;

/// Where a thing is, under the data folder or under a tablespace: parts joined by `/`, of any bytes that a file's name may have.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Vec<u8>);

/// Text or bytes that are no path of a thing in a backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no path in a backup: parts joined by `/`, none empty, `.` or `..`")]
pub struct NoTreePath(String);

impl TreePath {
    /// From bytes.
    ///
    /// # Errors
    /// They would lead somewhere else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NoTreePath> {
        let part =
            |part: &[u8]| !part.is_empty() && part.len() <= LONGEST_PART && part != b"." && part != b"..";
        let good =
            bytes.len() <= LONGEST_PATH && !bytes.contains(&0) && bytes.split(|byte| *byte == b'/').all(part);
        if good {
            Ok(Self(bytes.to_vec()))
        } else {
            Err(NoTreePath(String::from_utf8_lossy(bytes).chars().take(120).collect()))
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a path, to be joined to the folder it is under.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The folder it is in, none at the top, and its own name there.
    pub(crate) fn split(&self) -> (Option<&[u8]>, &[u8]) {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (Some(&self.0[..at]), &self.0[at + 1..]),
            None => (None, &self.0),
        }
    }
}

impl FromStr for TreePath {
    type Err = NoTreePath;

    fn from_str(text: &str) -> Result<Self, NoTreePath> {
        Self::from_bytes(text.as_bytes())
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// Text where the bytes are text; else an object that holds them in hexadecimal.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Hex { hex: String },
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Written::Hex { hex: HEXLOWER.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = match Written::deserialize(deserializer)? {
            Written::Text(text) => text.into_bytes(),
            Written::Hex { hex } => HEXLOWER.decode(hex.as_bytes()).map_err(de::Error::custom)?,
        };
        Self::from_bytes(&bytes).map_err(de::Error::custom)
    }
}

/// A BLAKE3 digest; in hexadecimal where it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; 64];
        HEXLOWER.encode_mut(&self.0, &mut text);
        serializer.serialize_str(std::str::from_utf8(&text).map_err(ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(de::Error::custom)?;
        bytes.try_into().map(Self).map_err(|_| de::Error::custom("a digest has 32 bytes"))
    }
}

/// A part of a stream: which origin's (by its place in the manifest), from where, how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent(pub u32, pub u64, pub u64);

/// Appends a part, joined to the one before where they touch.
pub(crate) fn join(extents: &mut Vec<Extent>, next: Extent) {
    match extents.last_mut() {
        _ if next.2 == 0 => {}
        Some(last) if last.0 == next.0 && last.1 + last.2 == next.1 => last.2 += next.2,
        _ => extents.push(next),
    }
}

/// One thing in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// A folder.
    Folder(FolderEntry),
    /// A file.
    File(FileEntry),
    /// A symbolic link that is no tablespace's.
    Link(LinkEntry),
    /// A tablespace: a folder elsewhere, that `pg_tblspc/OID` leads to.
    Tablespace(TablespaceEntry),
}

/// A folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderEntry {
    /// The tablespace it is in; none: in the data folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<u32>,
    /// Where.
    pub path: TreePath,
    /// Who may do what with it.
    pub mode: u32,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// The tablespace it is in; none: in the data folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<u32>,
    /// Where.
    pub path: TreePath,
    /// Who may do what with it.
    pub mode: u32,
    /// When it was changed, in seconds since 1970.
    pub mtime: i64,
    /// Its length.
    pub size: u64,
    /// The digest of all of it.
    pub digest: Digest,
    /// Where its bytes are, in the `data` streams.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<Extent>,
    /// Where the fingerprints of its blocks are, in the `prints` streams.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prints: Vec<Extent>,
}

/// A symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkEntry {
    /// The tablespace it is in; none: in the data folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<u32>,
    /// Where.
    pub path: TreePath,
    /// What it leads to, as it was.
    pub to: String,
}

/// A tablespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TablespaceEntry {
    /// Its number: the name of the link under `pg_tblspc`.
    pub oid: u32,
    /// Where it was.
    pub location: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_down() {
        for right in ["a", "base/1/1259", "pg_wal", "..a/b..", "weird \"ñame\"/ü", "a\\b", "a\nb"] {
            let path: TreePath = right.parse().unwrap();
            let text = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<TreePath>(&text).unwrap(), path);
        }
        let long = "a".repeat(LONGEST_PART + 1);
        let longer = ["ab"; LONGEST_PATH].join("/");
        for wrong in
            ["", "/", "/etc/passwd", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.", "a\0", &long, &longer]
        {
            assert!(wrong.parse::<TreePath>().is_err(), "{wrong:?}");
            let text = serde_json::to_string(wrong).unwrap();
            assert!(serde_json::from_str::<TreePath>(&text).is_err(), "{wrong:?}");
        }
        let bytes = TreePath::from_bytes(b"caf\xe9/\xff").unwrap();
        let text = serde_json::to_string(&bytes).unwrap();
        assert_eq!(text, r#"{"hex":"636166e92fff"}"#);
        assert_eq!(serde_json::from_str::<TreePath>(&text).unwrap(), bytes);
        assert!(serde_json::from_str::<TreePath>(r#"{"hex":"2e2e2f61"}"#).is_err(), "../a in hexadecimal");
    }

    #[test]
    fn parts_that_touch_are_joined() {
        let mut extents = Vec::new();
        for next in [Extent(0, 0, 8), Extent(0, 8, 8), Extent(1, 16, 8), Extent(1, 32, 8), Extent(1, 40, 0)] {
            join(&mut extents, next);
        }
        assert_eq!(extents, [Extent(0, 0, 16), Extent(1, 16, 8), Extent(1, 32, 8)]);
    }
}
