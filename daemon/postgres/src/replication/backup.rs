//! A base backup, as it comes.
//!
//! **Invariant:** contents are given out as parts of the buffer they were read into.
//! **Invariant:** the end is said only when every archive was complete, and the server gave its position; when it then
//! calls pages bad, the end says so instead of taking back what was given.

mod command;
mod item;

use std::path::PathBuf;

use lifeboat_core::{Lsn, Timeline};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

pub use self::command::BaseBackupOptions;
pub(super) use self::command::INCREMENTAL;
pub use self::item::{End, Entry, Item, Tablespace};
use super::error::Error;
use super::notice::Said;
use super::tar::{Kind, Member, Part, Tar};
use super::wire::{Next, Row, Rows, Wire};

const ACT: &str = "the base backup";

/// From here on all archives come in one copy, with a letter before each piece.
const ONE_COPY: u32 = 150_000;

/// Bytes of a piece's letter, and of what comes with it unless that is contents: at most a name and a path, each with
/// a zero.
const GLANCE: usize = 1 + 64 + 4096 + 2;

/// What a piece of the copy belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Nothing yet.
    None,
    Archive {
        tablespace: Option<u32>,
    },
    Manifest,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between two copies; before 15 there is one for each archive.
    Between,
    Copy,
    Over,
}

/// A base backup that is under way. Dropping it ends it.
pub struct BaseBackup {
    /// Where the log begins that is needed to make it consistent.
    pub start: Lsn,
    /// The timeline of that log.
    pub timeline: Timeline,
    /// What it consists of besides the data folder itself.
    pub tablespaces: Vec<Tablespace>,
    /// Roughly how many KiB the data folder itself has.
    pub size_kib: Option<u64>,
    wire: Wire,
    version: u32,
    phase: Phase,
    content: Content,
    tar: Tar,
    /// Archives that were begun; before 15 it says which one this is.
    archives: usize,
    end: Option<(Lsn, Timeline)>,
    damaged: bool,
}

impl BaseBackup {
    /// Begins one; returns when the server has made its checkpoint.
    pub(super) async fn begin(
        mut wire: Wire,
        version: u32,
        options: &BaseBackupOptions,
    ) -> Result<Self, Error> {
        let command = command::text(options, version)?;
        let patience = std::mem::replace(&mut wire.patience, options.checkpoint_limit);
        wire.command(ACT, &command).await?;
        let start = result(&mut wire).await?;
        wire.patience = patience;
        let (start, timeline) = position(start.first())?;
        let rows = result(&mut wire).await?;
        let (mut tablespaces, mut size_kib) = (Vec::new(), None);
        for row in &rows {
            let location = row.text(1).map(PathBuf::from);
            match row.text(0) {
                Some(oid) => tablespaces.push(Tablespace {
                    oid: oid.parse().map_err(|_| Error::Protocol("a tablespace without a number"))?,
                    location: location.ok_or(Error::Protocol("a tablespace without a place"))?,
                    size_kib: row.number(2),
                }),
                None => size_kib = row.number(2),
            }
        }
        Ok(Self {
            start,
            timeline,
            tablespaces,
            size_kib,
            wire,
            version,
            phase: Phase::Between,
            content: Content::None,
            tar: Tar::new(),
            archives: 0,
            end: None,
            damaged: false,
        })
    }

    /// What comes next; none after the end. May be given up and asked again.
    ///
    /// # Errors
    /// Whatever ends the backup early. A server that finds bad pages does not: see [`End::damaged`].
    pub async fn next(&mut self) -> Result<Option<Item>, Error> {
        loop {
            if self.phase == Phase::Over {
                return Ok(None);
            }
            if self.tar.file_is_complete() {
                self.tar.next(&[])?;
                return Ok(Some(Item::FileEnd));
            }
            let item = if self.wire.left() > 0 { self.piece().await? } else { self.message().await? };
            if item.is_some() {
                return Ok(item);
            }
        }
    }

