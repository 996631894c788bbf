//! Where an archive is, and what a replication slot is called: texts with a form of their own.
//!
//! **Invariant:** two places that are the same are written the same: no "/" at the end, none twice.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use crate::form::{Flaw, shown, text_form, without_secret};
use crate::rule::Rule;

/// The longest name of a replication slot, in bytes (NAMEDATALEN less one).
pub(crate) const LONGEST_SLOT: usize = 63;

/// The longest prefix: names of objects come behind it.
const LONGEST_PREFIX: usize = 256;

/// Where an archive is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ArchivePlace {
    /// A folder.
    Folder(PathBuf),
    /// A bucket of S3, or of what speaks like it.
    S3(Bucket),
    /// A bucket of Google Cloud Storage.
    Gs(Bucket),
}

/// A part of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What all names of objects begin with, without "/" at its end; empty for the whole bucket.
    pub prefix: String,
}

text_form! {
    ArchivePlace, "lifeboat-archive-place", r"^(/|s3://|gs://).+$",
    "An absolute path, \"s3://BUCKET/PREFIX\" or \"gs://BUCKET/PREFIX\"."
}

impl ArchivePlace {
    /// Reads a place.
    ///
    /// # Errors
    /// It is none; the text says why.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::read(text).map_err(|flaw| format!("{}; {}", flaw.message, flaw.help))
    }

    pub(crate) fn read(text: &str) -> Result<Self, Flaw> {
        let flaw = |why: &str| {
            let help = "a folder (\"/srv/archive\"), \"s3://BUCKET/PREFIX\" or \"gs://BUCKET/PREFIX\"";
            Flaw::new(
                Rule::BadArchivePlace,
                format!("`{}` is no place of an archive: {why}", shown(text)),
                help,
            )
        };
        if text.contains("://") {
            without_secret(text)?;
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            return bucket(rest).map(Self::S3).map_err(flaw);
        }
        if let Some(rest) = text.strip_prefix("gs://") {
            return bucket(rest).map(Self::Gs).map_err(flaw);
        }
        let path = Path::new(text);
        if text.contains('\0') || !path.is_absolute() {
            return Err(flaw("it is neither a bucket nor an absolute path"));
        }
        let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.components().all(plain) || path.parent().is_none() {
            return Err(flaw("it must name a folder, without \"..\""));
        }
        Ok(Self::Folder(path.components().collect()))
    }
}

impl fmt::Display for ArchivePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, bucket) = match self {
            Self::Folder(path) => return path.display().fmt(f),
            Self::S3(bucket) => ("s3", bucket),
            Self::Gs(bucket) => ("gs", bucket),
        };
        write!(f, "{scheme}://{}", bucket.name)?;
        if bucket.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", bucket.prefix) }
    }
}

fn bucket(text: &str) -> Result<Bucket, &'static str> {
    let (name, prefix) = text.split_once('/').unwrap_or((text, ""));
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let ends = [name.bytes().next(), name.bytes().last()];
    let good = ends.iter().all(|b| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    if !good || !(3..=222).contains(&name.len()) || !name.bytes().all(letter) {
        return Err("the bucket has 3 or more lower-case letters, digits, \"-\" and \".\"");
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(inner);
    if !prefix.is_empty() && (prefix.len() > LONGEST_PREFIX || !prefix.split('/').all(part)) {
        return Err(
            "the prefix has letters, digits, \"-\", \"_\" and \".\" in parts joined by \"/\", none beginning with a dot",
        );
    }
    Ok(Bucket { name: name.to_owned(), prefix: prefix.to_owned() })
}

/// The beginning of a replication slot's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotName(String);

text_form! {
    SlotName, "lifeboat-slot", r"^[a-z0-9_]{1,62}$",
    "The beginning of a replication slot's name: lower-case letters, digits and \"_\"."
}

impl SlotName {
    pub(crate) fn read(text: &str) -> Result<Self, Flaw> {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if (1..LONGEST_SLOT).contains(&text.len()) && text.bytes().all(letter) {
            return Ok(Self(text.to_owned()));
        }
        let message = format!("`{}` cannot be the name of a replication slot", shown(text));
        Err(Flaw::new(Rule::BadSlotName, message, "1 to 62 lower-case letters, digits and \"_\""))
    }

    pub(crate) fn lifeboat() -> Self {
        Self("lifeboat".to_owned())
    }

    /// The name of the slot for an archive.
    #[must_use]
    pub fn of(&self, archive: &str) -> String {
        format!("{}_{}", self.0, archive.to_ascii_lowercase().replace('-', "_"))
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_written() {
        for (text, written) in [
            ("/srv/archive", "/srv/archive"),
            ("/srv//archive/./east/", "/srv/archive/east"),
            ("s3://vault-1", "s3://vault-1"),
            ("s3://vault-1/", "s3://vault-1"),
            ("s3://vault.example/a/b_c/", "s3://vault.example/a/b_c"),
            ("gs://vault_1/east", "gs://vault_1/east"),
        ] {
            let place = ArchivePlace::read(text).unwrap();
            assert_eq!(place.to_string(), written);
            assert_eq!(ArchivePlace::read(written).unwrap(), place);
        }
        for text in [
            "",
            "/",
            "srv",
            "./srv",
            "/srv/../etc",
            "s3://",
            "s3://ab",
            "s3://Vault",
            "s3:///x",
            "s3://vault//x",
            "s3://vault/../x",
            "s3://vault/.x",
            "s3://vault/a b",
            "s3://key@vault/x",
            "gs://-vault",
            "https://vault/x",
            "file:///srv",
        ] {
            assert!(ArchivePlace::read(text).is_err(), "{text:?}");
        }
        let long = format!("s3://vault/{}", "a".repeat(300));
        assert!(ArchivePlace::read(&long).is_err());
    }

    #[test]
    fn slots_are_named_after_their_archive() {
        assert_eq!(SlotName::lifeboat().of("Vault-1"), "lifeboat_vault_1");
        for text in ["", "Lifeboat", "life-boat", "a b", &"a".repeat(63)] {
            assert!(SlotName::read(text).is_err(), "{text:?}");
        }
    }
}
