//! The adapter against real PostgreSQL servers, a primary and its streaming standby, on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in what its tests share")]

mod fence;
mod look;
mod network;
mod pair;
mod promote;
mod trust;
