//! The looking: HTTP(S) and TCP probes, witnesses, and the canary.
//!
//! Each look opens a fresh connection, because a kept one proves nothing about a new client, and reads
//! no more than the question needs. What one agent's probes share (bounded name look-ups, one TLS
//! configuration per set of trust anchors) is its [`Kit`].
//!
//! **Invariant:** a look returns within its limit and holds at most about 200 KiB, whatever the other side sends.
//! **Invariant:** nothing here is retried, pooled, cached or decided, and no clock is read.
//! **Invariant:** failures get their kind from error kinds and codes, never from the text of an error.

mod canary;
mod deadline;
mod dial;
mod exchange;
mod failure;
mod fetch;
mod http;
mod kit;
mod messenger;
mod setup;
mod stub;
mod target;
mod tcp;
mod trust;

pub use canary::{CanaryOptions, HttpCanary};
pub use exchange::BODY_LIMIT;
pub use http::{HttpOptions, HttpProbe};
pub use kit::Kit;
pub use messenger::HttpMessenger;
pub use setup::SetupError;
pub use tcp::{TcpProbe, TcpWitness};
