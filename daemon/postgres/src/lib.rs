//! PostgreSQL: roles as observed, lag, fence, promote, planned moves, rejoin.
//!
//! A [`Member`] is one server of a database in one region. It looks at the server (roles, positions, a
//! heartbeat that the primary must commit) and acts on it (fence, promote), over the ports of the engine.
//!
//! **Invariant:** nothing is decided on the text of an error: on its SQLSTATE, on the kind of an I/O error, or not.
//! **Invariant:** a password is read when a session is opened and is in no text, no log and no `Debug`.
//! **Invariant:** only a server believed to be the primary is written to, or one that a run has promoted.
//! **Invariant:** memory is bounded: a server that sends more than a session's allowance is hung up on; the
//! replication protocol takes any amount, through buffers of a fixed size.

pub mod by_hand;
mod command;
mod connect;
mod cut_off;
mod fence;
mod heartbeat;
pub mod host;
mod look;
mod member;
mod options;
mod password;
mod planned;
mod position;
mod promote;
mod reach;
pub mod replication;
mod sample;
mod stream;
mod tls;
mod trouble;
mod witness;

pub use member::Member;
pub use options::{FenceCommand, Options, Tls};
pub use planned::slot_name;
