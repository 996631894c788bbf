//! Looks at real servers on loopback, friendly and nasty.

mod canary;
mod http;
mod nasty;
mod server;
mod tcp;
mod tls;
