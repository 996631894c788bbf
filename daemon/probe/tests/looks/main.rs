//! Looks at real servers on loopback, friendly and nasty.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]

mod canary;
mod http;
mod messenger;
mod nasty;
mod server;
mod tcp;
mod tls;
