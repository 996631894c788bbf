//! DNS: own authority, RFC 2136 updates, census, and the DNS probe.
//!
//! Messages are read and written by `hickory-proto`; sockets, deadlines and the meaning of an answer are
//! here, because what decides between "nothing happened" and "it may have happened" is exactly which byte
//! left when.
//!
//! **Invariant:** a name is changed only when it reads as expected, in one step that also records the
//! epoch; an older epoch is refused where the name is kept, not only here.
//! **Invariant:** no answer is never taken as an answer: it is `Unreachable` before a change was sent and
//! `Unclear` after.
//! **Invariant:** whatever a packet holds, memory stays bounded and nobody panics.

pub mod authority;
pub mod by_hand;
mod census;
mod exchange;
mod identity;
mod probe;
pub mod rfc2136;
mod value;

pub use authority::{Authority, AuthorityError, FixedRecord, KeptName, KeptNames, Serving, ZoneOptions};
pub use identity::{Identity, identify};
pub use probe::DnsProbe;
pub use rfc2136::{KeyAlgorithm, NameState, Rfc2136, Rfc2136Options, UpdateError};
pub use value::{RecordKind, ValueError};
