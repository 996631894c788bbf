//! Continuous WAL in the archive: what is called durable is there, in order, and what is missing is named.

#![expect(clippy::unwrap_used, reason = "a test ends where something unexpected is found")]
#[path = "wal/world.rs"]
mod world;

#[path = "wal/stream.rs"]
mod stream;
