//! Do it once, in order, on the record: the loop, the journal, the ports.
//!
//! **Invariant:** a decision is in the journal, flushed, before anything it commands is started.
//! **Invariant:** only the loop appends to the journal, and only `clock` reads a clock.
//! **Invariant:** no vendor's client and no policy is known here; the world is behind `ports`.

pub mod clock;
pub mod ports;