    /// The next of a piece that has begun.
    async fn piece(&mut self) -> Result<Option<Item>, Error> {
        self.wire.await_copy().await?;
        let tablespace = match self.content {
            Content::Archive { tablespace } => tablespace,
            Content::Manifest => {
                let length = self.wire.left();
                return Ok(Some(Item::Manifest(self.wire.give(length))));
            }
            Content::None => return Err(Error::Protocol("contents that belong to nothing")),
        };
        Ok(match self.tar.next(self.wire.ready())? {
            Part::Content(length) => Some(Item::Data(self.wire.give(length))),
            Part::Filling(length) => {
                self.wire.skip(length);
                None
            }
            Part::Member(length, member) => {
                self.wire.skip(length);
                Some(item(tablespace, member))
            }
            Part::FileEnd => Some(Item::FileEnd),
        })
    }

    async fn message(&mut self) -> Result<Option<Item>, Error> {
        match self.wire.next(GLANCE).await? {
            Next::Copy if self.phase == Phase::Copy => {
                if self.version >= ONE_COPY {
                    self.letter()
                } else {
                    Ok(None)
                }
            }
            Next::Copy | Next::CopyBoth => Err(Error::Protocol("a copy that nobody asked for")),
            Next::Message(Message::NoticeResponse(body)) => Ok(Some(warning(&Said::read(body.fields())))),
            Next::Message(Message::CopyOutResponse(_)) if self.phase == Phase::Between => {
                self.phase = Phase::Copy;
                self.begin_copy()?;
                Ok(None)
            }
            Next::Message(Message::CopyDone) if self.phase == Phase::Copy => {
                self.end_archive()?;
                self.phase = Phase::Between;
                Ok(None)
            }
            Next::Message(Message::DataRow(body)) if self.phase == Phase::Between && self.end.is_none() => {
                if self.archives <= self.tablespaces.len() {
                    return Err(Error::Protocol("a base backup that ends before all of it came"));
                }
                self.end = Some(position(Some(&Row::read(&body)?))?);
                Ok(None)
            }
            Next::Message(Message::RowDescription(_) | Message::CommandComplete(_)) => Ok(None),
            Next::Message(Message::ErrorResponse(body)) => {
                let said = Said::read(body.fields());
                // "data_corrupted", after all of it and its position were given: pages are bad.
                if self.end.is_some() && said.is("XX001") {
                    self.damaged = true;
                    return Ok(Some(Item::Warning(said.to_string())));
                }
                Err(Error::said(ACT, said))
            }
            Next::Message(Message::ReadyForQuery(_)) => {
                let (lsn, timeline) = self.end.ok_or(Error::Protocol("a base backup without an end"))?;
                self.phase = Phase::Over;
                Ok(Some(Item::End(End { lsn, timeline, damaged: self.damaged })))
            }
            Next::Message(_) => Err(Error::Protocol("not a part of a base backup")),
        }
    }

    /// Before 15, each copy is one archive, in the order of the tablespaces; then comes the manifest.
    fn begin_copy(&mut self) -> Result<(), Error> {
        if self.version >= ONE_COPY {
            return if self.archives == 0 {
                Ok(())
            } else {
                Err(Error::Protocol("a second copy in a base backup"))
            };
        }
        let data_folder = self.tablespaces.len();
        self.content = match self.tablespaces.get(self.archives) {
            Some(tablespace) => Content::Archive { tablespace: Some(tablespace.oid) },
            None if self.archives == data_folder => Content::Archive { tablespace: None },
            None if self.archives == data_folder + 1 => Content::Manifest,
            None => return Err(Error::Protocol("more archives than tablespaces")),
        };
        self.archives += 1;
        Ok(())
    }

    /// From 15 on, a letter says what a piece is.
    fn letter(&mut self) -> Result<Option<Item>, Error> {
        let letter = self.wire.ready().first().copied();
        match letter {
            Some(b'd') => self.wire.skip(1),
            Some(b'n') => {
                let tablespace = self.archive()?;
                self.content = Content::Archive { tablespace };
            }
            Some(b'm') => {
                self.end_archive()?;
                self.wire.skip(1);
                self.content = Content::Manifest;
            }
            Some(b'p') => {
                let said = self.wire.ready().get(1..9).and_then(|bytes| bytes.try_into().ok());
                let bytes =
                    said.map(u64::from_be_bytes).ok_or(Error::Protocol("progress without a number"))?;
                self.wire.skip(9);
                self.nothing_left()?;
                return Ok(Some(Item::Progress { bytes }));
            }
            _ => return Err(Error::Protocol("a piece of a base backup of an unknown kind")),
        }
        if letter != Some(b'd') {
            self.nothing_left()?;
        }
        Ok(None)
    }

