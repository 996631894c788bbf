//! The adapter against real PostgreSQL servers, a primary and its streaming standby, on loopback.

mod pair;
