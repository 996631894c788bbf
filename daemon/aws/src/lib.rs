//! Amazon's services, and those that speak like them.
//!
//! **Invariant:** one TLS stack: the default features of Amazon's crates, which bring another one, are off.
//! **Invariant:** time-outs and retries are said here, each; none is left to a default that may change.

pub mod s3;