    fn nothing_left(&self) -> Result<(), Error> {
        if self.wire.left() == 0 {
            Ok(())
        } else {
            Err(Error::Protocol("a piece of a base backup that is too long"))
        }
    }

    /// Its name, "base.tar" or "16385.tar", and the place of its tablespace.
    fn archive(&mut self) -> Result<Option<u32>, Error> {
        const NONSENSE: Error = Error::Protocol("an archive without a name");
        self.end_archive()?;
        if self.wire.left() > GLANCE {
            return Err(NONSENSE);
        }
        let name = self.wire.ready().get(1..).and_then(|rest| rest.split(|byte| *byte == 0).next());
        let name = name.and_then(|name| name.strip_suffix(b".tar")).ok_or(NONSENSE)?;
        let tablespace = if name == b"base" {
            None
        } else {
            let oid = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok()).ok_or(NONSENSE)?;
            if !self.tablespaces.iter().any(|tablespace| tablespace.oid == oid) {
                return Err(Error::Protocol("an archive of a tablespace that does not exist"));
            }
            Some(oid)
        };
        let length = self.wire.left();
        self.wire.skip(length);
        self.archives += 1;
        Ok(tablespace)
    }

    fn end_archive(&mut self) -> Result<(), Error> {
        if !self.tar.may_end() {
            return Err(Error::Protocol("an archive that is cut short"));
        }
        self.tar = Tar::new();
        self.content = Content::None;
        Ok(())
    }
}

fn item(tablespace: Option<u32>, member: Member) -> Item {
    let Member { path, kind, size, mode, mtime, uid, gid } = member;
    let entry = Entry { tablespace, path, size, mode, mtime, uid, gid };
    match kind {
        Kind::File => Item::File(entry),
        Kind::Directory => Item::Directory(entry),
        Kind::Symlink(target) => Item::Symlink { entry, target },
    }
}

fn warning(said: &Said) -> Item {
    match said.bad_page() {
        Some((file, block)) => Item::BadPage { file, block },
        None => Item::Warning(said.to_string()),
    }
}

/// The rows of one of the results that a base backup begins with.
async fn result(wire: &mut Wire) -> Result<Vec<Row>, Error> {
    let mut rows = Rows::default();
    loop {
        match wire.message().await? {
            Message::DataRow(body) => rows.push(&body)?,
            Message::RowDescription(_) | Message::NoticeResponse(_) => {}
            Message::CommandComplete(_) => return Ok(rows.done()),
            Message::ErrorResponse(body) => return Err(Error::said(ACT, Said::read(body.fields()))),
            _ => return Err(Error::Protocol("not the beginning of a base backup")),
        }
    }
}

fn position(row: Option<&Row>) -> Result<(Lsn, Timeline), Error> {
    let read = row.and_then(|row| Some((Lsn::parse(row.text(0)?)?, Timeline::new(row.number(1)?))));
    read.ok_or(Error::Protocol("a base backup without a position"))
}

/// Gives the server the manifest of an earlier backup, for an incremental one.
pub(super) async fn upload_manifest(wire: &mut Wire, manifest: &[u8]) -> Result<(), Error> {
    const ACT: &str = "the upload of a manifest";
    /// Bytes of it in one message.
    const PIECE: usize = 256 << 10;
    wire.command(ACT, "UPLOAD_MANIFEST").await?;
    loop {
        match wire.message().await? {
            Message::CopyInResponse(_) => break,
            Message::NoticeResponse(_) => {}
            Message::ErrorResponse(body) => return Err(Error::said(ACT, Said::read(body.fields()))),
            _ => return Err(Error::Protocol("not a place for a manifest")),
        }
    }
    for piece in manifest.chunks(PIECE) {
        wire.put(|out| frontend::CopyData::new(piece).map(|data| data.write(out)))?;
        wire.flush().await?;
    }
    wire.put(|out| {
        frontend::copy_done(out);
        Ok(())
    })?;
    wire.flush().await?;
    wire.settle(ACT).await.map(|_| ())
}
