//! The lab: two regions on loopback, lost on purpose.
//!
//! What lifeboat promises is shown here on real servers: PostgreSQL pairs, shops that write to them, fault
//! proxies on every path, a canary client that writes down every acknowledged order, and the `lifeboat`
//! binary beside them. `chaos demo` is the show; tests use [`Lab`] for the cases a show has no room for.
//!
//! **Invariant:** the lab knows lifeboat only from outside: its binary, its files, its answers.
//! **Invariant:** loopback only, no process and no folder left behind, however the lab ends.

pub mod agent;
pub mod canary;
pub mod enactment;
pub mod etcd;
mod faults;
pub mod holdout;
pub mod host;
pub mod html;
pub mod lab;
pub mod load;
pub mod network;
pub mod postgres;
pub mod power;
pub mod process;
pub mod proxy;
pub mod region;
pub mod relay;
pub mod report;
pub mod resolver;
pub mod rules;
pub mod scenario;
pub mod sentry;
pub mod shop;
pub mod simulate;

pub mod timeline;
pub mod undertaker;
pub mod witness;

pub use agent::{AgentOptions, ProbePolicy};
pub use canary::{Canary, CanaryOptions};
pub use lab::moves::Planned;
pub use lab::sites::Part;
pub use lab::{Lab, LabError, LabOptions};
pub use load::{Load, LoadOptions};
pub use proxy::Fault;
pub use region::{From, Place, Region, Site, To};
