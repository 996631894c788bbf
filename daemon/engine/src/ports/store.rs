//! The door to where an archive's objects are: a folder, or a bucket.
//!
//! Objects are written once and never changed. Whoever keeps them knows nothing of what is in them.
//!
//! **Invariant:** an object that can be seen is whole: what was begun and not finished cannot be read or listed.
//! **Invariant:** an object that exists is never replaced: who comes second is told [`StoreError::Exists`].

mod examination;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_core::Moment;
use thiserror::Error;

pub use self::examination::examine;

/// The longest name of an object, in bytes.
pub const LONGEST_NAME: usize = 512;

/// Why a store did not do it. What to do next is in the kind; the text is for people.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// There is an object of that name already.
    #[error("{0} is there already")]
    Exists(ObjectName),
    /// There is no object of that name.
    #[error("{0} is not there")]
    Missing(ObjectName),
    /// Who we are may not do that.
    #[error("the store refused: {0}")]
    Denied(String),
    /// No space is left, or a quota is used up.
    #[error("the store is full: {0}")]
    Full(String),
    /// It may work when tried again: no connection, no answer, too many requests, an error of the store's own.
    #[error("the store cannot be reached: {0}")]
    Unreachable(String),
    /// It will not work when tried again.
    #[error("the store cannot be used: {0}")]
    Unusable(String),
}

impl StoreError {
    /// Whether the same call may succeed when it is made again.
    #[must_use]
    pub fn passing(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }
}

/// The name of an object: parts of letters, digits, `.`, `_`, `-`, joined by `/`. None begins with a dot, so that no name
/// leads anywhere else. A folder holds no object below another one (`a/b` beside `a`), and no part longer than 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text that is no name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{0}` is no name of an object: letters, digits, `.`, `_`, `-` in parts joined by `/`, none beginning with a dot"
)]
pub struct NoObjectName(String);

impl FromStr for ObjectName {
    type Err = NoObjectName;

    fn from_str(text: &str) -> Result<Self, NoObjectName> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(letter);
        if text.len() <= LONGEST_NAME && text.split('/').all(part) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NoObjectName(text.chars().take(80).collect()))
        }
    }
}

/// An object as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: ObjectName,
    /// Its length, in bytes.
    pub size: u64,
    /// When it was written, on the store's clock.
    pub written: Moment,
}

/// What a store was found to do, by trying it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Of two that write one name, one is told that it exists. Where it is not so, a stale writer is not harmless.
    pub exclusive: bool,
}

/// Where objects are kept.
#[async_trait]
pub trait Store: Send + Sync {
    /// What it is called in messages: `/srv/archive`, `s3://bucket/prefix`, `gs://bucket/prefix`.
    fn place(&self) -> String;

    /// Tries, with objects of its own under `probe/` that it removes again, whether it can be read, written and listed, and
    /// what it does when a name is written twice.
    async fn examine(&self) -> Result<Abilities, StoreError>;

    /// A new object with that content, durable when this returns.
    async fn put(&self, name: &ObjectName, content: Bytes) -> Result<(), StoreError>;

    /// A new object that is written part by part, in bounded memory.
    async fn begin(&self, name: &ObjectName) -> Result<Box<dyn Upload>, StoreError>;

    /// The bytes of that range; fewer when the object ends before it does.
    async fn get(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// How long an object is; none when there is no such object.
    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError>;

    /// The objects whose names begin with `under`, in the order of their names, from the first one after `after` on: as
    /// many as come in one answer, and none at the end. What is there and has no name of an object's is left out.
    async fn list(&self, under: &str, after: Option<&ObjectName>) -> Result<Vec<Listed>, StoreError>;

    /// Removes an object; well also when there is none.
    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError>;

    /// What was finished before this was called is durable when it returns: one barrier for many objects. Until then a
    /// machine that loses its power may damage what was finished, under its name, so that nothing may refer to it yet. When
    /// it fails it goes on failing: what was finished since it last worked is written again, to a store that is opened anew.
    async fn settle(&self) -> Result<(), StoreError>;
}

/// An object that is being written. What is dropped unfinished leaves nothing that can be seen.
#[async_trait]
pub trait Upload: Send {
    /// The next bytes.
    async fn write(&mut self, part: Bytes) -> Result<(), StoreError>;

    /// The object is whole, and can be seen; durable after the next [`Store::settle`].
    async fn finish(self: Box<Self>) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        for right in ["archive", "wal/00/000000010000000000000001.z", "a/b_c-d.e"] {
            assert_eq!(right.parse::<ObjectName>().unwrap().as_str(), right);
        }
        let long = "a".repeat(LONGEST_NAME + 1);
        for wrong in
            ["", "/", "a/", "/a", "a//b", "../a", "a/../b", ".", "a/.b", "a b", "a\\b", "ä", "a\0", &long]
        {
            assert!(wrong.parse::<ObjectName>().is_err(), "{wrong:?}");
        }
    }
}
