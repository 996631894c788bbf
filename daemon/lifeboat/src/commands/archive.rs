//! `lifeboat archive`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use lifeboat_archive::keys::KeyFile;
use lifeboat_archive::{Archive as Opened, Trouble};
use serde::Serialize;

use crate::archives::{Which, failed, work};
use crate::cli::{Format, Place};
use crate::failure::{Exit, Failure};
use crate::ui;

/// Make an archive, check it, and care for its keys.
///
/// An archive is where backups are kept, encrypted: a folder or a bucket, in another failure domain than what is backed up.
#[derive(Debug, Subcommand)]
pub(crate) enum Archive {
    Init(Init),
    Check(Check),
    Rekey(Rekey),
    Key(Key),
}

impl Archive {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        match self {
            Self::Init(init) => init.run(place),
            Self::Check(check) => check.run(place),
            Self::Rekey(rekey) => rekey.run(place),
            Self::Key(key) => key.run(),
        }
    }
}

/// Make an archive in an empty folder or bucket, and its key file when there is none.
///
/// Copy the key file to a place that survives with you: without it nothing in the archive can be read, by anyone. Refused
/// when there is an archive already (exit 5).
#[derive(Debug, Args)]
pub(crate) struct Init {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    format: Format,
}

/// What is told of an archive.
#[derive(Serialize)]
struct Shown<'a> {
    archive: &'a str,
    place: String,
    id: &'a str,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclusive: Option<bool>,
}

impl Init {
    fn run(self, place: &Place) -> Result<Exit, Failure> {
        let found = self.which.find(place, None)?;
        let file = &found.wiring.key_file;
        let made = !file.exists();
        let key =
            if made { KeyFile::make(file).map_err(|error| found.failed(&error))? } else { found.key()? };
        let archive = work(async {
            let store = found.store(true).await?;
            Opened::init(store, &key).await.map_err(|error| failed("no archive was made", &error))
        });
        if archive.is_err() && made {
            // Nothing is sealed with it.
            let _ = std::fs::remove_file(file);
        }
        let archive = archive?;
        if self.format.json {
            let place = archive.store().place();
            let (archive, id) = (found.name.as_str(), archive.id());
            ui::json(&Shown { archive, place, id, key: key.id().to_string(), exclusive: None });
            return Ok(Exit::Done);
        }
        ui::answer(&format!(
            "an archive is at {} now, opened by {}",
            archive.store().place(),
            file.display()
        ));
        if made {
            ui::note(
                "copy that key file to a place that survives with you: without it nothing can be restored",
            );
        }
        Ok(Exit::Done)
    }
}

/// Try whether an archive can be opened, read, written and listed, and what its store promises.
///
/// Exit 1 when it cannot be used, 3 when the key does not open it.
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    format: Format,
}

impl Check {
    fn run(self, place: &Place) -> Result<Exit, Failure> {
        let found = self.which.find(place, None)?;
        let (archive, abilities) = work(async {
            let archive = found.open().await?;
            let abilities = archive.store().examine().await;
            let abilities = abilities.map_err(|error| found.failed(&Trouble::from(error)))?;
            Ok((archive, abilities))
        })?;
        let key = found.key()?.id().to_string();
        if self.format.json {
            let place = archive.store().place();
            let exclusive = Some(abilities.exclusive);
            ui::json(&Shown { archive: &found.name, place, id: archive.id(), key, exclusive });
            return Ok(Exit::Done);
        }
        ui::answer(&format!(
            "{} at {}: can be read, written and listed",
            found.name,
            archive.store().place()
        ));
        if !abilities.exclusive {
            ui::note(
                "its store replaces objects instead of refusing: two that write at once are not kept apart",
            );
        }
        ui::note("storage classes and locks are left to the bucket's own rules; nothing is ever rewritten");
        Ok(Exit::Done)
    }
}

/// Let another key file open an archive, and the old one no more. No data is read or written again.
#[derive(Debug, Args)]
pub(crate) struct Rekey {
    #[command(flatten)]
    which: Which,
    /// The new key file; made when it is missing.
    #[arg(long, value_name = "FILE")]
    new_key: PathBuf,
    /// Leave the old key file able to open it.
    #[arg(long)]
    keep_old: bool,
}

impl Rekey {
    fn run(self, place: &Place) -> Result<Exit, Failure> {
        let found = self.which.find(place, None)?;
        let old = found.key()?;
        let new =
            if self.new_key.exists() { KeyFile::open(&self.new_key) } else { KeyFile::make(&self.new_key) };
        let new = new.map_err(|error| found.failed(&error))?;
        if new.id().to_string() == old.id().to_string() {
            return Err(Failure::new(Exit::Refused, "that is the key file that opens it already"));
        }
        work(async {
            let archive = found.open().await?;
            archive.admit_key_file(&new).await.map_err(|error| found.failed(&error))?;
            if !self.keep_old {
                archive.forget_key_file(&old).await.map_err(|error| found.failed(&error))?;
            }
            Ok(())
        })?;
        let also = if self.keep_old { ", and so does the old one" } else { "; the old one does no more" };
        ui::answer(&format!("{} opens {}{also}", self.new_key.display(), found.name));
        ui::note(&format!("set `key_file` of {} to it on every agent", found.name));
        Ok(Exit::Done)
    }
}

/// Make a key file, or name the one that is there.
#[derive(Debug, Args)]
pub(crate) struct Key {
    /// The file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Key {
    fn run(self) -> Result<Exit, Failure> {
        let there = self.file.exists();
        let key = if there { KeyFile::open(&self.file) } else { KeyFile::make(&self.file) };
        let key = key.map_err(|error| failed("there is no key", &error))?;
        ui::answer(&key.id().to_string());
        Ok(Exit::Done)
    }
}
