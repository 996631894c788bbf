//! Continuous WAL in the archive: what is called durable is there, in order, and what is missing is named.

#![expect(clippy::unwrap_used, reason = "a test ends where something unexpected is found")]

#[path = "wal/world.rs"]
mod world;

#[path = "wal/faults.rs"]
mod faults;
#[path = "wal/files.rs"]
mod files;
#[path = "wal/gaps.rs"]
mod gaps;
#[path = "wal/kills.rs"]
mod kills;
#[path = "wal/server.rs"]
mod server;
#[path = "wal/stream.rs"]
mod stream;
#[path = "wal/timelines.rs"]
mod timelines;
#[path = "wal/twice.rs"]
mod twice;
