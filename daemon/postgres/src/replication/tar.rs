//! The archive of a base backup, as the server writes it: POSIX `ustar`, without extensions.
//!
//! Numbers are octal, or base-256 when too large for it; names have at most 99 bytes and the names of folders and links
//! end with a slash (`src/port/tar.c` of PostgreSQL). Up to 14 the two empty blocks at the end are missing.
//!
//! **Invariant:** a name leads to a place below the folder it belongs to, or is refused.
//! **Invariant:** nothing is allocated but one header and its two names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::error::Error;

/// Bytes of a header, and what contents are filled up to.
const BLOCK: usize = 512;

/// Where the header's own sum is; it counts as spaces.
const SUM: std::ops::Range<usize> = 148..156;

/// What a header announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) mtime: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink(PathBuf),
}

/// What the next bytes of the archive are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// As many bytes say nothing by themselves: half a header, or filling.
    Filling(usize),
    /// As many bytes are the rest of a header.
    Member(usize, Member),
    /// As many bytes are contents of the file.
    Content(usize),
    /// The file's contents are complete. Takes no bytes.
    FileEnd,
}

/// Reads one archive, whatever pieces it comes in.
pub(super) struct Tar {
    header: [u8; BLOCK],
    /// Bytes of the header that are here.
    filled: usize,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Header,
    Content {
        left: u64,
        filling: usize,
    },
    Filling(usize),
    /// Nothing but zeros may come.
    End,
}

impl Tar {
    pub(super) fn new() -> Self {
        Self { header: [0; BLOCK], filled: 0, state: State::Header }
    }

    /// Whether the archive may end here.
    pub(super) fn may_end(&self) -> bool {
        match self.state {
            State::Header => self.filled == 0,
            State::End => true,
            State::Content { .. } | State::Filling(_) => false,
        }
    }

    /// Whether the contents of a file are complete, which [`Tar::next`] says without more bytes.
    pub(super) fn file_is_complete(&self) -> bool {
        matches!(self.state, State::Content { left: 0, .. })
    }

    /// What `bytes`, which are not empty unless a file is complete, begin with.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<Part, Error> {
        match self.state {
            State::Content { left: 0, filling } => {
                self.state = if filling == 0 { State::Header } else { State::Filling(filling) };
                Ok(Part::FileEnd)
            }
            State::Content { left, filling } => {
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                self.state = State::Content { left: left - length as u64, filling };
                Ok(Part::Content(length))
            }
            State::Filling(left) => {
                let length = left.min(bytes.len());
                let left = left - length;
                self.state = if left == 0 { State::Header } else { State::Filling(left) };
                Ok(Part::Filling(length))
            }
            State::End if bytes.iter().any(|byte| *byte != 0) => {
                Err(Error::Protocol("an archive that goes on after its end"))
            }
            State::End => Ok(Part::Filling(bytes.len())),
            State::Header => self.header(bytes),
        }
    }

    fn header(&mut self, bytes: &[u8]) -> Result<Part, Error> {
        let length = (BLOCK - self.filled).min(bytes.len());
        self.header[self.filled..self.filled + length].copy_from_slice(&bytes[..length]);
        self.filled += length;
        if self.filled < BLOCK {
            return Ok(Part::Filling(length));
        }
        self.filled = 0;
        if self.header.iter().all(|byte| *byte == 0) {
            self.state = State::End;
            return Ok(Part::Filling(length));
        }
        let member = member(&self.header).map_err(Error::Protocol)?;
        if member.kind == Kind::File {
            let over = usize::try_from(member.size % BLOCK as u64).unwrap_or(0);
            self.state = State::Content { left: member.size, filling: (BLOCK - over) % BLOCK };
        }
        Ok(Part::Member(length, member))
    }
}

fn member(header: &[u8; BLOCK]) -> Result<Member, &'static str> {
    if header.get(257..262) != Some(b"ustar") {
        return Err("an archive that is no ustar");
    }
    let sum =
        header.iter().enumerate().map(|(at, byte)| u64::from(if SUM.contains(&at) { b' ' } else { *byte }));
    if number(&header[SUM])? != sum.sum::<u64>() {
        return Err("a member of an archive with a wrong sum");
    }
    if header[345..].iter().any(|byte| *byte != 0) {
        return Err("a member of an archive with a prefix to its name");
    }
    let (name, target) = (text(&header[..100]), text(&header[157..257]));
    let kind = match header[156] {
        b'0' | 0 => Kind::File,
        b'5' => Kind::Directory,
        b'2' if !target.is_empty() => Kind::Symlink(PathBuf::from(OsStr::from_bytes(target))),
        _ => return Err("a member of an archive that is no file, folder or link"),
    };
    let name = if kind == Kind::File { name } else { name.strip_suffix(b"/").unwrap_or(name) };
    // The server writes `./pg_wal/archive_status`, and all others without the dot.
    let path = Path::new(OsStr::from_bytes(name.strip_prefix(b"./").unwrap_or(name)));
    if !is_below(path) {
        return Err("a member of an archive with a name that leads elsewhere");
    }
    let small =
        |bytes| u32::try_from(number(bytes)?).map_err(|_| "a member of an archive with a number too large");
    let size = number(&header[124..136])?;
    if kind != Kind::File && size != 0 {
        return Err("a folder or a link with contents");
    }
    Ok(Member {
        path: path.to_owned(),
        size,
        mode: small(&header[100..108])? & 0o7777,
        uid: small(&header[108..116])?,
        gid: small(&header[116..124])?,
        mtime: number(&header[136..148])?,
        kind,
    })
}

/// Relative, of plain names only, and written the one way: no empty parts, no `.`, no `..`.
fn is_below(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    !bytes.is_empty()
        && path.components().all(|part| matches!(part, Component::Normal(_)))
        && bytes.split(|byte| *byte == b'/').all(|part| !part.is_empty() && part != b".")
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

fn number(field: &[u8]) -> Result<u64, &'static str> {
    const WRONG: &str = "a member of an archive with a number that is none";
    // GNU's base-256: 0x80, then the number in big-endian order.
    if let Some((0x80, rest)) = field.split_first() {
        let (high, low) = rest.split_at(rest.len().saturating_sub(8));
        if high.iter().any(|byte| *byte != 0) {
            return Err(WRONG);
        }
        return Ok(low.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
    }
    let digits = text(field).trim_ascii();
    if digits.is_empty() || digits.iter().any(|byte| !(b'0'..=b'7').contains(byte)) {
        return Err(WRONG);
    }
    // Eleven digits of three bits each.
    Ok(digits.iter().fold(0, |sum, digit| sum << 3 | u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests;
