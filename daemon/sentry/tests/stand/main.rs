//! A sentry beside real PostgreSQL servers, on loopback: frozen, killed, cut off, replaced.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in what its tests share")]
#![expect(clippy::print_stderr, reason = "what the processes of a failed test said")]

mod failsafe;
mod freezing;
mod leases;
mod seal;
mod sentry;
mod server;
mod standbys;
