//! The archive: backups where they survive, encrypted, and proven.
//!
//! Objects are written once and never changed (`FORMAT.md`). Where they are is behind one door
//! ([`Store`](lifeboat_engine::ports::Store)); what feeds them and what they are restored into are plain bytes, so that no
//! vendor's client is known here.

mod archive;
pub mod folder;
pub mod keys;
pub mod object;
mod trouble;
pub mod wal;

pub use archive::{Archive, LEVEL};
pub use trouble::Trouble;
