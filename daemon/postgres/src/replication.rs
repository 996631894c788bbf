//! PostgreSQL's replication protocol: base backups, the log as a stream, slots and the history of timelines.
//!
//! The base layer of any backup: nothing is installed beside the server, and any server from version 13 on that lets a
//! role with REPLICATION in will do, primary or standby. Source: PostgreSQL's documentation, "Frontend/Backend Protocol", the
//! chapters "Streaming Replication Protocol" and "Message Formats".
//!
//! **Invariant:** bytes that are copied are read once into large buffers, and given out as parts of them.
//! **Invariant:** nothing that a server sends makes us allocate by its own word, or leads to a place outside of a folder.

mod backup;
mod error;
mod history;
mod inbox;
mod login;
mod notice;
mod options;
mod slot;
mod socket;
mod tar;
mod wal;
mod wire;

use bytes::Bytes;
use lifeboat_core::{Lsn, SystemIdentifier, Timeline};

pub use self::backup::{BaseBackup, BaseBackupOptions, End, Entry, Item, Tablespace};
pub use self::error::{Error, Remedy};
pub use self::notice::Said;
pub use self::options::Endpoint;
pub use self::slot::Slot;
pub use self::wal::{Wal, WalStream};
use self::wire::{Row, Wire};

/// The oldest version that is spoken with: `server_version_num`.
const OLDEST: u32 = 130_000;

/// The first version that reads a slot by a replication command.
const READS_SLOTS: u32 = 150_000;

/// Who a server is, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster.
    pub system: SystemIdentifier,
    /// The timeline it writes, or replays.
    pub timeline: Timeline,
    /// How far its log is flushed; of a standby, how far it can be sent on.
    pub flushed: Lsn,
    /// `server_version_num`: 150014 is 15.14.
    pub server_version_num: u32,
}

/// A connection that takes replication commands, one at a time.
pub struct Replication {
    wire: Wire,
    endpoint: Endpoint,
    identity: Identity,
}

impl Replication {
    /// Connects, logs in, and looks who is there.
    ///
    /// # Errors
    /// Whatever keeps us out; [`Error::Stranger`] when it is a server of another cluster than the endpoint names.
    pub async fn connect(endpoint: Endpoint) -> Result<Self, Error> {
        let mut wire = login::open(&endpoint, None).await?;
        let version = wire.ask("SHOW", "SHOW server_version_num").await?;
        let version = version.first().and_then(|row| row.number(0)).ok_or(Error::Protocol("no version"))?;
        if version < OLDEST {
            return Err(Error::TooOld { version, what: "manifests of backups" });
        }
        let identity = identity(&mut wire, version).await?;
        match endpoint.system {
            Some(expected) if expected != identity.system => {
                Err(Error::Stranger { found: identity.system, expected })
            }
            _ => Ok(Self { wire, endpoint, identity }),
        }
    }

    /// Who the server is, and how far it is now.
    ///
    /// # Errors
    /// The connection's.
    pub async fn identify(&mut self) -> Result<Identity, Error> {
        self.identity = identity(&mut self.wire, self.identity.server_version_num).await?;
        Ok(self.identity)
    }

