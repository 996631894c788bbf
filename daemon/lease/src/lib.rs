//! Who may decide, and what several agents share.
//!
//! **Invariant:** nothing is agreed upon here: etcd does that, and each write compares what it depends on in the
//! transaction that makes it.

pub mod etcd;
pub mod kubernetes;
mod promise;
pub mod seal;

pub use promise::Promises;
