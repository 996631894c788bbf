//! Do it once, in order, on the record: the loop, the journal, the ports.
//!
//! **Invariant:** a decision is in the journal, flushed, before anything it commands is started.
//! **Invariant:** only the loop appends to the journal, and only `clock` reads a clock.
//! **Invariant:** no vendor's client and no policy is known here; the world is behind `ports`.

pub mod clock;
mod effects;
mod guard;
mod hands;
pub mod inbox;
pub mod journal;
mod news;
pub mod ports;
#[cfg(feature = "pretend")]
pub mod pretend;
pub mod program;
mod report;
mod tasks;
mod watch;
pub mod world;

pub use guard::{EngineError, Guard, Parts, open_state};
pub use inbox::Inbox;
pub use journal::{Journal, JournalError};
pub use world::{Post, World};