    /// What the server says of a setting, as it writes it: `wal_segment_size` gives `16MB`.
    ///
    /// # Errors
    /// `Refused` for a setting that it does not have.
    pub async fn show(&mut self, name: &str) -> Result<String, Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(Error::Misuse("the name of a setting has letters, digits, _ and . only"));
        }
        let rows = self.wire.ask("SHOW", &format!("SHOW {name}")).await?;
        let text =
            rows.first().and_then(|row| row.text(0)).ok_or(Error::Protocol("a setting without a value"))?;
        Ok(text.to_owned())
    }

    /// The name and the contents of the file with a timeline's history.
    ///
    /// # Errors
    /// `Refused` for a timeline without one, as the first is.
    pub async fn timeline_history(&mut self, timeline: Timeline) -> Result<(String, Bytes), Error> {
        let rows = self.wire.ask("TIMELINE_HISTORY", &format!("TIMELINE_HISTORY {timeline}")).await?;
        let read = |row: &Row| Some((row.text(0)?.to_owned(), row.bytes(1)?.clone()));
        let (name, content) = rows.first().and_then(read).ok_or(Error::Protocol("no history"))?;
        if name != format!("{:08X}.history", timeline.get()) {
            return Err(Error::Protocol("the history of another timeline"));
        }
        Ok((name, content))
    }

    /// A physical slot; none when there is none of that name. PostgreSQL 13 and 14 are asked over a connection to the
    /// endpoint's database.
    ///
    /// # Errors
    /// [`Error::SlotLogical`] for one of the other kind.
    pub async fn slot(&mut self, name: &str) -> Result<Option<Slot>, Error> {
        slot::check(name)?;
        if self.identity.server_version_num < READS_SLOTS {
            return slot::look(&self.endpoint, name).await;
        }
        match self.wire.ask("a look at the slot", &format!("READ_REPLICATION_SLOT {name}")).await {
            Ok(rows) => slot::read(name, rows.first()),
            // "feature_not_supported": the command is for physical slots.
            Err(Error::Refused { said, .. }) if said.is("0A000") => {
                Err(Error::SlotLogical { slot: name.to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a physical slot that keeps the log from now on. A temporary one ends with this connection, or with the base
    /// backup that it is used for.
    ///
    /// # Errors
    /// `Refused` when there is one of that name, with SQLSTATE 42710, or no room for one more, with 53400.
    pub async fn create_slot(&mut self, name: &str, temporary: bool) -> Result<(), Error> {
        slot::check(name)?;
        let temporary = if temporary { " TEMPORARY" } else { "" };
        // The older grammar, which every version knows.
        let command = format!("CREATE_REPLICATION_SLOT {name}{temporary} PHYSICAL RESERVE_WAL");
        self.wire.ask("the slot's making", &command).await.map(|_| ())
    }

    /// Drops a slot.
    ///
    /// # Errors
    /// [`Error::SlotMissing`], or [`Error::SlotBusy`] while it is in use.
    pub async fn drop_slot(&mut self, name: &str) -> Result<(), Error> {
        slot::check(name)?;
        let dropped = self.wire.ask("the slot's end", &format!("DROP_REPLICATION_SLOT {name}")).await;
        dropped.map(|_| ()).map_err(|error| match error {
            Error::Refused { said, .. } if said.is("42704") => Error::SlotMissing { slot: name.to_owned() },
            Error::Refused { said, .. } if said.is("55006") => {
                Error::SlotBusy { slot: name.to_owned(), said }
            }
            error => error,
        })
    }

    /// Gives the server the manifest of an earlier backup; the base backup that follows on this connection can then be
    /// incremental.
    ///
    /// # Errors
    /// [`Error::TooOld`] before 17; `Refused` when the server does not summarize its log (`summarize_wal`).
    pub async fn upload_manifest(&mut self, manifest: &[u8]) -> Result<(), Error> {
        let version = self.identity.server_version_num;
        if version < backup::INCREMENTAL {
            return Err(Error::TooOld { version, what: "incremental backups" });
        }
        backup::upload_manifest(&mut self.wire, manifest).await
    }

    /// Begins a base backup; returns when the server has made its checkpoint.
    ///
    /// # Errors
    /// `Refused`, or the connection's.
    pub async fn base_backup(mut self, options: &BaseBackupOptions) -> Result<BaseBackup, Error> {
        self.wire.patience = self.endpoint.silence;
        BaseBackup::begin(self.wire, self.identity.server_version_num, options).await
    }

    /// The log of `timeline` from `from` on, and along the timelines that follow it.
    ///
    /// # Errors
    /// What is known beforehand is looked at first: [`Error::SlotMissing`], [`Error::SlotLost`], [`Error::Ahead`],
    /// [`Error::Diverged`]. Log that is gone is [`Error::WalRemoved`], here or when it is asked for the next.
    pub async fn wal(
        mut self,
        slot: Option<&str>,
        timeline: Timeline,
        from: Lsn,
    ) -> Result<WalStream, Error> {
        if let Some(name) = slot {
            let found = self.slot(name).await?.ok_or_else(|| Error::SlotMissing { slot: name.to_owned() })?;
            if found.kept_from.is_none() {
                return Err(Error::SlotLost { slot: name.to_owned() });
            }
        }
        self.check_history(timeline, from).await?;
        self.wire.patience = self.endpoint.silence / 2;
        WalStream::begin(self.wire, self.endpoint.clock, slot, timeline, from).await
    }

    /// Whether the server's history contains the position: it says so itself only in words.
    async fn check_history(&mut self, timeline: Timeline, from: Lsn) -> Result<(), Error> {
        let now = self.identify().await?;
        if timeline == now.timeline {
            return if from <= now.flushed {
                Ok(())
            } else {
                Err(Error::Ahead { from, flushed: now.flushed })
            };
        }
        let mut left = None;
        if timeline < now.timeline {
            let (_, text) = self.timeline_history(now.timeline).await?;
            let history = history::read(&text).ok_or(Error::Protocol("a history that cannot be read"))?;
            left = history.iter().find(|(one, _)| *one == timeline).map(|(_, at)| *at);
        }
        match left {
            Some(at) if from <= at => Ok(()),
            left => Err(Error::Diverged { timeline, from, left }),
        }
    }
}

async fn identity(wire: &mut Wire, server_version_num: u32) -> Result<Identity, Error> {
    let rows = wire.ask("IDENTIFY_SYSTEM", "IDENTIFY_SYSTEM").await?;
    let read = |row: &Row| {
        Some(Identity {
            system: SystemIdentifier::new(row.number(0)?),
            timeline: Timeline::new(row.number(1)?),
            flushed: Lsn::parse(row.text(2)?)?,
            server_version_num,
        })
    };
    rows.first().and_then(read).ok_or(Error::Protocol("a server without an identity"))
}
