//! The archive: backups where they survive, encrypted, and proven.
//!
//! Objects are written once and never changed (`FORMAT.md`). Where they are is behind one door
//! ([`Store`](lifeboat_engine::ports::Store)); what feeds them and what they are restored into are plain bytes, so that no
//! vendor's client is known here.

mod archive;
pub mod backup;
pub mod folder;
pub mod keys;
pub mod manifest;
pub mod object;
mod pack;
mod patience;
pub mod restore;
pub mod retention;
mod stream;
mod trouble;
pub mod verify;
pub mod wal;

pub use archive::{Archive, LEVEL};
pub use backup::{Backup, Ending, FileHeading, Summary};
pub use manifest::catalog::catalog;
pub use manifest::{BackupId, Manifest, Point, PointLabel};
pub use restore::Plan;
pub use trouble::Trouble;
pub use verify::verify;
