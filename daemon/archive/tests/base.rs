//! Base backups, from folders into an archive and back.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

#[path = "grove/changes.rs"]
mod changes;
#[path = "grove/damage.rs"]
mod damage;
#[path = "grove/delta.rs"]
mod delta;
#[path = "grove/full.rs"]
mod full;
#[path = "grove/place.rs"]
mod place;
#[path = "grove/round_trip.rs"]
mod round_trip;
#[path = "grove/server.rs"]
mod server;
#[path = "grove/tree.rs"]
mod tree;
