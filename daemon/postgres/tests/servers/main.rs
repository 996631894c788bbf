//! The adapter against real PostgreSQL servers, a primary and its streaming standby, on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in what its tests share")]

mod by_hand;
mod cut_off;
mod fence;
mod load;
mod look;
mod network;
mod pair;
mod planned;
mod promote;
mod trust;
