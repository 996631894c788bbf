//! What a base backup consists of.

use std::path::PathBuf;

use bytes::Bytes;
use lifeboat_core::{Lsn, Timeline};

/// A tablespace besides the two that are in the data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// Its number, by which `pg_tblspc` links to it.
    pub oid: u32,
    /// Where it is on the server.
    pub location: PathBuf,
    /// Roughly how many KiB it has; as PostgreSQL estimated before it began.
    pub size_kib: Option<u64>,
}

/// A file, a folder or a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The tablespace it is in; none in the data folder.
    pub tablespace: Option<u32>,
    /// Its path below that tablespace's folder or the data folder. Always relative, of plain names only.
    pub path: PathBuf,
    /// Bytes of a file's contents; 0 for what is no file.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// When it was changed last, in seconds since the Unix epoch.
    pub mtime: u64,
    /// The owner's number on the server.
    pub uid: u32,
    /// The group's number on the server.
    pub gid: u32,
}

/// The next thing of a base backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A folder.
    Directory(Entry),
    /// A file begins. Its contents follow as [`Item::Data`], then [`Item::FileEnd`]; in between there may be
    /// progress and warnings, nothing else.
    File(Entry),
    /// A symbolic link: a tablespace of `pg_tblspc`, unless they come as a map.
    Symlink {
        /// The link.
        entry: Entry,
        /// Where it leads, as the server has it; not checked.
        target: PathBuf,
    },
    /// Contents of the file, in order, never empty. A part of a large buffer, which lives as long as it does.
    Data(Bytes),
    /// The file is complete: as many bytes came as its entry said.
    FileEnd,
    /// The server's own manifest, in pieces.
    Manifest(Bytes),
    /// How much the server has sent by its own count (15 and newer).
    Progress {
        /// Bytes of all archives.
        bytes: u64,
    },
    /// What the server says by the way.
    Warning(String),
    /// The server found a page whose checksum is wrong. It names five of each file, and in English only: with other
    /// `lc_messages` they are warnings. Whether there are any is [`End::damaged`].
    BadPage {
        /// Its path below the data folder; one in a tablespace begins with `pg_tblspc`.
        file: PathBuf,
        /// Its number in that file, from 0.
        block: u32,
    },
    /// All of it came.
    End(End),
}

/// The end of a base backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The log up to here is needed to make the backup consistent.
    pub lsn: Lsn,
    /// The timeline of that log.
    pub timeline: Timeline,
    /// The server found pages whose checksums are wrong.
    pub damaged: bool,
}
