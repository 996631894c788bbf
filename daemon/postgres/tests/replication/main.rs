//! The replication protocol against real PostgreSQL servers, on loopback.
//!
//! The newest server that is installed is taken; `LIFEBOAT_TEST_POSTGRES` names the `bin` folder of another.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in what its tests share")]

mod backup;
mod cluster;
mod garbage;
mod login;
mod wal;
mod written;
